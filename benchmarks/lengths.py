"""The lengths of the clips of Emo-DB and RAVDESS, noise with such lengths, and what batches of it consist of."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile
from harness import RATE
from transformers.trainer_pt_utils import BatchRebalanceSampler

from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.training.samplers import EpochSampler, LengthSampler, batch_mix

EMODB, RAVDESS = 535, 1440  # clips
BATCH = 32
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


def read_lengths(corpora: str | None) -> tuple[np.ndarray, list[str], list[str]]:
    """Seconds, emotion and corpus of each clip of Emo-DB and RAVDESS."""
    if corpora is None:
        seconds, places = clip_seconds()
        return seconds, [EMOTIONS[row % len(EMOTIONS)] for row in range(len(seconds))], places.tolist()
    seconds, emotions, names = [], [], []
    for name in ("emodb", "ravdess"):
        clips = load_corpus(Path(corpora, name)).clips
        seconds += [soundfile.info(path).duration for path in clips["path"]]
        emotions, names = emotions + list(clips["emotion"]), names + [name] * len(clips)
    return np.array(seconds), emotions, names


def rebalanced_padding(seconds: np.ndarray, processes: int) -> float:
    """Share of padding with transformers' `BatchRebalanceSampler`, over all processes."""
    used = padded = 0.0
    for rank in range(processes):
        milliseconds = (1000 * seconds).astype(int).tolist()
        for clips in BatchRebalanceSampler(milliseconds, BATCH * processes, processes, 1, rank=rank):
            used, padded = used + seconds[clips].sum(), padded + seconds[clips].max() * len(clips)
    return 1 - used / padded


def waiting(order: list[int], seconds: np.ndarray) -> float:
    """Mean share of a step that a process of two waits for the other, if time is proportional to padded length."""
    longest = seconds[np.array(order[: len(order) // (2 * BATCH) * 2 * BATCH])].reshape(-1, 2, BATCH).max(2)
    return float((1 - longest / longest.max(1, keepdims=True)).mean())


def mixes(seconds: np.ndarray, emotions: list[str], corpora: list[str]) -> dict:
    """Padding, classes and waiting of both kinds of batches."""
    random = EpochSampler(len(seconds))
    samplers = {"random": random, "by length": LengthSampler(random, seconds, BATCH)}
    table = {}
    for name, sampler in samplers.items():
        emotion, corpus = (batch_mix(sampler, BATCH, seconds, labels) for labels in (emotions, corpora))
        pair = sampler if name == "random" else LengthSampler(random, seconds, 2 * BATCH)
        table[name] = {**emotion._asdict(), "corpus": corpus.largest_share, "waiting": waiting(list(pair), seconds)}
    return table
