"""The samples of a recording at the rate of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .files import Blocks, open_recording
from .signal import ModelSignal

Hook = Callable[[np.ndarray, Blocks], None]


def waves(source, rate: int, hook: Hook | None) -> Iterator[np.ndarray]:
    """The samples of a recording, `(time,)`, at the rate of a model, in pieces.

    Raises:
        AudioError: If it cannot be read.
    """
    recording = open_recording(source)
    signal = ModelSignal(recording.rate, rate, recording.name)
    for block in recording.blocks:
        yield _seen(signal.feed(block), recording, hook)
    yield _seen(signal.finish(), recording, hook)


def _seen(wave: np.ndarray, recording: Blocks, hook: Hook | None) -> np.ndarray:
    if hook is not None and len(wave):
        hook(wave, recording)
    return wave
