"""Long recordings with known emotions: clips of a corpus, joined with room tone between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import RATE

from modeling_gemoclap import GEmoClapFeatureExtractor
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.speech_gemoclap import MARGIN_FRAMES, speech_span

PEAK = 0.5  # of a clip
GRID = 0.01  # seconds: resolution of the comparison
SILENCE = ""
LEAST_SILENCE = 0.1  # share of a recording


@dataclass(frozen=True)
class Stretch:
    """A clip in a recording: its first and last speech, in seconds, and its emotion."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Joining:
    """How clips are joined.

    Args:
        name: Name in tables.
        pauses: Shortest and longest pause between clips, in seconds.
        room_db: Level of the room tone under everything, in dBFS (white noise through a low pass); None: none.
    """

    name: str
    pauses: tuple[float, float]
    room_db: float | None


def clips_of(folder: Path, speakers: list[str]) -> list[tuple[np.ndarray, str]]:
    """The clips of speakers at 16 kHz, with a peak of 0.5, and their emotions."""
    corpus = load_corpus(folder).of_speakers(speakers)
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel")
    waves = (extractor.load(path) for path in corpus.column("path").to_pylist())
    return [
        (PEAK * wave / np.abs(wave).max(), emotion)
        for wave, emotion in zip(waves, corpus.column("emotion").to_pylist(), strict=True)
    ]


def join(clips: list, joining: Joining, seed: int, seconds: float | None = None) -> tuple[np.ndarray, list[Stretch]]:
    """Join clips in random order.

    Args:
        clips: From `clips_of`.
        joining: How they are joined.
        seed: Of the order, the pauses and the room tone.
        seconds: Length of the recording, for which clips are repeated; None: each clip once.

    Returns:
        The recording `(time,)` float32, and what it consists of.
    """
    rng, parts, truth, position = np.random.default_rng(seed), [], [], 0
    for index in _order(rng, len(clips), repeat=seconds is not None):
        wave, label = clips[index]
        pause = round(rng.uniform(*joining.pauses) * RATE)
        start, end = _speech(wave)
        truth.append(Stretch((position + pause + start) / RATE, (position + pause + end) / RATE, label))
        parts += [np.zeros(pause, np.float32), wave.astype(np.float32)]
        position += pause + len(wave)
        if seconds is not None and position >= seconds * RATE:
            break
    recording = np.concatenate([*parts, np.zeros(round(joining.pauses[1] * RATE), np.float32)])
    return recording + _room_tone(rng, len(recording), joining.room_db), truth


def _order(rng: np.random.Generator, count: int, repeat: bool) -> Iterator[int]:
    while True:
        yield from rng.permutation(count)
        if not repeat:
            return


def _speech(wave: np.ndarray) -> tuple[int, int]:
    """The first and the last speech of a clip from a studio, by `speech_span` without its margin."""
    start, end = speech_span(wave, RATE)
    margin = MARGIN_FRAMES * RATE // 50
    return (start + margin if start else 0), (end - margin if end < len(wave) else end)


def _room_tone(rng: np.random.Generator, count: int, level_db: float | None) -> np.ndarray:
    if level_db is None:
        return np.zeros(count, np.float32)
    noise = rng.standard_normal(count + 7, dtype=np.float32)
    noise = np.convolve(noise, np.ones(8, np.float32), "valid")
    return noise * np.float32(10 ** (level_db / 20) / noise.std())


def on_grid(stretches, count: int) -> np.ndarray:
    """The label of each 10 ms, `(count,)`; `SILENCE` where there is no speech."""
    labels = np.full(count, SILENCE, dtype=object)
    for stretch in stretches:
        labels[round(stretch.start / GRID) : round(stretch.end / GRID)] = stretch.label
    return labels


def compare(found, truth: list[Stretch], seconds: float) -> dict[str, float]:
    """Compare a timeline with what a recording consists of.

    Args:
        found: Segments.
        truth: From `join`.
        seconds: Duration of the recording.

    Returns:
        `right`: share of the time of speech with the right label; `right_of_found`: of the speech that was found;
        `missed`: share of the speech that was not found; `false`: share of the rest that was taken for speech,
        None if there is little of it;
        `eder`: emotion diarisation error rate of speechbrain, 1 minus the share of the whole time with the right
        label, where speech without emotion and silence are both neutral; `border`, `border_95`: median and 95th
        percentile of the distance from a true border to the nearest found one, in seconds.
    """
    count = round(seconds / GRID)
    expected, given = on_grid(truth, count), on_grid(found, count)
    speech, heard = expected != SILENCE, given != SILENCE
    right = (expected == given) & speech
    borders = np.array([border for segment in found for border in (segment.start, segment.end)])
    distances = [np.abs(borders - border).min() for stretch in truth for border in (stretch.start, stretch.end)]
    as_neutral = [np.where(labels == SILENCE, "neutral", labels) for labels in (expected, given)]
    return {
        "right": right.sum() / speech.sum(),
        "right_of_found": right.sum() / (speech & heard).sum(),
        "missed": (speech & ~heard).sum() / speech.sum(),
        "false": (heard & ~speech).sum() / (~speech).sum() if (~speech).mean() > LEAST_SILENCE else None,
        "eder": (as_neutral[0] != as_neutral[1]).mean(),
        "border": float(np.median(distances)),
        "border_95": float(np.quantile(distances, 0.95)),
    }
