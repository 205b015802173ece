"""`report.html`: one file with everything in it."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from .statistics import FEWEST_SPEAKERS, interval_text


def write_page(record: dict, remarks: list[str], calibrated: str, pictures: list[tuple[str, str]], path: Path) -> None:
    """Write the report as one page, pictures and all.

    Args:
        record: What `results.json` says.
        remarks: Sentences below the table.
        calibrated: How scores were calibrated.
        pictures: Names of PNGs beside `path`, and what they show.
        path: Where the page goes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(fewest=FEWEST_SPEAKERS, interval_text=interval_text)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    images = [
        {"name": name, "shows": shows, "data": base64.b64encode((path.parent / name).read_bytes()).decode()}
        for name, shows in pictures
    ]
    rows = [("model", record), ("constant answer", record["controls"]["constant"])]
    if record["controls"]["shuffled_labels"]:
        rows.append(("shuffled labels", record["controls"]["shuffled_labels"]))
    page = environment.get_template("report_page.html").render(
        record=record, remarks=remarks, images=images, rows=rows, calibrated=calibrated
    )
    path.write_text(page, encoding="utf-8")
