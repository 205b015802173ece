"""Predictions for files and folders, written as they are made."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .classifier import AudioClassifier
from .output import PredictionFile, Rows, format_of
from .predictions import NONE_OF_THESE, Prediction, PredictionOptions, identity_of_predictions, predict
from .recordings import Recordings, read_input

if TYPE_CHECKING:
    from .report import RecordingReport


@dataclass(frozen=True)
class OutputOptions:
    """Where predictions are written, and how.

    Args:
        path: A file; None is the standard output.
        kind: `"table"`, `"csv"` or `"jsonl"`; None: by the suffix of the file, a table on the standard output.
        restart: Whether to overwrite the file instead of continuing it.
        quiet: Whether to show no progress.
    """

    path: str | None = None
    kind: str | None = None
    restart: bool = False
    quiet: bool = False


class FilePredictor:
    """Predicts the emotion of recordings into a file or onto the standard output.

    Args:
        pipe: The model, from `load_pipeline`.
        recordings: The recordings, from `find_recordings`.
        options: Labels, templates, gender and size of batches.
        output: Where the predictions are written.
        report: Collects what is known of the recordings; None: nothing does. With it, all recordings are predicted,
            also those whose predictions the file already has.

    Attributes:
        errors: The messages of recordings that could not be used.
        skipped: Number of recordings whose predictions the file already had.
        rejected: Number of predictions whose score is below `reject_below`, of those that were made now.

    Raises:
        ValueError: If options are invalid.
    """

    def __init__(
        self,
        pipe: ZeroShotEmotionPipeline | AudioClassifier,
        recordings: Recordings,
        options: PredictionOptions,
        output: OutputOptions,
        report: RecordingReport | None = None,
    ):
        kind = format_of(output.path, output.kind)
        width = max(map(len, ["file", *recordings.names]))
        rows = Rows(kind, options.labels_of(pipe), options.gender, options.reject_below is not None, width)
        path = Path(output.path).expanduser() if output.path else None
        identity = identity_of_predictions(pipe, options) if path else {}  # hashing the weights takes a second
        self.file = PredictionFile(path, rows, identity, output.restart)
        self.pipe, self.recordings, self.options, self.quiet = pipe, recordings, options, output.quiet
        self.report = report
        self.errors: list[str] = []
        self.skipped = self.rejected = 0
        list(predict(pipe, [], options))  # invalid options raise an error before the file is touched

    def run(self) -> None:
        """Predict and write.

        Raises:
            ValueError: If the file holds other predictions, or another process is writing it.
            OSError: If the file cannot be written.
        """
        with self.file.open() as file:
            todo = self.recordings.without(file.done)
            self.skipped = len(self.recordings) - len(todo)
            names, new = (self.recordings if self.report else todo).names, set(todo.names)
            for name, answer in zip(self._with_progress(names), self._answers(names), strict=True):
                if name not in new:
                    continue
                if isinstance(answer, str):
                    self.errors.append(answer)
                else:
                    self.rejected += answer.rejected
                file.write(name, answer)
        if self.report:
            self.report.write()

    def _answers(self, names: list[str]) -> Iterator[Prediction | str]:
        recordings = list(map(read_input, names))  # a list: the pipeline reads its recordings ahead
        if self.report:
            return self.report.predict(names, recordings)
        return predict(self.pipe, recordings, self.options, on_error="return")

    def _with_progress(self, names: Iterable[str]) -> Iterator[str]:
        hidden = self.quiet or not sys.stderr.isatty() or (self.file.path is None and sys.stdout.isatty())
        return iter(tqdm(names, unit="recording", disable=hidden, dynamic_ncols=True))

    def summary(self) -> str:
        """What was done, and the recordings that could not be used."""
        done, threshold = len(self.recordings) - self.skipped - len(self.errors), self.options.reject_below
        parts = [f"{done} predicted"]
        if threshold is not None:
            parts[0] += f", of which {self.rejected} {NONE_OF_THESE!r} (score below {threshold:g})"
        parts += [f"{self.skipped} already in {self.file.path}"] if self.skipped else []
        parts += [f"{len(self.errors)} could not be used:"] if self.errors else []
        lines = [", ".join(parts), *(f"  {error}" for error in self.errors)]
        return "\n".join([*lines, *filter(None, [self.recordings.describe_ignored()])])
