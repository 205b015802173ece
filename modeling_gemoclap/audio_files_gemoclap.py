"""From the bytes of an audio file to samples, by soundfile or by ffmpeg.

docs/recordings.md states the rules in full.
"""

from __future__ import annotations

import io
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
    after_id3,
    check_decoded,
    check_size,
    ogg_links,
    pointer_reason,
    remark,
    uncounted_mp3,
    words_of,
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

MAX_BYTES = 2**32  # of one file: RIFF ends there, too
MAX_SAMPLES = 2**29  # of a channel: 3 hours at 48 kHz, 9 hours at 16 kHz; over all channels four times as many
MAX_CHANNELS = 32
BLOCK = 2**16  # frames decoded at a time
FFMPEG_SECONDS = 300
FFMPEG_BYTES = 2**31  # of samples that ffmpeg may write
TRUNCATED = re.compile(r"partial file|prematurely|exhausted|too small|truncat|moov atom", re.I)  # in ffmpeg's words
DEMUXERS = {  # how files begin, and what ffmpeg calls their formats
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
MALFORMED = 3  # libsndfile's number for a damaged file of a format that it reads


def mix(blocks: Callable[[], Iterable[np.ndarray]], name: str) -> np.ndarray:
    """The mean of channels, or the loudest of them where they cancel out.

    They cancel out where the mean has less than half the power that it would have if the channels were independent
    (two channels: a correlation below -0.5). Offsets are left out of it.

    Args:
        blocks: Returns blocks of floating-point samples `(time, channels)`, anew whenever it is called.
        name: What messages call the recording.

    Returns:
        `(time,)` float32.

    Raises:
        AudioError: If there are too many channels or samples.
    """
    mean, count, sums, squares = bytearray(), 0, 0.0, 0.0
    for block in blocks():
        channels = block.shape[1]
        if not 0 < channels <= MAX_CHANNELS:
            raise AudioError(f"{name}: {channels} channels; give 1 to {MAX_CHANNELS}")
        count += len(block)
        if count * max(channels / 4, 1) > MAX_SAMPLES:
            raise AudioError(f"{name}: longer than {MAX_SAMPLES:,} samples; cut it into parts")
        with np.errstate(all="ignore"):  # what is not finite is found by the caller
            block = block.astype(np.float32) if block.dtype.itemsize < 4 else block
            mixed = block.mean(1) if channels > 1 else block[:, 0]
            mean += mixed.astype(np.float32).tobytes()
            if channels > 1:
                block = np.column_stack([block, mixed]).astype(np.float64)
                sums, squares = sums + block.sum(0), squares + np.square(block).sum(0)
    wave = np.frombuffer(mean, np.float32)
    if count == 0 or np.ndim(squares) == 0:
        return wave
    with np.errstate(all="ignore"):
        *powers, mixed = squares / count - np.square(sums / count)
    if np.mean(powers) > 1e-10 and mixed < np.mean(powers) / (2 * len(powers)):
        loudest = int(np.argmax(powers))
        logger.warning_once(
            f"{name}: its channels cancel out (opposite phase): their mean keeps {mixed / np.mean(powers):.0%} of "
            f"their power; channel {loudest + 1} of {len(powers)}, the loudest, is used"
        )
        wave = np.concatenate([block[:, loudest].astype(np.float32) for block in blocks()])
    return wave


# ---- decoding -------------------------------------------------------------------------------------------------------
class _Bytes(io.BytesIO):
    """A file whose decoder may seek before its beginning, as damaged files make it do; there is nobody to catch it."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _open(data: bytes):
    """Open for reading forward: neither streams of unknown length nor GSM can be sought in, and soundfile would."""
    file = soundfile.SoundFile(_Bytes(data))
    file.seekable = lambda: False
    return file


def _with_soundfile(parts: list[bytes], name: str, strict: bool) -> tuple[np.ndarray, int]:
    """Decode a file, or the links of a chain."""
    with _open(parts[0]) as file:
        format, rate, promised, channels = file.format, file.samplerate, file.frames, file.channels
    data = parts[0]
    if format == "MP3":
        parts = [uncounted_mp3(data, name, strict)]

    def blocks():
        for part in parts:
            with _open(part) as file:
                if (file.samplerate, file.channels) != (rate, channels):
                    raise AudioError(f"{name}: its rate or number of channels changes; convert it to WAV or FLAC")
                while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                    yield block

    wave = mix(blocks, name)
    check_decoded(data, format, promised, len(wave), name, strict)
    return wave, rate


def _ffmpeg_format(data: bytes) -> str | None:
    """The demuxer for what only ffmpeg reads; told by the content, so that no other part of ffmpeg ever sees it."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mov"
    start = after_id3(data)
    if len(data) > start + 1 and data[start] == 0xFF and data[start + 1] & 0xF6 == 0xF0:
        return "aac"
    return next((demuxer for start, demuxer in DEMUXERS.items() if data.startswith(start)), None)


def _demuxer_for(data: bytes) -> str | None:
    """None if soundfile can open the file, or if it is damaged rather than unknown to soundfile."""
    try:
        _open(data).close()
    except Exception as error:
        demuxer = _ffmpeg_format(data)
        if demuxer is None or getattr(error, "code", None) == MALFORMED:
            raise
        return demuxer
    return None


@lru_cache(maxsize=1)
def _carried_ffmpeg() -> str | None:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe() if imageio_ffmpeg else None
    except RuntimeError:
        return None


def find_ffmpeg() -> str | None:
    """The path of ffmpeg: that on the PATH, else that which imageio-ffmpeg carries, else None."""
    found = shutil.which("ffmpeg")
    return os.path.abspath(found) if found else _carried_ffmpeg()


def _run_ffmpeg(command: list[str], data: bytes, name: str) -> tuple[bytes, str]:
    """Run ffmpeg on `data` as the file `input`; a file, since MP4 must be sought in. Returns its output and words."""
    environment = {**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"}
    try:
        with tempfile.TemporaryDirectory(prefix="gemoclap-") as folder:
            with open(os.path.join(folder, "input"), "wb") as file:
                file.write(data)
            with open(os.path.join(folder, "messages"), "w+b") as messages:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    timeout=FFMPEG_SECONDS,
                )
                messages.seek(0)
                said = messages.read(2**16).decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise AudioError(f"{name}: ffmpeg took more than {FFMPEG_SECONDS} s; convert it to WAV or FLAC") from None
    except OSError as error:
        raise AudioError(f"{name}: ffmpeg cannot be run ({command[0]}: {error.strerror})") from None
    said = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *", "", said)
    said = "; ".join(line.strip().rstrip(".") for line in said.splitlines() if line.strip())
    truncated = TRUNCATED.search(said)
    said = said[:300]
    if done.returncode or truncated:
        what = "truncated" if truncated else "not audio that ffmpeg can read"
        raise AudioError(f"{name}: {what} ({said or f'exit status {done.returncode}'}); fetch it again or convert it")
    return done.stdout, said


def _with_ffmpeg(data: bytes, demuxer: str, name: str, strict: bool) -> tuple[np.ndarray, int]:
    executable = find_ffmpeg()
    if executable is None:
        raise AudioError(
            f"{name}: {TITLES.get(demuxer, f'this encoding in {demuxer}')} is read through ffmpeg, which is not "
            "installed: put ffmpeg on the PATH, pip install 'gemoclap[ffmpeg]', or convert it to WAV or FLAC"
        )
    command = [executable, "-nostdin", "-hide_banner", "-v", "error", "-threads", "1"]
    command += ["-protocol_whitelist", "file", "-f", demuxer, "-i", "file:input", "-map", "0:a:0", "-vn", "-sn", "-dn"]
    command += ["-c:a", "pcm_f32le", "-fs", str(FFMPEG_BYTES), "-f", "wav", "pipe:1"]
    wav, said = _run_ffmpeg(command, data, name)
    if len(wav) >= FFMPEG_BYTES - 2**20:
        raise AudioError(f"{name}: longer than {FFMPEG_BYTES // 4:,} samples over all channels; cut it into parts")
    if said:
        remark(f"{name}: read, but ffmpeg says: {said}", strict)
    return _with_soundfile([wav], name, strict)


def check_bytes(size: int, name: str) -> None:
    """Refuse a file that is too large to be read at once."""
    if size > MAX_BYTES:
        raise AudioError(f"{name}: larger than {MAX_BYTES:,} bytes; cut it into parts")


def decode(data: bytes, name: str, strict: bool = False) -> tuple[np.ndarray, int]:
    """Decode an audio file.

    Args:
        data: The file's bytes.
        name: What messages call it.
        strict: Refuse a file whose header and content disagree, instead of a warning.

    Returns:
        The mean over channels, `(time,)` float32, and the rate in Hz.

    Raises:
        AudioError: If it cannot be decoded, or is truncated.
        ImportError: If soundfile is not installed.
    """
    if soundfile is None:
        raise ImportError("reading audio files needs soundfile: pip install soundfile")
    if not data:
        raise AudioError(f"{name}: the file is empty; fetch it again or leave it out")
    check_bytes(len(data), name)
    if reason := pointer_reason(data):
        raise AudioError(f"{name}: {reason}")
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise AudioError(f"{name}: a web page, not a recording; fetch it again")
    what = "not audio that can be read, or truncated"
    try:
        data = check_size(data, name, strict)
        parts = ogg_links(data, name, strict) if data[:4] == b"OggS" else [data]
        demuxer = _demuxer_for(parts[0])
        what = "truncated or damaged"
        return _with_ffmpeg(data, demuxer, name, strict) if demuxer else _with_soundfile(parts, name, strict)
    except AudioError:
        raise
    except Exception as error:  # decoders raise what they like
        words = words_of(error).removeprefix("Error : ")
        raise AudioError(f"{name}: {what} ({words}); fetch it again, or convert it to WAV or FLAC") from None
