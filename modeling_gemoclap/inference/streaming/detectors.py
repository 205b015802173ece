"""The probability of speech in frames of 32 ms: by Silero VAD, or by the level."""

from __future__ import annotations

from collections import deque

import numpy as np

from ...command_line.failures import UsageError
from ...speech_gemoclap import ABOVE_FLOOR, BELOW_PEAK

FRAME_SECONDS = 0.032
SILERO_FRAMES = {16_000: 512, 8_000: 256}  # samples that the model takes, by rate in Hz
MEMORY_SECONDS = 30  # of the level's lowest and highest values
FIRST_FRAMES = 16  # whose lowest level is the floor of each of them: 0.5 s
QUIETEST_PEAK = -50.0  # dBFS: a recording without anything louder has no speech
SLOPE_DB = 2.0  # dB that change the probability from 0.5 to 0.73
SMOOTHED_FRAMES = 3


class SileroDetector:
    """Silero VAD, a recurrent network of 2 MB.

    Args:
        rate: Sampling rate in Hz, 16000 or 8000.

    Raises:
        ImportError: If silero-vad is not installed.
    """

    name = "silero"
    first_frames = 1  # that the first call needs

    def __init__(self, rate: int):
        import torch

        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        finally:
            torch.set_num_threads(threads)  # importing it sets one thread
        self.frame, self._rate, self._torch = SILERO_FRAMES[rate], rate, torch
        self._model = load_silero_vad()
        self._model.reset_states()

    def __call__(self, frames: np.ndarray) -> list[float]:
        """Probabilities of consecutive frames `(count, samples)`."""
        with self._torch.inference_mode():
            tensors = self._torch.from_numpy(np.ascontiguousarray(frames, np.float32))
            return [self._model(frame, self._rate).item() for frame in tensors]


class LevelDetector:
    """Speech by the level of a frame, compared with the lowest and the highest level of the last 30 seconds.

    The threshold is 30 dB below the highest level, or 9 dB above the lowest one if that is higher. Steady noise is no
    speech, but noise that comes and goes is.

    Args:
        rate: Sampling rate in Hz.
    """

    name = "level"
    first_frames = FIRST_FRAMES  # that the first call needs

    def __init__(self, rate: int):
        self.frame = round(FRAME_SECONDS * rate)
        self._powers: deque[float] = deque(maxlen=SMOOTHED_FRAMES)
        self._levels: deque[float] = deque(maxlen=round(MEMORY_SECONDS / FRAME_SECONDS))
        self._first = True

    def __call__(self, frames: np.ndarray) -> list[float]:
        """Probabilities of consecutive frames `(count, samples)`."""
        levels = [self._level(power) for power in frames.astype(np.float64).var(1) + 1e-12]
        if self._first:  # nothing is known of the floor yet
            self._levels.append(min(levels[:FIRST_FRAMES]))
            self._first = False
        return [self._probability(level) for level in levels]

    def _level(self, power: float) -> float:
        self._powers.append(power)
        return float(10 * np.log10(np.mean(self._powers)))

    def _probability(self, level: float) -> float:
        self._levels.append(level)
        peak, floor = max(QUIETEST_PEAK, max(self._levels)), min(self._levels)
        threshold = max(peak - BELOW_PEAK, floor + ABOVE_FLOOR)
        return float(1 / (1 + np.exp(-np.clip((level - threshold) / SLOPE_DB, -50, 50))))


def build_detector(kind: str, rate: int) -> SileroDetector | LevelDetector:
    """Build a detector.

    Args:
        kind: `"silero"`, `"level"`, or `"auto"`: Silero where it is installed and supports the rate.
        rate: Sampling rate in Hz.

    Raises:
        UsageError: If `"silero"` is asked for and does not support the rate.
        ImportError: If `"silero"` is asked for and not installed.
    """
    if kind == "level" or (kind == "auto" and rate not in SILERO_FRAMES):
        return LevelDetector(rate)
    if rate not in SILERO_FRAMES:
        raise UsageError(f"vad='silero' supports 16000 and 8000 Hz, and the model has {rate} Hz: give vad='level'")
    try:
        return SileroDetector(rate)
    except ImportError as error:
        if kind == "auto":
            return LevelDetector(rate)
        raise ImportError(
            "Silero VAD is not installed: pip install 'gemoclap[vad]', or find speech by level"
        ) from error
