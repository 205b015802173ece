"""The answers of `gemoclap predict`, `gemoclap embed` and `evaluate.py`, as programs of their own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from attack import ROOT
from crash_training import Trainings
from determinism_answers import Answers


class Programs(Answers):
    """Answers of one checkpoint; arguments as for `Answers`."""

    def compare_command(self, processes: int, batch_size: int, **env: str) -> float:
        """`gemoclap predict` and `gemoclap embed` of a folder with links to the recordings."""
        place = self.folder / f"command-{processes}-{len(list(self.folder.iterdir()))}"
        (place / "in").mkdir(parents=True)
        for index in self.chance.sample(range(len(self.paths)), len(self.paths)):  # in any order in the folder
            os.symlink(self.paths[index], place / "in" / f"{index:03d}{self.paths[index].suffix}")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        start = [sys.executable, *(launcher if processes > 1 else []), "-m", "modeling_gemoclap"]
        common = ["--model", self.model, "--batch-size", str(batch_size), "--device", "cpu", "--quiet"]
        for command, output in (("predict", "out.csv"), ("embed", "out.npz")):
            words = [*start, command, "in", "--output", output, *common]
            variables = {**os.environ, "PYTHONPATH": str(ROOT), **env}
            _run(words, place, variables)
        with open(place / "out.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        key = next(iter(rows[0]))
        scores = scores_of(sorted(rows, key=lambda row: row[key]), self.labels)
        vectors = np.load(place / "out.npz", allow_pickle=False)
        names = [str(name) for name in vectors["files"]]
        embeddings = vectors["embeddings"][np.argsort(names)]
        found = np.concatenate([scores, embeddings], axis=1)
        return self.refuse_difference(found, self.reference)

    def compare_evaluation(self, trainings: Trainings) -> float:
        """`evaluate.py` on the tones, in batches of 1 and of 16: the scores of `predictions.csv`."""
        from modeling_gemoclap.command_line.shipped import shipped_checkpoint

        tables = []
        for size in ("1", "16"):
            output = self.folder / f"evaluated-{size}"
            words = ["evaluate.py", "--model", shipped_checkpoint(self.model)]
            words += ["--data_dir", str(trainings.folder / "tones"), "--output_dir", str(output)]
            words += ["--batch_size", size, "--device", "cpu"]
            # In a process of its own: a fork of this one, whose libraries have threads, can end without a word.
            _run([sys.executable, *words], ROOT, dict(os.environ))
            with open(output / "predictions.csv", newline="") as file:
                tables.append(scores_of(list(csv.DictReader(file)), self.labels))
        return self.refuse_difference(*tables)


def _run(words: list[str], folder: Path, variables: dict[str, str]) -> None:
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[1:4])}: status {done.returncode}: {done.stderr[-300:]}")


def scores_of(rows: list[dict], labels: list[str]) -> np.ndarray:
    """The scores in the rows of a table, `(recordings, labels)`."""
    return np.array([[float(row[f"score_{label}"]) for label in labels] for row in rows])
