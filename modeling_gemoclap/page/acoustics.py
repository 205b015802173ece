"""Envelope, loudness and pitch of a recording, at the few hundred points that a picture can show.

docs/page.md explains the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

MAX_POINTS = 600
MIN_STEP = 0.01  # s
PITCH_RATE = 16_000  # Hz
PITCH_WINDOW = 0.05  # s: three periods of the lowest pitch
LOWEST_PITCH, HIGHEST_PITCH = 60.0, 500.0  # Hz
VOICED = 0.5  # the lowest normalised autocorrelation of a voiced frame
NEAR_BEST = 0.9  # of the highest peak: the first peak above it is the period, not one of its multiples
VOICED_BELOW_PEAK = 35.0  # dB: frames that are quieter than the loudest by more than this have no pitch
FLOOR = -80.0  # dBFS


@dataclass(frozen=True)
class Contours:
    """What a picture of a recording shows, at `points` moments of equal distance.

    Args:
        seconds: Duration of the recording.
        lowest: The lowest sample around each point, `(points,)`.
        highest: The highest sample around each point, `(points,)`.
        loudness: Root mean square around each point, in dB relative to full scale, `(points,)`, at least `FLOOR`.
        pitch: Fundamental frequency in Hz, `(points,)`; NaN where there is no voice.
    """

    seconds: float
    lowest: np.ndarray
    highest: np.ndarray
    loudness: np.ndarray
    pitch: np.ndarray


def contours(wave: np.ndarray, rate: int) -> Contours:
    """Compute the contours of a recording.

    Args:
        wave: `(time,)`, at least one sample.
        rate: Sampling rate in Hz.

    Returns:
        The contours at most `MAX_POINTS` points, with at least `MIN_STEP` seconds between them.
    """
    seconds = len(wave) / rate
    points = int(np.clip(seconds / MIN_STEP, 1, min(MAX_POINTS, len(wave))))
    starts = np.arange(points) * len(wave) // points
    lengths = np.diff(np.append(starts, len(wave)))
    power = np.add.reduceat(np.square(wave, dtype=np.float64), starts) / lengths
    loudness = np.maximum(10 * np.log10(power + 1e-12), FLOOR)
    centres = (starts + lengths / 2) / rate
    pitch = estimate_pitch(wave, rate, centres)
    pitch[loudness < loudness.max() - VOICED_BELOW_PEAK] = np.nan
    return Contours(seconds, np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts), loudness, pitch)


def estimate_pitch(wave: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """Estimate the fundamental frequency by autocorrelation.

    A frame of 50 ms, without its mean and under a Hann window, is compared with itself at lags from 2 to 17 ms. The
    autocorrelation is divided by that of the window (Boersma, 1993). The first peak that reaches `NEAR_BEST` of the
    highest one is the period; a frame whose highest peak is below `VOICED` has none.

    Args:
        wave: `(time,)`.
        rate: Sampling rate in Hz.
        times: Centres of the frames in seconds, `(points,)`.

    Returns:
        Frequencies in Hz, `(points,)`; NaN for frames without pitch.
    """
    if rate != PITCH_RATE:
        wave, rate = soxr.resample(wave, rate, PITCH_RATE), PITCH_RATE
    size = round(PITCH_WINDOW * rate)
    padded = np.pad(wave, size // 2 + 1)
    starts = np.clip((times * rate).astype(int), 0, max(len(padded) - size, 0))
    padded = np.pad(padded, (0, max(size - len(padded), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts].astype(np.float64)
    window = np.hanning(size)
    correlation = _autocorrelation((frames - frames.mean(1, keepdims=True)) * window)
    shortest, longest = int(rate / HIGHEST_PITCH), int(np.ceil(rate / LOWEST_PITCH))
    lags = slice(shortest - 1, longest + 2)
    reference = _autocorrelation(window[None])
    energy = np.maximum(correlation[:, :1], 1e-12)
    normalised = correlation[:, lags] / energy / (reference[:, lags] / reference[:, :1])
    left, middle, right = normalised[:, :-2], normalised[:, 1:-1], normalised[:, 2:]
    peaks = np.where((middle >= left) & (middle >= right), middle, 0)
    best = peaks.max(1)
    first = (peaks >= NEAR_BEST * np.maximum(best, 1e-9)[:, None]).argmax(1)
    rows = np.arange(len(peaks))
    before, peak, after = left[rows, first], middle[rows, first], right[rows, first]
    curvature = before - 2 * peak + after
    offset = np.where(curvature < 0, 0.5 * (before - after) / np.where(curvature < 0, curvature, 1), 0)
    return np.where(best >= VOICED, rate / (shortest + first + offset), np.nan)


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    """The autocorrelation of frames `(frames, size)` at lags from 0 to `size - 1`."""
    size = frames.shape[1]
    spectrum = np.fft.rfft(frames, 2 * size)
    return np.fft.irfft(np.square(np.abs(spectrum)), 2 * size)[:, :size]
