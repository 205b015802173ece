"""A page on recordings: answers, level, noise, bandwidth, and the distance to the training clips."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..command_line.places import refuse_unwritable
from ..command_line.terminal import printable
from ..corpora.files import write_atomically
from ..fingerprint import TRAINING_CLIPS
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..report_pages import render
from ..safety_gemoclap import tensors_sha256
from ..training_clips import TrainingClips, load_training_clips
from .classifier import AudioClassifier
from .findings import NAMES, Background, ReportRow, findings, measure_of, median_of, number_text
from .loading import checkpoint_folder
from .observations import observe
from .predictions import Prediction, PredictionOptions, extractor_of, why_only_ranks

MOST_ROWS = 1000  # recordings that the page lists, and as many that cannot be used


def check_report(path: str) -> None:
    """Check, before anything is predicted, that a report is called `.html` and can be written.

    Raises:
        ValueError: If it is not or cannot.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--report {path}: give a name that ends in .html")
    refuse_unwritable({"--report": Path(path).expanduser().parent})


def training_clips_for(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, model: str, revision: str | None = None
) -> TrainingClips | str:
    """Read the sample of training clips of a checkpoint.

    Args:
        pipe: The model, from `load_pipeline`.
        model: Its name or folder, as for `load_pipeline`.
        revision: As for `load_pipeline`.

    Returns:
        The sample, or why there is none for these weights.

    Raises:
        ValueError: If the file is damaged.
    """
    found = load_training_clips(checkpoint_folder(model, revision, (TRAINING_CLIPS,)))
    if found is None:
        return "the checkpoint holds no embeddings of its training clips"
    if found.weights_sha256 != tensors_sha256(pipe.model.state_dict().values()):
        return f"the embeddings of training clips in {TRAINING_CLIPS} were made with other weights"
    return found


def recording_report(
    path: str,
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    options: PredictionOptions,
    model: str,
    revision: str | None = None,
) -> RecordingReport:
    """Begin a report, with the sample of training clips that the checkpoint holds.

    Args:
        path: The page; see `check_report`.
        pipe: The model, from `load_pipeline`.
        options: Labels, templates, gender, size of batches and threshold.
        model: Its name or folder, as for `load_pipeline`.
        revision: As for `load_pipeline`.

    Raises:
        ValueError: If the sample is damaged.
    """
    return RecordingReport(path, pipe, options, training_clips_for(pipe, model, revision), model)


class RecordingReport:
    """Collects what is known of recordings while they are predicted, and writes a page.

    Args:
        path: The page; see `check_report`.
        pipe: The model, from `load_pipeline`.
        options: Labels, templates, gender, size of batches and threshold.
        training: A sample of the training clips, or why there is none; from `training_clips_for`.
        model: Name of the model on the page.

    Attributes:
        rows: The recordings so far.
    """

    def __init__(
        self,
        path: str,
        pipe: ZeroShotEmotionPipeline | AudioClassifier,
        options: PredictionOptions,
        training: TrainingClips | str,
        model: str,
    ):
        extractor = extractor_of(pipe)
        sets_level = bool(extractor.do_normalize or extractor.level_db is not None)
        self.background = Background(training, why_only_ranks(pipe, options), options.reject_below, sets_level)
        self.path, self.pipe, self.options, self.model = Path(path).expanduser(), pipe, options, model
        self.rows: list[ReportRow] = []

    def predict(self, names: Iterable[str], recordings: Iterable) -> Iterator[Prediction | str]:
        """Predict as `predict` does with `on_error="return"`, and collect what is known of each recording.

        Args:
            names: The names of the recordings.
            recordings: The recordings, of any type that `read_audio` accepts.
        """
        training = self.background.training
        for name, seen in zip(names, observe(self.pipe, recordings, self.options), strict=True):
            distance = percentile = None
            if seen.embedding is not None and isinstance(training, TrainingClips):
                distance = training.distance(seen.embedding)
                percentile = training.percentile(distance)
            self.rows.append(ReportRow(name, seen.answer, seen.signal, distance, percentile))
            yield seen.answer

    def sentences(self) -> list[str]:
        """What stands out; see `findings`."""
        return [printable(sentence) for sentence in findings(self.rows, self.background)]

    def summary(self) -> str:
        """The place of the page and what stands out, for a terminal."""
        return "\n".join([f"report: {self.path}", *(f"  {sentence}" for sentence in self.sentences())])

    def write(self) -> None:
        """Write the page, which needs no other file.

        Raises:
            OSError: If it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        used = [row for row in self.rows if isinstance(row.answer, Prediction)]
        unusable = [row for row in self.rows if row.reason is not None]
        training, folder = self.background.training, _common_folder([row.name for row in self.rows])

        def shown(row: ReportRow) -> str:
            return printable(os.path.relpath(row.name, folder) if folder else row.name)

        page = render(
            "recordings.html",
            model=printable(self.model),
            sentences=self.sentences(),
            background=self.background,
            training=None if isinstance(training, str) else training,
            labels=_labels(used),
            measures=_measures(used, None if isinstance(training, str) else training),
            total=len(self.rows),
            used=len(used),
            folder=printable(folder),
            rows=[(shown(row), row) for row in used[:MOST_ROWS]],
            unusable=[(shown(row), printable(row.reason)) for row in unusable[:MOST_ROWS]],
            number=lambda value: "–" if value is None else number_text(value),
        )
        with write_atomically(self.path) as part:
            part.write_text(page, encoding="utf-8")


def _common_folder(names: list[str]) -> str:
    """The folder of several files, so that it is not repeated for each; empty if they have none in common."""
    try:
        return os.path.commonpath([os.path.dirname(name) for name in names]) if len(names) > 1 else ""
    except ValueError:  # relative and absolute paths
        return ""


def _labels(used: list[ReportRow]) -> list[dict]:
    """For each label, the most frequent first: recordings, share, mean score and medians of measures."""
    groups: dict[str, list[ReportRow]] = {}
    for row in used:
        groups.setdefault(row.answer.label, []).append(row)
    return [
        {
            "label": printable(label),
            "n": len(rows),
            "share": len(rows) / len(used),
            "score": float(np.mean([row.answer.score for row in rows])),
            "medians": [median_of(rows, lambda row, name=name: measure_of(row, name)) for name in NAMES],
            "percentile": median_of(rows, lambda row: row.percentile),
        }
        for label, rows in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def _measures(used: list[ReportRow], training: TrainingClips | None) -> list[tuple]:
    """For each measure its name, unit, and the 5th, 50th and 95th percentile of the recordings and training clips."""
    table = []
    for name, (title, unit, *_) in NAMES.items():
        values = [value for value in (measure_of(row, name) for row in used) if value is not None]
        found = np.percentile(values, [5, 50, 95]).tolist() if values else [None] * 3
        expected = training.range_of(name) if training else None
        table.append((title, unit, found, expected or [None] * 3))
    return table
