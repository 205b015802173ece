"""The weights of trainings that differ in what must not change them."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from attack import ROOT
from crash_content import log_of, wait_for_checkpoint
from crash_training import Trainings
from crash_variants import NOISY, TWO_CORPORA, VARIANTS

RESUME = ("--resume_from_checkpoint", "true")
DEV = ("--dev_speakers", "03", "--eval_strategy", "epoch")
SPEAKER = ("--head", "speaker", "--speaker_clusters", "3", "--per_device_train_batch_size", "16")
SPEAKER += ("--speaker_embeddings", "vectors.npz", "--max_seconds", "0.4")
VARIANTS |= {
    "emo objective": ((*NOISY, "--objective", "emo"), 1, "tones"),
    "ml objective, balanced classes": ((*NOISY, "--objective", "ml", "--class_balanced_sampling", "true"), 1, "tones"),
    "batches by length": (("--time_warp", "0.1", "--mel_warp", "0.1", "--batch_by_length", "true", *DEV), 1, "tones"),
    "a classifier, augmented": (("--head", "classifier", *NOISY[:-2], *DEV), 1, "tones"),
    "clusters of speakers": (
        SPEAKER,
        1,
        TWO_CORPORA,
    ),
}
KINDS = ("one process", "emo objective", "ml objective, balanced classes", "batches by length", "gradient caching")
KINDS += ("a classifier, augmented", "the best epoch kept", "the first of two stages", "clusters of speakers")
# What the environment of a program may differ in; the last is the folder that it starts in.
ENVIRONMENTS = {
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 4242": {"PYTHONHASHSEED": "4242"},
    "locale C, time zone of Kathmandu": {"LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kathmandu"},
    "Turkish locale, another folder": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Apia"},
}


def weights_of(place: Path) -> str:
    """SHA-256 of the weights of a finished training."""
    return hashlib.sha256((place / "run/model.safetensors").read_bytes()).hexdigest()


def write_vectors(trainings: Trainings, place: Path) -> None:
    """Write embeddings of the clips of both corpora, in which each emotion is a cluster."""
    import numpy as np

    from modeling_gemoclap.corpora.manifest import load_corpora

    corpus, chance = load_corpora([trainings.corpus(name) for name in ("tones", "others")]), np.random.default_rng(0)
    names, emotions = (corpus.column(name).to_pylist() for name in ("file_name", "emotion"))
    kinds = sorted(set(emotions))
    values = np.stack([np.eye(8)[kinds.index(word)] + 0.1 * chance.standard_normal(8) for word in emotions])
    np.savez(place / "vectors.npz", file_name=np.array(names), embeddings=values)


class Weights:
    """Trainings whose weights must be equal.

    Args:
        trainings: Where they run.
    """

    def __init__(self, trainings: Trainings):
        self.trainings = trainings

    def train(self, variant: str, *more: str, stop: bool = False) -> str:
        """The weights of a training; with `stop`, of one that gets SIGTERM and is resumed with one more worker."""
        place = self.trainings.new_place()
        if variant == "clusters of speakers":
            write_vectors(self.trainings, place)
        pids = self.trainings.start(place, variant, *more)
        if stop:
            wait_for_checkpoint(place)
            os.kill(pids[0], signal.SIGTERM)
        if (status := self.trainings.wait(pids)) not in ((0, 143, -signal.SIGTERM) if stop else (0,)):
            raise RuntimeError(f"status {status}: {log_of(place)[-300:]}")
        if stop and (status := self.trainings.wait(self.trainings.start(place, variant, *more, *RESUME))):
            raise RuntimeError(f"status {status}: {log_of(place)[-300:]}")
        result = weights_of(place)
        shutil.rmtree(place)
        return result

    def compare_workers(self, variant: str, counts: tuple[str, ...] = ("0", "1", "2")) -> None:
        """The same weights with each number of workers, and after a resumption."""
        found = {count: self.train(variant, "--dataloader_num_workers", count) for count in counts}
        found["resumed"] = self.train(variant, "--dataloader_num_workers", counts[-1], stop=True)
        if len(set(found.values())) > 1:
            raise AssertionError(f"weights differ: { {name: value[:8] for name, value in found.items()} }")

    def compare_environments(self, names: tuple[str, ...], variant: str = "one process") -> None:
        """The same weights from a program of its own with another environment."""
        expected = self.train(variant)
        for name in names:
            place = self.trainings.new_place()
            env = {**os.environ, **ENVIRONMENTS[name], "PYTHONPATH": str(ROOT)}
            command = [sys.executable, str(ROOT / "train.py"), *self.trainings.options(variant)]
            done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
            if done.returncode or weights_of(place) != expected:
                raise AssertionError(f"{name}: other weights, status {done.returncode}: {done.stderr[-200:]}")
            shutil.rmtree(place)
