"""Spectrograms: log-mel for the compact encoder, and those of transformers' extractors, Whisper's in windows."""

from __future__ import annotations

import json
import math
import numbers
import os
import threading
from functools import lru_cache

import numpy as np
from transformers.audio_utils import mel_filter_bank, window_function
from transformers.configuration_utils import PretrainedConfig
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from .safety_gemoclap import constructor_settings, encoder_extractor_class

KALDI_FRAME, KALDI_HOP = 25, 10  # milliseconds: the frames of extractors that return no mask (AST)
WHISPER_EXTRACTOR = "WhisperFeatureExtractor"
WINDOW_OPTION = "audio_window_seconds"
BLOCK_FRAMES = 64  # that are transformed together: few enough for the cache of a core
MEL_FLOOR = 1e-6  # the lowest mel power of the compact encoder's input
POSITIONS_PER_SECOND = 50  # positions of Whisper's encoder, each for two mel frames
MAX_PRODUCTS = 16  # OpenBLAS, as NumPy's wheels have it, ends the process if more than 64 threads multiply at a time


def _limit_products() -> None:
    global _products
    _products = threading.BoundedSemaphore(MAX_PRODUCTS)


_limit_products()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit_products)  # threads that are not in the child would never release it


@lru_cache(maxsize=8)
def _mel_filters(fft: int, bands: int, min_frequency: float, max_frequency: float, sampling_rate: int) -> np.ndarray:
    """The mel filter bank, `(fft / 2 + 1, bands)`."""
    filters = mel_filter_bank(
        num_frequency_bins=fft // 2 + 1,
        num_mel_filters=bands,
        min_frequency=min_frequency,
        max_frequency=max_frequency,
        sampling_rate=sampling_rate,
        mel_scale="htk",
    )
    return filters.astype(np.float32)


def log_mel(
    wave: np.ndarray,
    sampling_rate: int,
    frame_seconds: float,
    hop_seconds: float,
    bands: int,
    frequencies: tuple[float, float | None],
) -> np.ndarray:
    """The natural logarithm of the mel power of a waveform, or of several of equal length.

    It equals that of `transformers.audio_utils.spectrogram` up to rounding, and takes a third of the time. It is
    computed with NumPy: parallel operations of torch can wait forever in a forked process, and training reads
    recordings in such processes.

    Args:
        wave: `(..., time)`, at least one frame long.
        sampling_rate: Its rate in Hz.
        frame_seconds: Window length.
        hop_seconds: Hop length.
        bands: Number of mel bands.
        frequencies: Lowest and highest frequency of the bands in Hz; None for half the sampling rate.

    Returns:
        `(..., frames, bands)` float32.
    """
    frame, hop = round(frame_seconds * sampling_rate), round(hop_seconds * sampling_rate)
    fft = 2 ** int(np.ceil(np.log2(frame)))
    window = window_function(frame, "hann")
    filters = _mel_filters(fft, bands, frequencies[0], frequencies[1] or sampling_rate / 2, sampling_rate)
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame, axis=-1)[..., ::hop, :]
    mel = np.empty((*frames.shape[:-1], bands), np.float32)
    for start in range(0, frames.shape[-2], BLOCK_FRAMES):
        block = frames[..., start : start + BLOCK_FRAMES, :]
        padded = np.zeros((*block.shape[:-1], fft))  # in float32, rounding would disturb bands near the floor
        np.multiply(block, window, out=padded[..., :frame])
        squares = np.fft.rfft(padded).view(np.float64)
        np.square(squares, out=squares)
        power = (squares[..., ::2] + squares[..., 1::2]).astype(np.float32)
        with _products:
            mel[..., start : start + BLOCK_FRAMES, :] = power @ filters
    return np.log(np.maximum(mel, np.float32(MEL_FLOOR)))


