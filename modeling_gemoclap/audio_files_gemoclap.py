"""Decoding of audio files with soundfile or ffmpeg.

docs/recordings.md lists the rules.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from transformers.utils import logging

from .audio_headers_gemoclap import (
    AudioError,
    check_decoded,
    check_size,
    error_summary,
    id3_size,
    ogg_links,
    pointer_reason,
    warn_or_refuse,
    with_sufficient_frame_count,
)

try:
    import soundfile
except ImportError:
    soundfile = None
try:
    import imageio_ffmpeg
except ImportError:
    imageio_ffmpeg = None

logger = logging.get_logger(__name__)

MAX_BYTES = 2**32  # of a file; also the limit of RIFF
MAX_SAMPLES = 2**29  # of a channel: 3 hours at 48 kHz, 9 hours at 16 kHz; four times as many over all channels
MAX_CHANNELS = 32
MAX_AMPLITUDE = 2.0**32  # above the integers of every audio format
BLOCK = 2**16  # frames decoded at a time
FFMPEG_SECONDS = 300
FFMPEG_BYTES = 2**31  # maximum size of ffmpeg's output
TRUNCATED = re.compile(r"partial file|prematurely|exhausted|too small|truncat|moov atom", re.I)  # ffmpeg's messages
FIRST_AUDIO_TRACK = ("-map", "0:a:0", "-vn", "-sn", "-dn")
DEMUXERS = {  # first bytes of a file -> name of ffmpeg's demuxer
    b"\x1aE\xdf\xa3": "matroska",
    b"0&\xb2u\x8ef\xcf\x11": "asf",
    b"#!AMR": "amr",
    b"RIFF": "wav",
    b"OggS": "ogg",
    b"FORM": "aiff",
    b"caff": "caf",
    b"wvpk": "wv",
    b"MAC ": "ape",
}
TITLES = {"mov": "MP4 (m4a, mp4, 3gp, mov)", "matroska": "WebM or Matroska", "asf": "WMA", "aac": "AAC", "amr": "AMR"}
MALFORMED = 3  # libsndfile's error code for a damaged file of a supported format


def mix_channels(blocks: Callable[[], Iterable[np.ndarray]], name: str) -> np.ndarray:
    """Average the channels, or select the loudest channel if the channels cancel out.

    The channels cancel out if their mean has less than half of the power that it would have with independent channels
    (for two channels: a correlation below -0.5). The power excludes the offset.

    Args:
        blocks: Returns an iterable of blocks of floating-point samples, `(time, channels)`, at every call.
        name: Name of the recording in messages.

    Returns:
        `(time,)` float32.

    Raises:
        AudioError: If there are too many samples, or as for `check_samples`.
    """
    mean, count, sums, squares = bytearray(), 0, 0.0, 0.0
    for block in blocks():
        check_samples(block, name)
        channels = block.shape[1]
        count += len(block)
        if count * max(channels / 4, 1) > MAX_SAMPLES:
            raise AudioError(f"{name}: longer than {MAX_SAMPLES:,} samples; cut it into parts")
        block = block.astype(np.float32) if block.dtype.itemsize < 4 else block
        mixed = block.mean(1) if channels > 1 else block[:, 0]
        mean += mixed.astype(np.float32).tobytes()
        if channels > 1:
            block = np.column_stack([block, mixed]).astype(np.float64)
            sums, squares = sums + block.sum(0), squares + np.square(block).sum(0)
    wave = np.frombuffer(mean, np.float32)
    if count == 0 or np.ndim(squares) == 0:
        return wave
    *powers, mixed = squares / count - np.square(sums / count)
    if np.mean(powers) > 1e-10 and mixed < np.mean(powers) / (2 * len(powers)):
        loudest = int(np.argmax(powers))
        logger.warning_once(
            f"{name}: its channels cancel out (opposite phase): their mean has {mixed / np.mean(powers):.0%} of "
            f"their power; channel {loudest + 1} of {len(powers)}, the loudest, is used"
        )
        wave = np.concatenate([block[:, loudest].astype(np.float32) for block in blocks()])
    return wave


def check_samples(frames: np.ndarray, name: str) -> None:
    """Check samples before their channels are mixed, which could hide what is wrong with one of them.

    Args:
        frames: `(time, channels)`.
        name: Name of the recording in messages.

    Raises:
        AudioError: If samples are not finite or too large, or if there are too many channels.
    """
    channels = frames.shape[1]
    if not 0 < channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {channels} channels; give 1 to {MAX_CHANNELS}")
    peak = float(max(frames.max(), -frames.min())) if frames.size else 0.0
    if not math.isfinite(peak):
        raise AudioError(f"{name}: it contains NaN or infinite samples; repair or remove it")
    if peak > MAX_AMPLITUDE:
        raise AudioError(f"{name}: it contains samples as large as {peak:.1e}, which is not audio; repair it")


# ---- decoding -------------------------------------------------------------------------------------------------------
class _Bytes(io.BytesIO):
    """A file that ignores invalid seeks. Damaged files cause them in a callback that cannot raise an exception."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _open(data: bytes):
    """Open a file for sequential reading; soundfile would seek in streams of unknown length and GSM, which fails."""
    file = soundfile.SoundFile(_Bytes(data))
    file.seekable = lambda: False
    return file


