"""The length of an uploaded recording, counted in blocks before it is decoded in memory."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import soundfile

from ..audio_files_gemoclap import BLOCK, ffmpeg_demuxer, find_ffmpeg
from ..audio_headers_gemoclap import ogg_links, with_sufficient_frame_count
from .errors import ServiceError
from .uploads import NAMELESS

HEADER_BYTES = 4096
COUNTING_RATE = 8000  # Hz, of the samples that ffmpeg counts
FFMPEG_SECONDS = 60


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
    left = max_seconds
    try:
        for source in _sources(path):
            left -= _seconds_by_soundfile(source, left)
    except (soundfile.LibsndfileError, ValueError):
        left -= _seconds_by_ffmpeg(path, max_seconds)
    if left < 0:
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


def _sources(path: Path) -> list[Path | io.BytesIO]:
    """The file, or what libsndfile would not read to its end: parts of a chained Ogg, an MP3 with a wrong count."""
    kind = soundfile.info(str(path)).format
    if kind == "OGG":
        return [io.BytesIO(link) for link in ogg_links(path.read_bytes(), NAMELESS, False)]
    if kind == "MP3":
        return [io.BytesIO(with_sufficient_frame_count(path.read_bytes(), NAMELESS, False))]
    return [path]


def _seconds_by_soundfile(source: Path | io.BytesIO, max_seconds: float) -> float:
    """The length of a recording, counted until it exceeds a limit."""
    with soundfile.SoundFile(source) as file:
        file.seekable = lambda: False  # sequential reading: seeking fails in streams of unknown length
        rate, frames = file.samplerate, 0
        while frames <= max_seconds * rate and (count := len(file.read(BLOCK, dtype="float32", always_2d=True))):
            frames += count
    return frames / rate


def _seconds_by_ffmpeg(path: Path, max_seconds: float) -> float:
    """The length of a recording that only ffmpeg can decode, counted until it exceeds a limit; 0 if it cannot."""
    with open(path, "rb") as file:
        demuxer, executable = ffmpeg_demuxer(file.read(HEADER_BYTES)), find_ffmpeg()
    if demuxer is None or executable is None:
        return 0.0
    command = [executable, "-nostdin", "-hide_banner", "-v", "quiet", "-threads", "1", "-protocol_whitelist", "file"]
    command += ["-f", demuxer, "-i", f"file:{path}", "-map", "0:a:0", "-vn", "-sn", "-dn", "-t", f"{max_seconds + 1}"]
    command += ["-ac", "1", "-ar", str(COUNTING_RATE), "-f", "u8", "pipe:1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=FFMPEG_SECONDS)
    except subprocess.TimeoutExpired:
        raise too_long(max_seconds) from None
    return len(done.stdout) / COUNTING_RATE
