"""`report.html`: a self-contained page with the tables and figures of an evaluation."""

from __future__ import annotations

import base64
from pathlib import Path

from ..intervals import FEWEST_SPEAKERS, interval_text
from ..report_pages import render


def write_page(record: dict, remarks: list[str], calibrated: str, pictures: list[tuple[str, str]], path: Path) -> None:
    """Write the report as one page with embedded figures.

    Args:
        record: Content of `results.json`.
        remarks: Sentences below the table.
        calibrated: Description of the calibration of scores.
        pictures: File names of PNGs in the folder of `path`, and their captions.
        path: The page.
    """
    images = [
        {"caption": caption, "data": base64.b64encode((path.parent / name).read_bytes()).decode()}
        for name, caption in pictures
    ]
    rows = [("model", record), ("constant baseline", record["controls"]["constant"])]
    if record["controls"]["shuffled_labels"]:
        rows.append(("trained on shuffled labels", record["controls"]["shuffled_labels"]))
    parts = {"record": record, "remarks": remarks, "images": images, "rows": rows, "calibrated": calibrated}
    page = render("evaluation.html", **parts, fewest=FEWEST_SPEAKERS, interval_text=interval_text)
    path.write_text(page, encoding="utf-8")
