"""What must hold for a damaged recording: decoding at once and in blocks, features, and predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz_judge import BrokenPromise


@functools.cache
def _extractor():
    from modeling_gemoclap import GEmoClapFeatureExtractor

    return GEmoClapFeatureExtractor(feature_type="log_mel")


def decode(path: Path) -> None:
    """Decode a recording at once and in blocks, and compute features.

    Raises:
        BrokenPromise: If features are empty or not finite, or if the two readers disagree.
    """
    from modeling_gemoclap import AudioError
    from modeling_gemoclap.audio_files_gemoclap import check_samples
    from modeling_gemoclap.inference.streaming.files import open_recording
    from modeling_gemoclap.recordings_gemoclap import read_audio

    recording, error = None, None
    try:
        recording, rate = read_audio(str(path))
    except AudioError as refusal:
        error = refusal
    frames, error_of_stream = 0, None
    try:
        stream = open_recording(str(path))
        for block in stream.blocks:
            check_samples(block, path.name)
            frames += len(block)
    except AudioError as refusal:
        error_of_stream = refusal
    if recording is not None and (error_of_stream or (frames, stream.rate) != (len(recording), rate)):
        raise BrokenPromise(f"{len(recording)} samples at {rate} Hz at once, in blocks {error_of_stream or frames}")
    if error and error_of_stream is None and frames:
        raise BrokenPromise(f"{frames} samples in blocks, at once: {error}")
    if error:
        raise error
    features = _extractor().features(_extractor().load_speech(str(path)))
    if not features.size or not np.isfinite(features).all():
        raise BrokenPromise(f"features {features.shape} that are not finite or empty")


@functools.cache
def pipe_of(model: str):
    """The pipeline of a checkpoint, loaded once."""
    from modeling_gemoclap.inference.loading import load_pipeline

    return load_pipeline(model, "cpu")


def predict(path: Path) -> None:
    """Predict the emotion of a recording.

    Raises:
        BrokenPromise: If the scores are not finite or do not sum to 1.
    """
    from modeling_gemoclap.inference.predictions import PredictionOptions, predict

    [answer] = predict(pipe_of("compact"), [str(path)], PredictionOptions(gender=True))
    total = sum(answer.scores.values())
    if not (abs(total - 1) < 1e-3 and answer.label in answer.scores and np.isfinite(answer.score)):
        raise BrokenPromise(f"scores sum to {total}, label {answer.label}")


def without_ffmpeg(run: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same promise on a machine without ffmpeg, whose start takes longer than decoding."""

    def run_without(path: Path) -> None:
        from modeling_gemoclap import audio_files_gemoclap

        found, audio_files_gemoclap.find_ffmpeg = audio_files_gemoclap.find_ffmpeg, lambda: None
        try:
            run(path)
        finally:
            audio_files_gemoclap.find_ffmpeg = found

    return run_without
