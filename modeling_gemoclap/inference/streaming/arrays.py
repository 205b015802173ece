"""Arrays of samples, with their channels."""

from __future__ import annotations

import numpy as np

from ...audio_files_gemoclap import MAX_CHANNELS
from ...audio_headers_gemoclap import AudioError
from ...recordings_gemoclap import read_audio


def to_frames(samples, rate: int, name: str, channel_axis: int | None = None) -> tuple[np.ndarray, int | None]:
    """Convert an array to frames.

    Args:
        samples: An array, tensor or list, `(time,)`, `(channels, time)` or `(time, channels)`; it may be empty.
        rate: Its rate in Hz.
        name: Name of the recording in messages.
        channel_axis: The axis of the channels, if there are two axes; None: that with at most 32 entries.

    Returns:
        `(time, channels)` float32, and the axis of the channels; None for one axis.

    Raises:
        AudioError: If samples are not finite or no audio, or if both axes could be the channels.
    """
    array = samples.detach().cpu().numpy() if hasattr(samples, "detach") else np.asarray(samples)
    if array.size == 0:
        return np.zeros((0, 1), np.float32), channel_axis
    if array.ndim != 2:
        return read_audio(array, rate, name)[0][:, None], channel_axis
    if channel_axis is None:
        channel_axis = _channel_axis(array.shape, name)
    channels = array if channel_axis == 0 else array.T
    return np.stack([read_audio(channel, rate, name)[0] for channel in channels], axis=1), channel_axis


def _channel_axis(shape: tuple[int, int], name: str) -> int:
    small = [axis for axis in (0, 1) if shape[axis] <= MAX_CHANNELS]
    if len(small) == 1:
        return small[0]
    if small:
        raise AudioError(
            f"{name}: shape {shape} may be (channels, time) or (time, channels): give channel_axis=0 or 1"
        )
    raise AudioError(f"{name}: shape {shape} has more than {MAX_CHANNELS} channels; give the recordings one by one")
