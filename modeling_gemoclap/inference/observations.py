"""Recordings as a model answers them, with their embeddings and what they are as signals."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..feature_extraction_gemoclap import AudioError
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..recordings_gemoclap import name_of, read_audio
from .classifier import AudioClassifier
from .predictions import Prediction, PredictionOptions, extractor_of, predict_with_embeddings
from .signals import Signal, measure_signal


@dataclass(frozen=True)
class Observation:
    """What is known of one recording.

    Args:
        answer: The prediction, or why the recording cannot be used.
        embedding: `(dimensions,)`; None if the recording cannot be used.
        signal: What it is as a signal; None if it cannot be read.
    """

    answer: Prediction | str
    embedding: np.ndarray | None
    signal: Signal | None


def observe(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, recordings: Iterable, options: PredictionOptions
) -> Iterator[Observation]:
    """Predict, embed and measure recordings, in their order. Each is decoded once.

    Args:
        pipe: The model, from `load_pipeline`.
        recordings: Recordings of any type that `read_audio` accepts.
        options: Labels, templates, gender, size of batches and threshold.

    Yields:
        What is known of each recording, also of one that cannot be used.

    Raises:
        ValueError: If the options are invalid.
    """
    extractor = extractor_of(pipe)
    signals: deque[Signal | None] = deque()

    def read() -> Iterator:
        for recording in recordings:
            decoded, signal = _measured(recording, extractor.strict)
            signals.append(signal)
            yield decoded

    for answer, embedding in predict_with_embeddings(pipe, read(), options):
        yield Observation(answer, embedding, signals.popleft())


def _measured(recording: Any, strict: bool) -> tuple[Any, Signal | None]:
    """A decoded recording and its measurements. The pipeline reports why a recording cannot be read."""
    if hasattr(recording, "read"):  # it can be read once only
        recording = {"bytes": recording.read(), "path": name_of(recording)}
    try:
        wave, rate = read_audio(recording, strict=strict)
    except AudioError:
        return recording, None
    return {"array": wave, "sampling_rate": rate, "path": name_of(recording)}, measure_signal(wave, rate)