def window_positions(seconds: float, most: int) -> int:
    """The positions of Whisper's encoder in a window.

    Args:
        seconds: Length of the window in seconds.
        most: Positions that the encoder has.

    Returns:
        The number of positions, each of 0.02 s.

    Raises:
        ValueError: If the window is not a multiple of 0.02 s, or longer than the encoder's.
    """
    is_number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
    if not (is_number and math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{WINDOW_OPTION}={seconds!r} must be a finite number of seconds above 0")
    positions = round(seconds * POSITIONS_PER_SECOND)
    if positions < 1 or abs(positions - seconds * POSITIONS_PER_SECOND) > 1e-6:
        raise ValueError(
            f"{WINDOW_OPTION}={seconds!r} must be a multiple of {1 / POSITIONS_PER_SECOND:g} s, the length of two mel "
            f"frames, which become one position of the encoder"
        )
    if positions > most:
        raise ValueError(
            f"{WINDOW_OPTION}={seconds!r} is longer than the window of the encoder, {most / POSITIONS_PER_SECOND:g} s"
        )
    return positions


def window_seconds(own: dict | None) -> float | None:
    """The window in seconds of an extractor's settings; None if they are not those of Whisper."""
    is_whisper = own is not None and own.get("feature_extractor_type") == WHISPER_EXTRACTOR
    return own.get("chunk_length", 30) if is_whisper else None


def with_window(own: dict | None, seconds: float) -> dict:
    """The settings of Whisper's extractor with another window.

    `chunk_length` may be a fraction of a second here. transformers accepts whole seconds only, so `encoder_features`
    does not use the length that its extractor computes, but passes the number of samples of a window.

    Args:
        own: The settings.
        seconds: Length of the window in seconds.

    Raises:
        ValueError: If they are settings of another extractor, or if the window is invalid; see `window_positions`.
    """
    present = window_seconds(own)
    if present is None:
        raise ValueError(f"{WINDOW_OPTION}={seconds!r}: only the input of Whisper is cut into windows: leave it out")
    seconds = window_positions(seconds, round(present * POSITIONS_PER_SECOND)) / POSITIONS_PER_SECOND
    own = own | {"chunk_length": int(seconds) if seconds.is_integer() else seconds}
    samples = _window_samples(own)  # derived settings, which transformers writes to the file
    return own | {"n_samples": samples, "nb_max_frames": samples // own.get("hop_length", 160)}


def check_window(own: dict | None, audio_config: PretrainedConfig) -> None:
    """Check that an audio tower has the window of an extractor's settings.

    Args:
        own: The settings.
        audio_config: Configuration of the audio tower.

    Raises:
        ValueError: If both are those of Whisper and their windows differ.
    """
    seconds = window_seconds(own)
    if seconds is None or audio_config.model_type != "whisper":
        return
    heard = audio_config.max_source_positions / POSITIONS_PER_SECOND
    if abs(heard - seconds) > 1e-6:
        raise ValueError(
            f"the window of the audio encoder is {heard:g} s (max_source_positions of config.json) and that of the "
            f"feature extractor {seconds:g} s (chunk_length): load both from one checkpoint, or give "
            f"{WINDOW_OPTION}={min(heard, seconds):g} for both"
        )


def _window_samples(own: dict) -> int:
    return round(window_seconds(own) * own.get("sampling_rate", 16000))


@lru_cache(maxsize=4)
def _cached_extractor(name: str, settings: str) -> SequenceFeatureExtractor:
    """An extractor of transformers. The cache avoids computing its filter bank again."""
    extractor_class = encoder_extractor_class(name)
    return extractor_class(**constructor_settings(extractor_class, json.loads(settings)))


def encoder_extractor(own: dict) -> SequenceFeatureExtractor:
    """The extractor of transformers with these settings.

    Raises:
        ValueError: If `feature_extractor_type` is not in `EXTRACTORS`.
    """
    settings = dict(own)
    name = settings.pop("feature_extractor_type", None)
    encoder_extractor_class(name)  # raises an error for names that cannot be keys of the cache
    return _cached_extractor(name, json.dumps(settings, sort_keys=True))


def stored_settings(extractor: SequenceFeatureExtractor) -> dict:
    """The settings of an extractor of transformers, without those that are derived from others."""
    derived = ("auto_map", "processor_class", "mel_filters", "window")
    return {name: value for name, value in json.loads(extractor.to_json_string()).items() if name not in derived}


def longest_input(extractor: SequenceFeatureExtractor) -> float | None:
    """The length in seconds after which an extractor cuts a clip off (AST), else None."""
    return extractor.max_length * KALDI_HOP / 1000 if hasattr(extractor, "max_length") else None


def encoder_features(own: dict, wave: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the input of one clip.

    Whisper's input is cut into consecutive windows, the last of which is padded with silence. The spectrogram of each
    window is computed by itself, and so is its lower limit, 8 decades below its maximum.

    Args:
        own: Settings of the extractor of transformers.
        wave: `(time,)`.
        sampling_rate: Its rate in Hz.

    Returns:
        The input in the shape of the family, for Whisper `(mel, windows * frames)`, and the mask of its valid frames.
    """
    if window_seconds(own) is None:
        return _spectrogram(own, wave, sampling_rate)
    size = _window_samples(own)
    starts = range(0, max(len(wave), 1), size)
    windows = [_spectrogram(own, wave[start : start + size], sampling_rate, max_length=size) for start in starts]
    values, masks = zip(*windows, strict=True)
    return np.concatenate(values, 1), np.concatenate(masks)


def _spectrogram(own: dict, wave: np.ndarray, sampling_rate: int, **options) -> tuple[np.ndarray, np.ndarray]:
    extractor = encoder_extractor(own)
    options |= {"return_attention_mask": True, "return_tensors": "np"}
    with _products:
        inputs = extractor(wave, sampling_rate=sampling_rate, **options)
    values = inputs[extractor.model_input_names[0]][0]
    if "attention_mask" in inputs:
        return values, inputs["attention_mask"][0].astype(np.int64)
    frames = 1 + (len(wave) - KALDI_FRAME * sampling_rate // 1000) // (KALDI_HOP * sampling_rate // 1000)
    return values, (np.arange(len(values)) < max(1, frames)).astype(np.int64)