def _with_soundfile(parts: list[bytes], name: str, strict: bool) -> tuple[np.ndarray, int]:
    """Decode a file, given as one part, or a chained file, given as several."""
    with _open(parts[0]) as file:
        format, rate, expected, channels = file.format, file.samplerate, file.frames, file.channels
    data = parts[0]
    if format == "MP3":
        parts = [with_sufficient_frame_count(data, name, strict)]

    def blocks():
        for part in parts:
            with _open(part) as file:
                if (file.samplerate, file.channels) != (rate, channels):
                    raise AudioError(f"{name}: its rate or number of channels changes; convert it to WAV or FLAC")
                while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                    yield block

    wave = mix_channels(blocks, name)
    check_decoded(data, format, expected, len(wave), name, strict)
    return wave, rate


def ffmpeg_demuxer(data: bytes) -> str | None:
    """The demuxer for a file that only ffmpeg reads, by the file's content: ffmpeg must not choose one itself."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mov"
    start = id3_size(data)
    if len(data) > start + 1 and data[start] == 0xFF and data[start + 1] & 0xF6 == 0xF0:
        return "aac"
    return next((demuxer for start, demuxer in DEMUXERS.items() if data.startswith(start)), None)


def _demuxer_for(data: bytes) -> str | None:
    """The demuxer of ffmpeg for a file that soundfile does not support; None if soundfile can open it.

    Raises:
        Exception: Of soundfile, if the file is damaged or of an unknown format.
    """
    try:
        _open(data).close()
    except Exception as error:
        demuxer = ffmpeg_demuxer(data)
        if demuxer is None or getattr(error, "code", None) == MALFORMED:
            raise
        return demuxer
    return None


@lru_cache(maxsize=1)
def _bundled_ffmpeg() -> str | None:
    """The path of the ffmpeg in imageio-ffmpeg, or None."""
    try:
        return imageio_ffmpeg.get_ffmpeg_exe() if imageio_ffmpeg else None
    except RuntimeError:
        return None


def find_ffmpeg() -> str | None:
    """The path of the ffmpeg on the PATH, else of that in imageio-ffmpeg, else None."""
    path = shutil.which("ffmpeg")
    return os.path.abspath(path) if path else _bundled_ffmpeg()


def ffmpeg_command(demuxer: str, path: str, name: str) -> list[str]:
    """The command that decodes the first audio track of a file, without the output.

    Args:
        demuxer: Name of the demuxer: ffmpeg must not choose one itself.
        path: The file.
        name: Name of the recording in messages.

    Raises:
        AudioError: If there is no ffmpeg.
    """
    executable = find_ffmpeg()
    if executable is None:
        raise AudioError(
            f"{name}: {TITLES.get(demuxer, f'this encoding in {demuxer}')} requires ffmpeg, which is not "
            "installed: put ffmpeg on the PATH, pip install imageio-ffmpeg, or convert it to WAV or FLAC"
        )
    command = [executable, "-nostdin", "-hide_banner", "-v", "error", "-threads", "1"]
    return [*command, "-protocol_whitelist", "file", "-f", demuxer, "-i", f"file:{path}", *FIRST_AUDIO_TRACK]


def ffmpeg_problem(log: str, status: int, name: str) -> str:
    """The messages of ffmpeg, shortened.

    Args:
        log: The messages.
        status: The exit status.
        name: Name of the recording in messages.

    Raises:
        AudioError: If ffmpeg failed or reports a truncated file.
    """
    log = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *", "", log)
    log = "; ".join(line.strip().rstrip(".") for line in log.splitlines() if line.strip())
    truncated = TRUNCATED.search(log)
    log = log[:300]
    if status or truncated:
        problem = "truncated" if truncated else "not audio that ffmpeg can read"
        raise AudioError(f"{name}: {problem} ({log or f'exit status {status}'}); download it again or convert it")
    return log


def _run_ffmpeg(command: list[str], data: bytes, name: str) -> tuple[bytes, str]:
    """Run ffmpeg on a file `input` that holds `data`; MP4 requires a file, because ffmpeg seeks in it.

    Returns:
        The output of ffmpeg and its messages.

    Raises:
        AudioError: If ffmpeg fails or reports a truncated file.
    """
    environment = {**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"}
    try:
        with tempfile.TemporaryDirectory(prefix="gemoclap-") as folder:
            with open(os.path.join(folder, "input"), "wb") as file:
                file.write(data)
            with open(os.path.join(folder, "messages"), "w+b") as messages:
                process = subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    timeout=FFMPEG_SECONDS,
                )
                messages.seek(0)
                log = messages.read(2**16).decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise AudioError(f"{name}: ffmpeg took more than {FFMPEG_SECONDS} s; convert it to WAV or FLAC") from None
    except OSError as error:
        raise AudioError(f"{name}: ffmpeg cannot be run ({command[0]}: {error.strerror})") from None
    return process.stdout, ffmpeg_problem(log, process.returncode, name)


def _with_ffmpeg(data: bytes, demuxer: str, name: str, strict: bool) -> tuple[np.ndarray, int]:
    """Decode a file by converting it to WAV with ffmpeg."""
    command = ffmpeg_command(demuxer, "input", name)
    command += ["-c:a", "pcm_f32le", "-fs", str(FFMPEG_BYTES), "-f", "wav", "pipe:1"]
    wav, log = _run_ffmpeg(command, data, name)
    if len(wav) >= FFMPEG_BYTES - 2**20:
        raise AudioError(f"{name}: longer than {FFMPEG_BYTES // 4:,} samples over all channels; cut it into parts")
    if log:
        warn_or_refuse(f"{name}: read, but ffmpeg reports: {log}", strict)
    return _with_soundfile([wav], name, strict)


def check_bytes(size: int, name: str) -> None:
    """Check the size of a file.

    Raises:
        AudioError: If it exceeds `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise AudioError(f"{name}: larger than {MAX_BYTES:,} bytes; cut it into parts")


def decode(data: bytes, name: str, strict: bool = False) -> tuple[np.ndarray, int]:
    """Decode an audio file.

    Args:
        data: The bytes of the file.
        name: Name of the recording in messages.
        strict: Whether a header that disagrees with the content is an error instead of a warning.

    Returns:
        The mean over channels, `(time,)` float32, and the sampling rate in Hz.

    Raises:
        AudioError: If the file cannot be decoded or is truncated.
        ImportError: If soundfile is not installed.
    """
    if soundfile is None:
        raise ImportError("reading audio files requires soundfile: pip install soundfile")
    if not data:
        raise AudioError(f"{name}: the file is empty; download it again or remove it")
    check_bytes(len(data), name)
    if reason := pointer_reason(data):
        raise AudioError(f"{name}: {reason}")
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise AudioError(f"{name}: a web page, not a recording; download it again")
    problem = "not audio that can be read, or truncated"
    try:
        data = check_size(data, name, strict)
        parts = ogg_links(data, name, strict) if data[:4] == b"OggS" else [data]
        demuxer = _demuxer_for(parts[0])
        problem = "truncated or damaged"
        return _with_ffmpeg(data, demuxer, name, strict) if demuxer else _with_soundfile(parts, name, strict)
    except AudioError:
        raise
    except Exception as error:  # decoders raise exceptions of any type
        reason = error_summary(error).removeprefix("Error : ")
        raise AudioError(f"{name}: {problem} ({reason}); download it again, or convert it to WAV or FLAC") from None
