"""Clips of noise whose lengths are distributed as those of Emo-DB and RAVDESS."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile
from harness import RATE

EMODB, RAVDESS = 535, 1440  # clips
EMOTIONS = ("angry", "boredom", "disgust", "fear", "happy", "neutral", "sad")


def clip_seconds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the clips of both corpora.

    Emo-DB has ten sentences of very different lengths: a lognormal distribution with a mean of 2.8 s. RAVDESS has two
    short sentences, with silence before and after: a normal distribution with a mean of 3.7 s. Both have the standard
    deviation of the corpus, 1.0 and 0.34 s.

    Returns:
        Seconds, `(clips,)`, and the corpus of each clip, `(clips,)`: 0 or 1.
    """
    rng = np.random.default_rng(seed)
    emodb = rng.lognormal(np.log(2.8) - 0.06, 0.35, EMODB).clip(1.2, 9.0)
    ravdess = rng.normal(3.7, 0.34, RAVDESS).clip(2.9, 5.3)
    return np.concatenate([emodb, ravdess]), np.repeat([0, 1], [EMODB, RAVDESS])


def write_noise(folder: Path, seconds: np.ndarray) -> None:
    """Write a corpus of noise with a `metadata.csv`: seven emotions, two genders and eight speakers in turn."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for number, length in enumerate(seconds):
        name = f"{number:05d}.wav"
        wave = 0.1 * rng.standard_normal(int(length * RATE))
        soundfile.write(folder / name, wave.astype(np.float32), RATE, subtype="PCM_16")
        gender = ("female", "male")[number % 8 % 2]
        rows.append((name, EMOTIONS[number % len(EMOTIONS)], gender, f"s{number % 8}"))
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "emotion", "gender", "speaker_id"), *rows])
