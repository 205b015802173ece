"""The results of runs, indexes and files of predictions, and what must hold for damaged ones."""

from __future__ import annotations

import csv
import functools
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from fuzz_checkpoints import ROOT
from fuzz_judge import BrokenPromise
from fuzz_listening import pipe_of

RESULTS = ROOT / "docs" / "evidence" / "compact" / "gemoclap-compact_results.json"
LABELS = ["angry", "sad"]


def prepare_run(folder: Path) -> None:
    """The files of an evaluated run: results, and predictions for twelve clips by six speakers."""
    (folder / "results.json").write_bytes(results_seeds()[0])
    (folder / "predictions.csv").write_bytes(prediction_rows())
    record = {"made_of": {}, "skipped": [], "method": "", "heard": {}}
    (folder / "answers.json").write_text(json.dumps(record), encoding="utf-8")
    np.save(folder / "embeddings.npy", np.eye(12, dtype=np.float32))


def results_seeds() -> list[bytes]:
    """The results of one published evaluation."""
    return [json.dumps(json.loads(RESULTS.read_text(encoding="utf-8"))[0]).encode()]


def prediction_rows() -> bytes:
    """The content of a `predictions.csv`."""
    text = io.StringIO(newline="")
    names = ["file_name", "speaker_id", "gender", "fold", "emotion", *(f"score_{label}" for label in LABELS)]
    rows = [[f"{n}.wav", f"{n // 2}", "female", n % 3, LABELS[n % 2], (n % 5) / 5, 1 - (n % 5) / 5] for n in range(12)]
    csv.writer(text).writerows([names, *rows])
    return text.getvalue().encode()


def compare_runs(path: Path) -> None:
    """Compare a run with itself, and read the predictions of a fold."""
    from modeling_gemoclap.evaluation.comparison import as_text, compare_runs
    from modeling_gemoclap.evaluation.prediction_files import load_fold

    compared = compare_runs(path.parent, path.parent)
    if compared["difference"] != 0 or not as_text(compared, ("a", "b")):
        raise BrokenPromise(f"difference {compared['difference']}")
    fold = load_fold(path.parent)
    if len(fold.rows) != len(fold.embeddings):
        raise BrokenPromise(f"{len(fold.rows)} rows, {len(fold.embeddings)} embeddings")


def write_card(path: Path) -> None:
    """Write the model card of the compact checkpoint with results."""
    from modeling_gemoclap.publishing.card import write_card

    if "UAR" not in write_card(path.parent, path).read_text(encoding="utf-8"):
        raise BrokenPromise("no figures on the card")


# ---- indexes --------------------------------------------------------------------------------------------------------
@functools.cache
def index_seeds() -> list[bytes]:
    """An index of two recordings."""
    from modeling_gemoclap.inference.index import Header, Recording, list_array, rows_of, write_rows

    header = Header.of(pipe_of("compact"), "/recordings")
    vectors = np.random.default_rng(0).standard_normal((2, header.dimensions))
    vectors = list_array(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), header)
    recordings = [Recording(name, 1, 1, bytes(32)) for name in ("a.wav", "b.wav")]
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder, "index.parquet"), header, [rows_of(recordings, vectors, header)])
        return [Path(folder, "index.parquet").read_bytes()]


def read_index(path: Path) -> None:
    """Open an index, and search it."""
    from modeling_gemoclap.inference.index import Index

    index = Index(path)
    similarities = index.embeddings @ index.embeddings[0]
    if not len(index) or not np.isfinite(similarities).all() or not index.recordings([0])[0].name:
        raise BrokenPromise(f"{len(index)} recordings")


# ---- files of predictions -------------------------------------------------------------------------------------------
def _rows(path: Path):
    from modeling_gemoclap.inference.output import Rows
    from modeling_gemoclap.inference.predictions import Prediction

    rows = Rows(path.suffix[1:], LABELS, gender=False)
    answers = [Prediction("angry", 0.9, {"angry": 0.9, "sad": 0.1}), "a.wav: silent, no sample"]
    return rows, rows.header + "".join(rows.line(f"clip {n}.wav", answers[n % 2]) for n in range(6))


def output_seeds(name: str) -> list[bytes]:
    """A complete file of predictions."""
    return [_rows(Path(name))[1].encode()]


def prepare_output(folder: Path) -> None:
    """The settings beside a file of predictions."""
    for name in ("output.csv", "output.jsonl"):
        settings = {"folder": str(Path.cwd())}
        (folder / f"{name}.settings.json").write_text(json.dumps(settings), encoding="utf-8")


def continue_predictions(path: Path) -> None:
    """Continue a file of predictions, as a second run of the same command does."""
    from modeling_gemoclap.inference.output import PredictionFile

    rows, _ = _rows(path)
    file = PredictionFile(path, rows, {})
    with file.open() as opened:
        done = list(opened.done)
    lines = rows.read(path.read_bytes().decode("utf-8", "surrogateescape"))
    if [name for name, _, _ in lines] != done:
        raise BrokenPromise(f"{done} continued, {len(lines)} in the file")
