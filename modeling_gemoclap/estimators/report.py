"""The result of an evaluation in Python."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.pictures import EmbeddingFigures
from ..evaluation.report import as_table, remarks, write_report


@dataclass(frozen=True)
class EvaluationReport:
    """The result of an evaluation.

    Args:
        record: The content of `results.json`: metrics, intervals over speakers, protocol, what the model has heard.
        rows: One dict for each recording: `file_name`, `emotion`, `predicted`, `score_<label>` for every label,
            `speaker_id`, `gender`.
        figures: Data of the pictures.
    """

    record: dict
    rows: list[dict]
    figures: EmbeddingFigures

    @property
    def uar(self) -> float:
        """Unweighted average recall: the mean recall over the emotions."""
        return self.record["uar"]

    @property
    def war(self) -> float:
        """Weighted average recall: the accuracy."""
        return self.record["war"]

    def save(self, folder: str | Path) -> Path:
        """Write the files of `evaluate.py` to a folder: `report.html`, `results.json`, predictions and pictures."""
        folder = Path(folder).expanduser()
        write_report(self.record, [self.rows], self.figures, folder)
        return folder

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one page without other files.

        Args:
            path: A file to write the page to; None writes none.
        """
        with tempfile.TemporaryDirectory() as folder:
            page = self.save(folder) / "report.html"
            if path is not None:
                shutil.copyfile(page, Path(path).expanduser())
            return page.read_text(encoding="utf-8")

    def __str__(self) -> str:
        title = f"{self.record['corpus']}, {self.record['protocol']}"
        return "\n".join([title, "", as_table(self.record), "", *remarks(self.record)])
