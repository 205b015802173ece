"""The length of an uploaded recording, counted in blocks before it is decoded in memory."""

from __future__ import annotations

from pathlib import Path

import soundfile

from ..inference.streaming.files import is_longer
from .errors import ServiceError


def too_long(max_seconds: float) -> ServiceError:
    """The error for a recording that is longer than a limit."""
    message = f"the recording is longer than {max_seconds:g} s: cut it into parts"
    return ServiceError(413, "audio_too_long", message, limit=max_seconds)


def check_length(path: Path, max_seconds: float) -> None:
    """Check the length of a recording by decoding it in blocks. Headers are not trusted.

    A file that cannot be decoded passes: what is wrong with it is found when it is read.

    Args:
        path: The file.
        max_seconds: The limit in seconds.

    Raises:
        ServiceError: 413 if the recording is longer.
    """
    if is_longer(path, max_seconds):
        raise too_long(max_seconds)


def check_header(path: Path, max_seconds: float) -> None:
    """Check the length of a recording by its header. A file without a length passes.

    Raises:
        ServiceError: 413 if the recording is longer.
    """
    try:
        header = soundfile.info(str(path))
    except soundfile.LibsndfileError:
        return
    if max_seconds * header.samplerate < header.frames < 2**62:  # a larger number stands for an unknown length
        raise too_long(max_seconds)
