"""What a recording is as a signal: level, noise, clipping, length and bandwidth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..speech_gemoclap import FRAME_SECONDS, LOWEST_RMS, speech_span

QUIETEST = 0.1  # share of frames whose power is that of the noise
FEWEST_FRAMES = 10
HIGHEST_SNR_DB = 60.0
FULL_SCALE = 0.999
SPECTRUM_SECONDS = 0.032
OUT_OF_BAND = 1e-6  # share of the power above the bandwidth: -60 dB
BLOCK_SECONDS = 30  # of a long recording, which are processed together
TELEPHONE_HZ = 4000.0  # a sampling rate of 8 kHz has no sound above it


@dataclass(frozen=True)
class Signal:
    """Measurements of one recording.

    Args:
        seconds: Length.
        sampling_rate: Rate of the file in Hz.
        level_db: Root mean square from the first to the last speech, in dB relative to full scale (dBFS).
        snr_db: Estimate of the signal-to-noise ratio in dB: `level_db` minus the level of the quietest tenth of the
            frames of 20 ms. It is at most 60. It is too low if there is no pause, and None below 0.2 s.
        clipped: Share of samples at full scale.
        bandwidth_hz: Frequency above which there is a millionth of the power (-60 dB), from the first to the last
            speech.
    """

    seconds: float
    sampling_rate: int
    level_db: float
    snr_db: float | None
    clipped: float
    bandwidth_hz: float

    @property
    def is_narrow(self) -> bool:
        """Whether there is no sound above 4 kHz, as on the telephone."""
        return self.sampling_rate <= 2 * TELEPHONE_HZ or self.bandwidth_hz <= TELEPHONE_HZ


def measure_signal(wave: np.ndarray, sampling_rate: int) -> Signal:
    """Measure a recording.

    Args:
        wave: `(time,)`, as `read_audio` returns it.
        sampling_rate: Its rate in Hz.
    """
    clipped = float(np.mean(np.abs(wave) >= FULL_SCALE))
    wave = wave - wave.mean(dtype=np.float64).astype(wave.dtype)
    start, end = speech_span(wave, sampling_rate)
    speech = wave[start:end]
    level, noise = _decibels(_power(speech)), _noise_power(wave, round(FRAME_SECONDS * sampling_rate))
    snr = None if noise is None else min(level - _decibels(noise), HIGHEST_SNR_DB)
    seconds, bandwidth = len(wave) / sampling_rate, _bandwidth(speech, sampling_rate)
    return Signal(seconds, sampling_rate, level, snr, clipped, bandwidth)


def _power(wave: np.ndarray) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def _decibels(power: float) -> float:
    return 10 * float(np.log10(max(power, LOWEST_RMS**2)))


def _noise_power(wave: np.ndarray, size: int) -> float | None:
    """Mean power of the quietest frames; None if there are too few."""
    count = len(wave) // size if size else 0
    if count < FEWEST_FRAMES:
        return None
    power = np.concatenate([np.square(part, dtype=np.float64).mean(1) for part in _frames(wave, size)])
    return float(np.sort(power)[: max(1, int(QUIETEST * count))].mean())


def _frames(wave: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Blocks of complete frames, `(frames, size)`."""
    step = size * max(1, round(BLOCK_SECONDS / FRAME_SECONDS))
    for start in range(0, len(wave) - size + 1, step):
        block = wave[start : start + step]
        yield block[: len(block) // size * size].reshape(-1, size)


def _bandwidth(wave: np.ndarray, sampling_rate: int) -> float:
    size = min(round(SPECTRUM_SECONDS * sampling_rate), len(wave))
    window = np.hanning(size)
    spectrum = sum((np.abs(np.fft.rfft(part * window)) ** 2).sum(0) for part in _frames(wave, size))
    share = np.cumsum(spectrum) / max(float(np.sum(spectrum)), np.finfo(float).tiny)
    return int(np.searchsorted(share, 1 - OUT_OF_BAND)) * sampling_rate / size
