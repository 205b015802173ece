"""`report.html`: a self-contained page with the tables and figures of an evaluation."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from ..intervals import FEWEST_SPEAKERS, interval_text


def write_page(record: dict, remarks: list[str], calibrated: str, pictures: list[tuple[str, str]], path: Path) -> None:
    """Write the report as one page with embedded figures.

    Args:
        record: Content of `results.json`.
        remarks: Sentences below the table.
        calibrated: Description of the calibration of scores.
        pictures: File names of PNGs in the folder of `path`, and their captions.
        path: The page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(fewest=FEWEST_SPEAKERS, interval_text=interval_text)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    images = [
        {"caption": caption, "data": base64.b64encode((path.parent / name).read_bytes()).decode()}
        for name, caption in pictures
    ]
    rows = [("model", record), ("constant baseline", record["controls"]["constant"])]
    if record["controls"]["shuffled_labels"]:
        rows.append(("trained on shuffled labels", record["controls"]["shuffled_labels"]))
    page = environment.get_template("report_page.html").render(
        record=record, remarks=remarks, images=images, rows=rows, calibrated=calibrated
    )
    path.write_text(page, encoding="utf-8")
