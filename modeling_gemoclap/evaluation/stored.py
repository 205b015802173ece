"""Answers on disk: what a fold's checkpoint said, and the pooled answers of a run."""

from __future__ import annotations

import csv
from pathlib import Path
from types import NoneType

import numpy as np

from ..corpora.files import read_object, write_atomically, write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import UNKNOWN
from ..fingerprint import AUDIO_LIBRARIES, IDENTITY, fingerprint, folder_sha256
from .answers import Evaluation
from .statistics import Judged

# Files of a checkpoint that its answers do not depend on.
NOTES = ("fold.json", IDENTITY, "skipped_clips.json", "trainer_state.json")
FIELDS = {"made_of": dict, "skipped": list, "method": str, "heard": dict}  # of DONE
ANSWERS, EMBEDDINGS, DONE = "predictions.csv", "embeddings.npy", "answers.json"


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a CSV file atomically."""
    with write_atomically(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict]:
    """Read a CSV file that `write_rows` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def judged_of(rows: list[dict]) -> Judged:
    """Rows of predictions as arrays; their `fold` is 0 where they have none."""
    labels = [name.removeprefix("score_") for name in rows[0] if name.startswith("score_")]
    text = [np.array([row[name] for row in rows]) for name in ("file_name", "speaker_id", "gender")]
    folds = np.array([int(row.get("fold", 0)) for row in rows])
    truth = np.array([labels.index(row["emotion"]) for row in rows])
    return Judged(
        labels, *text, folds, truth, np.array([[float(row[f"score_{name}"]) for name in labels] for row in rows])
    )


def _results(run: str | Path) -> tuple[Path, dict]:
    """The folder of a run's results, and what `results.json` says."""
    folder = next((path for path in (Path(run, "results"), Path(run)) if (path / "results.json").is_file()), None)
    if folder is None:
        raise ValueError(f"{run}: no results.json there: judge it by evaluate.py first")
    return folder, read_object(folder / "results.json", protocols=(dict, NoneType))


def load_judged(run: str | Path) -> list[Judged]:
    """The pooled answers of a run that `evaluate.py` has judged, one `Judged` for each seed, clips by file name.

    Args:
        run: The run's folder, or that of its results.

    Raises:
        ValueError: If it was not judged.
    """
    folder, found = _results(run)
    seeds = found.get("seeds")
    files = [folder / f"predictions_seed_{seed}.csv" for seed in seeds] if seeds else [folder / ANSWERS]
    return [judged_of(sorted(read_rows(path), key=lambda row: row["file_name"])) for path in files]


def protocols_of(run: str | Path) -> dict:
    """The protocol of each seed of a judged run; of one checkpoint, that it has none."""
    _, found = _results(run)
    if not found["protocols"]:
        return {"one checkpoint": None}
    return {seed: {"name": one["name"], "folds": one["folds"]} for seed, one in found["protocols"].items()}


def heard_of(run: str | Path) -> str:
    """Whether a judged run or checkpoint had heard the judged speakers: `"heard"`, `"not heard"` or `"unknown"`."""
    _, found = _results(run)
    return found["heard"]["answer"] if "heard" in found else UNKNOWN


def answers_identity(checkpoint: Path, corpus: Corpus, **settings) -> dict:
    """What a checkpoint's answers to some clips depend on.

    Args:
        checkpoint: The checkpoint.
        corpus: The clips.
        **settings: How they are judged.
    """
    return fingerprint(
        ["evaluation.protocol_runs", "evaluation.loading"],
        (*AUDIO_LIBRARIES, "scikit-learn", "tokenizers", "torch"),
        checkpoint=folder_sha256(checkpoint, ("*.safetensors", "*.json"), NOTES),
        rows=corpus.sha256_in_order(),
        recordings=corpus.recordings_sha256(),
        **settings,
    )


def store(folder: Path, evaluation: Evaluation, made_of: dict, extra: list[dict]) -> None:
    """Write a fold's answers.

    Args:
        folder: Where.
        evaluation: The answers.
        made_of: What they depend on.
        extra: More columns, a dict for each row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)  # killed while the others are written, this is not to vouch for them
    np.save(folder / EMBEDDINGS, np.stack(evaluation.embeddings).astype(np.float32))
    write_rows(folder / ANSWERS, [row | more for row, more in zip(evaluation.rows, extra, strict=True)])
    record = {"made_of": made_of, "skipped": evaluation.skipped, "method": evaluation.method}
    record["heard"] = evaluation.heard.to_dict()
    write_json(folder / DONE, record)


def stored(folder: Path, made_of: dict) -> tuple[list[dict], np.ndarray, dict] | None:
    """A fold's answers, if they are there, made of the same, and about all clips.

    Returns:
        The rows, the embeddings `(clips, size)`, and what else is known of them; or None.
    """
    if not (folder / DONE).is_file():
        return None
    record = read_object(folder / DONE, **FIELDS)
    if record["made_of"] != made_of or record["skipped"]:  # what could not be used may have been mended
        return None
    return answers_of(folder)


def answers_of(folder: Path) -> tuple[list[dict], np.ndarray, dict]:
    """The rows, the embeddings `(clips, size)`, and what else is known of a fold's answers that are there."""
    record = read_object(folder / DONE, **FIELDS)
    return read_rows(folder / ANSWERS), np.load(folder / EMBEDDINGS), record
