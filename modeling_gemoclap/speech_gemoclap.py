"""Where speech starts and ends in a recording, and the level of a waveform."""

from __future__ import annotations

import numpy as np

FRAME_SECONDS = 0.02
SMOOTHED_FRAMES = 5  # frames whose mean power is the level of the frame in the middle
MARGIN_FRAMES = 5  # frames that are kept before the first and after the last frame of speech
BELOW_PEAK, ABOVE_FLOOR, LEAST_BELOW_PEAK = 30.0, 9.0, 20.0  # dB
LOWEST_RMS = 1e-6  # -120 dBFS: digital silence stays silent


def speech_span(wave: np.ndarray, sampling_rate: int) -> tuple[int, int]:
    """Find the first and the last speech of a recording.

    The level of a frame of 20 ms is the mean power of the five frames around it, in dB. Frames louder than a threshold
    are speech. The threshold is 30 dB below the highest level; in a noisy recording it is 9 dB above the lowest level,
    but at least 20 dB below the highest.

    Args:
        wave: `(time,)`.
        sampling_rate: Its rate in Hz.

    Returns:
        Start and end, in samples: 0.1 s before the first frame of speech and 0.1 s after the last, on the grid of
        frames from the start of the recording. A recording without a complete frame, or with a constant level, is
        returned completely.
    """
    size = round(FRAME_SECONDS * sampling_rate)
    count = len(wave) // size if size else 0
    if not count:
        return 0, len(wave)
    power = np.square(wave[: count * size].reshape(count, size), dtype=np.float64).mean(1) + 1e-12
    around = SMOOTHED_FRAMES // 2
    smooth = np.convolve(np.pad(power, around, mode="edge"), np.ones(SMOOTHED_FRAMES) / SMOOTHED_FRAMES, "valid")
    level = 10 * np.log10(smooth)
    threshold = min(max(level.max() - BELOW_PEAK, level.min() + ABOVE_FLOOR), level.max() - LEAST_BELOW_PEAK)
    speech = np.flatnonzero(level > threshold)
    start, end = max(0, speech[0] - MARGIN_FRAMES), speech[-1] + 1 + MARGIN_FRAMES
    return int(start) * size, int(end) * size if end < count else len(wave)


def trim_silence(wave: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Cut what is before the first and after the last speech of a recording; see `speech_span`."""
    start, end = speech_span(wave, sampling_rate)
    return wave[start:end]


def set_level(wave: np.ndarray, level_db: float) -> np.ndarray:
    """Bring a waveform to zero mean and a level.

    Args:
        wave: `(time,)`.
        level_db: The root mean square in dB relative to 1 (dBFS).

    Returns:
        `(time,)`. Samples may exceed 1.
    """
    wave = wave - wave.mean()
    return wave * (10 ** (level_db / 20) / max(float(np.sqrt(np.square(wave, dtype=np.float64).mean())), LOWEST_RMS))
