"""From chunks of channels at any rate to one channel at the rate of a model.

The result does not depend on how a recording is cut into chunks: it is processed in blocks of a fixed length.
"""

from __future__ import annotations

import numpy as np
import soxr
from transformers.utils import logging

from ...audio_files_gemoclap import check_samples
from ...audio_headers_gemoclap import AudioError

logger = logging.get_logger(__name__)

BLOCK_SECONDS = 0.1
QUIETEST = 1e-6  # mean power of the channels in a block below which it does not count: -60 dBFS
FORGETTING = 0.9  # weight of the power before a block: after a second, a third is left


class ChannelMixer:
    """Averages channels; while they cancel out, it takes the loudest one.

    The rule is that of `mix_channels`: channels cancel out if their mean has less than half of the power that it would
    have with independent channels. It is applied to the last seconds instead of the whole recording, whose end is not
    known yet: older blocks count less and less. Blocks below -60 dBFS do not count.

    Args:
        name: Name of the recording in messages.
    """

    def __init__(self, name: str):
        self.name, self.loudest = name, None
        self._powers: np.ndarray | None = None  # of the channels and of their mean, over the last seconds
        self._position, self._reported = 0, False

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Mix a block `(time, channels)` of 0.1 s to `(time,)`."""
        if block.shape[1] == 1:
            return block[:, 0]
        mixed = block.mean(1)
        powers = np.column_stack([block, mixed]).astype(np.float64).var(0)
        if powers[:-1].mean() > QUIETEST:
            before = 0.0 if self._powers is None else FORGETTING * self._powers
            self._powers = before + powers
            self._decide()
        self._position += 1
        return mixed if self.loudest is None else block[:, self.loudest]

    def _decide(self) -> None:
        *powers, mixed = self._powers
        share = mixed / np.mean(powers)
        if share >= 1 / (2 * len(powers)):
            self.loudest = None
        elif self.loudest is None:
            self.loudest = int(np.argmax(powers))
            if not self._reported:
                self._reported = True
                logger.warning(
                    f"{self.name}: its channels cancel out (opposite phase) at {self._position * BLOCK_SECONDS:.1f} s "
                    f"(their mean has {share:.0%} of their power): while they do, channel {self.loudest + 1} of "
                    f"{len(powers)}, the loudest, is used"
                )


class ModelSignal:
    """Converts chunks to one channel at the rate of a model.

    Args:
        rate: Sampling rate of the chunks, in Hz.
        target: Sampling rate of the model, in Hz.
        name: Name of the recording in messages.
    """

    def __init__(self, rate: int, target: int, name: str):
        self.name = name
        self._size = max(1, round(BLOCK_SECONDS * rate))
        self._mix = ChannelMixer(name)
        self._resampler = None if rate == target else soxr.ResampleStream(rate, target, 1, dtype="float32")
        self._kept: np.ndarray | None = None  # frames that do not fill a block

    def feed(self, frames: np.ndarray) -> np.ndarray:
        """Convert a chunk.

        Args:
            frames: `(time, channels)` floats.

        Returns:
            `(time,)` float32 at the rate of the model: all that is complete.

        Raises:
            AudioError: If samples are not finite or too large, or if the number of channels changes.
        """
        check_samples(frames, self.name)  # before anything is changed by a bad chunk
        if self._kept is not None:
            if self._kept.shape[1] != frames.shape[1]:
                raise AudioError(
                    f"{self.name}: its number of channels changes from {self._kept.shape[1]} to {frames.shape[1]}"
                )
            frames = np.concatenate([self._kept, frames])
        blocks = len(frames) // self._size
        self._kept = frames[blocks * self._size :].copy()
        size = self._size
        return _join([self._convert(frames[index * size : (index + 1) * size]) for index in range(blocks)])

    def finish(self) -> np.ndarray:
        """The rest, `(time,)`."""
        if self._kept is None:
            return np.zeros(0, np.float32)
        return self._convert(self._kept, last=True)

    def _convert(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        wave = self._mix(block).astype(np.float32) if len(block) else np.zeros(0, np.float32)
        return wave if self._resampler is None else self._resampler.resample_chunk(wave, last=last)


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
