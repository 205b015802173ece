"""Predictions on disk: those of single folds, and the pooled predictions of a run."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

import numpy as np

from ..corpora.files import damage_is_named, read_object, write_atomically, write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import UNKNOWN
from ..fingerprint import AUDIO_LIBRARIES, IDENTITY, fingerprint, folder_sha256
from .clips import Evaluation
from .statistics import Predictions

# Files of a checkpoint that its predictions do not depend on.
UNRELATED = ("fold.json", IDENTITY, "skipped_clips.json", "trainer_state.json", "card.json")
PREDICTIONS, EMBEDDINGS, RECORD = "predictions.csv", "embeddings.npy", "answers.json"
RECORD_FIELDS = {"made_of": dict, "skipped": list, "method": str, "heard": dict}


@dataclass
class FoldPredictions:
    """Predictions of one fold's checkpoint.

    Args:
        rows: Rows of its `predictions.csv`.
        embeddings: Audio embedding of each clip, `(clips, projection_dim)`.
        record: `made_of` (what the predictions depend on), `skipped`, `method` and `heard`.
    """

    rows: list[dict]
    embeddings: np.ndarray
    record: dict


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a CSV file atomically."""
    with write_atomically(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict]:
    """Read a CSV file that `write_rows` wrote.

    Raises:
        ValueError: If it is damaged or has no rows.
    """
    with damage_is_named(path, "its rows", fields=True), open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has more or fewer fields than line 1")
            rows.append(row)
        if not rows:
            raise ValueError("there are none")
        return rows


def predictions_of_rows(rows: list[dict]) -> Predictions:
    """Convert rows of predictions to arrays. Rows without a `fold` are in fold 0.

    Raises:
        ValueError: If there are no scores, or a score is not finite.
    """
    labels = [name.removeprefix("score_") for name in rows[0] if name.startswith("score_")]
    files, speakers, genders = (
        np.array([row[name] for row in rows]) for name in ("file_name", "speaker_id", "gender")
    )
    folds = np.array([int(row.get("fold", 0)) for row in rows])
    truth = np.array([labels.index(row["emotion"]) for row in rows])
    scores = np.array([[float(row[f"score_{label}"]) for label in labels] for row in rows])
    if not labels or not np.isfinite(scores).all():
        raise ValueError("the scores of a clip are missing, or not finite")
    return Predictions(labels, files, speakers, genders, folds, truth, scores)


def _results(run: str | Path) -> tuple[Path, dict]:
    """The folder that holds the results of a run, and the content of its `results.json`."""
    folder = next((path for path in (Path(run, "results"), Path(run)) if (path / "results.json").is_file()), None)
    if folder is None:
        raise ValueError(f"{run}: no results.json there: evaluate the run with evaluate.py first")
    return folder, read_object(folder / "results.json", protocols=(dict, NoneType))


def load_predictions(run: str | Path) -> list[Predictions]:
    """Load the pooled predictions of a run that `evaluate.py` has evaluated.

    Args:
        run: Folder of the run, or of its results.

    Returns:
        One `Predictions` for each seed, with clips sorted by file name.

    Raises:
        ValueError: If the run was not evaluated, or its predictions are damaged.
    """
    folder, results = _results(run)
    seeds = results.get("seeds")
    with damage_is_named(folder / "results.json", "its seeds", fields=True):
        files = [folder / f"predictions_seed_{seed}.csv" for seed in seeds] if seeds else [folder / PREDICTIONS]
    predictions = []
    for path in files:
        with damage_is_named(path, "its rows", fields=True):
            rows = sorted(read_rows(path), key=lambda row: row["file_name"])
            predictions.append(predictions_of_rows(rows))
    return predictions


def protocols_of(run: str | Path) -> dict:
    """Name and folds of the protocol of each seed of an evaluated run; for a single checkpoint a placeholder.

    Raises:
        ValueError: If the run was not evaluated.
    """
    folder, results = _results(run)
    if not results["protocols"]:
        return {"one checkpoint": None}
    with damage_is_named(folder / "results.json", "its protocols", fields=True):
        return {
            seed: {"name": protocol["name"], "folds": protocol["folds"]}
            for seed, protocol in results["protocols"].items()
        }


def heard_of(run: str | Path) -> str:
    """Whether an evaluated model was trained on test speakers: `"heard"`, `"not heard"` or `"unknown"`.

    Raises:
        ValueError: If the run was not evaluated.
    """
    folder, results = _results(run)
    with damage_is_named(folder / "results.json", "its field heard", fields=True):
        return results["heard"]["answer"] if "heard" in results else UNKNOWN


def predictions_identity(checkpoint: Path, corpus: Corpus, **settings) -> dict:
    """Fingerprint of what the predictions of a checkpoint depend on.

    Args:
        checkpoint: Folder of the checkpoint.
        corpus: The clips.
        **settings: Settings of the evaluation.
    """
    return fingerprint(
        ["evaluation.protocol_runs", "inference.loading"],
        (*AUDIO_LIBRARIES, "scikit-learn", "tokenizers", "torch"),
        checkpoint=folder_sha256(checkpoint, ("*.safetensors", "*.json"), UNRELATED),
        rows=corpus.sha256_in_order(),
        recordings=corpus.recordings_sha256(),
        **settings,
    )


def save_fold(folder: Path, evaluation: Evaluation, made_of: dict, columns: list[dict]) -> None:
    """Write the predictions of a fold.

    Args:
        folder: Folder for the files.
        evaluation: The predictions.
        made_of: Fingerprint of `predictions_identity`.
        columns: Additional columns, one dict for each row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The record declares the other files complete, so it is removed first and written last.
    (folder / RECORD).unlink(missing_ok=True)
    np.save(folder / EMBEDDINGS, np.stack(evaluation.embeddings).astype(np.float32))
    write_rows(folder / PREDICTIONS, [row | more for row, more in zip(evaluation.rows, columns, strict=True)])
    record = {"made_of": made_of, "skipped": evaluation.skipped, "method": evaluation.method}
    record["heard"] = evaluation.heard.to_dict()
    write_json(folder / RECORD, record)


def load_fold_if_valid(folder: Path, made_of: dict) -> FoldPredictions | None:
    """Load the predictions of a fold, if they exist, have the fingerprint `made_of` and cover all clips.

    Predictions with skipped clips are not reused because the clips may have been repaired.
    """
    if not (folder / RECORD).is_file():
        return None
    record = read_object(folder / RECORD, **RECORD_FIELDS)
    if record["made_of"] != made_of or record["skipped"]:
        return None
    return load_fold(folder)


def load_fold(folder: Path) -> FoldPredictions:
    """Load the predictions of a fold.

    Raises:
        ValueError: If one of its files is damaged, or there is not one embedding for each row.
    """
    record = read_object(folder / RECORD, **RECORD_FIELDS)
    rows = read_rows(folder / PREDICTIONS)
    with damage_is_named(folder / EMBEDDINGS, "its embeddings", fields=True):
        embeddings = np.load(folder / EMBEDDINGS, allow_pickle=False)
        if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(rows):
            raise ValueError(f"{embeddings.dtype} {embeddings.shape} for {len(rows)} rows of {PREDICTIONS}")
        if not np.isfinite(embeddings).all():
            raise ValueError("not all of them are finite")
    return FoldPredictions(rows, embeddings, record)
