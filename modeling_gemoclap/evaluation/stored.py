"""Answers on disk: what a fold's checkpoint said, and the pooled answers of a run."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from .answers import Evaluation
from .statistics import Judged

ANSWERS, EMBEDDINGS, DONE = "predictions.csv", "embeddings.npy", "answers.json"


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a CSV file; it is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


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


def load_judged(run: str | Path) -> list[Judged]:
    """The pooled answers of a run that `evaluate.py` has judged, one `Judged` for each seed, clips by file name.

    Args:
        run: The run's folder, or that of its results.

    Raises:
        ValueError: If it was not judged.
    """
    folder = next((path for path in (Path(run, "results"), Path(run)) if (path / "results.json").is_file()), None)
    if folder is None:
        raise ValueError(f"{run}: no results.json there: judge it by evaluate.py first")
    files = sorted(folder.glob("predictions_seed_*.csv")) or [folder / ANSWERS]
    return [judged_of(sorted(read_rows(path), key=lambda row: row["file_name"])) for path in files]


def weights_sha256(checkpoint: Path) -> str:
    """Hash of a checkpoint's weights and configuration."""
    found = hashlib.sha256()
    for path in [*sorted(checkpoint.glob("*.safetensors")), checkpoint / "config.json"]:
        with open(path, "rb") as file:
            while block := file.read(2**22):
                found.update(block)
    return found.hexdigest()


def store(folder: Path, evaluation: Evaluation, made_of: dict, extra: list[dict]) -> None:
    """Write a fold's answers.

    Args:
        folder: Where.
        evaluation: The answers.
        made_of: What they depend on.
        extra: More columns, a dict for each row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / EMBEDDINGS, np.stack(evaluation.embeddings).astype(np.float32))
    write_rows(folder / ANSWERS, [row | more for row, more in zip(evaluation.rows, extra, strict=True)])
    record = {"made_of": made_of, "skipped": evaluation.skipped, "method": evaluation.method}
    (folder / DONE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def stored(folder: Path, made_of: dict) -> tuple[list[dict], np.ndarray, dict] | None:
    """A fold's answers, if they are there and made of the same.

    Returns:
        The rows, the embeddings `(clips, size)`, and what else is known of them; or None.
    """
    path = folder / DONE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["made_of"] != made_of:
        return None
    return read_rows(folder / ANSWERS), np.load(folder / EMBEDDINGS), record
