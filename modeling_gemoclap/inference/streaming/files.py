"""Long recordings, read in blocks with bounded memory."""

from __future__ import annotations

import errno
import io
import mmap
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import soundfile
from transformers.utils import logging

from ...audio_files_gemoclap import BLOCK, FFMPEG_SECONDS, MALFORMED, ffmpeg_command, ffmpeg_demuxer, ffmpeg_problem
from ...audio_headers_gemoclap import (
    AudioError,
    Correction,
    check_decoded,
    error_summary,
    ogg_links,
    pointer_reason,
    size_correction,
    with_sufficient_frame_count,
)
from ...recordings_gemoclap import BYTES_LIKE, check_rate, name_of, read_audio
from .arrays import to_frames

logger = logging.get_logger(__name__)

MAX_IN_MEMORY = 2**29  # bytes of a file whose content must be checked or corrected as a whole
UNKNOWN_LENGTH = 2**36  # frames; libsndfile reports more where a header has no length
AU_HEADER = struct.Struct(">4sIIIII")  # magic, offset of the samples, size, encoding, rate, channels


@dataclass
class Blocks:
    """A recording as blocks of samples.

    Args:
        name: Its name in messages.
        rate: Its sampling rate in Hz.
        seconds: Its duration according to its header; None if it is unknown there.
        blocks: The samples: arrays `(time, channels)` of floats.
    """

    name: str
    rate: int
    seconds: float | None
    blocks: Iterator[np.ndarray]


def open_recording(source, sampling_rate: int | None = None) -> Blocks:
    """Open a recording.

    A file is read block by block. Bytes, open files and pipes are written to a temporary file first. Of MP3 and Ogg,
    the encoded bytes are in memory.

    Args:
        source: A path, or what `read_audio` accepts.
        sampling_rate: Rate of an array in Hz.

    Raises:
        AudioError: If it cannot be read. Errors in the middle of a file are raised by `blocks`.
    """
    name = name_of(source)
    if isinstance(source, Mapping) and source.get("array") is None:
        source = next((source[key] for key in ("bytes", "path") if source.get(key) is not None), source)
    if isinstance(source, BYTES_LIKE) or hasattr(source, "read") or _is_pipe(source):
        return _open_file(_spooled(source, name), name)
    if not isinstance(source, (str, os.PathLike)):
        return _open_array(source, sampling_rate, name)
    if not os.path.isfile(source):
        read_audio(source, name=name)  # raises the error that fits
    try:
        file = open(source, "rb")
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror})") from None
    try:
        return _open_file(file, name)
    except BaseException:
        file.close()
        raise


def is_longer(source, seconds: float) -> bool:
    """Whether a recording is longer than a limit, by decoding it in blocks up to there: headers are not trusted.

    A recording that cannot be read is not longer: reading it raises the error. One that is too large to be checked is.

    Args:
        source: A path.
        seconds: The limit.
    """
    try:
        recording = open_recording(source)
        frames = 0
        for block in recording.blocks:
            frames += len(block)
            if frames > seconds * recording.rate:
                return True
    except AudioError:
        return os.path.isfile(source) and os.path.getsize(source) > MAX_IN_MEMORY
    return False


def _open_file(file, name: str) -> Blocks:
    head = file.read(2**16)
    if not head:
        raise AudioError(f"{name}: the file is empty; download it again or remove it")
    if reason := pointer_reason(head):
        raise AudioError(f"{name}: {reason}")
    try:
        parts = _parts(file, head, name)
        reader = _sound(parts[0])
    except AudioError:
        raise
    except Exception as error:  # decoders raise exceptions of any type
        demuxer = ffmpeg_demuxer(head)
        if demuxer is None or getattr(error, "code", None) == MALFORMED:
            reason = error_summary(error).removeprefix("Error : ")
            raise AudioError(f"{name}: not audio that can be read, or truncated ({reason})") from None
        return _with_ffmpeg(file, demuxer, name)
    content = b""
    if reader.format == "MP3":  # the length of the original header counts, as in `decode`
        content = _whole(file, name)
        parts = [io.BytesIO(with_sufficient_frame_count(content, name, strict=False))]
    rate = check_rate(reader.samplerate, name)
    seconds = reader.frames / rate if reader.frames < UNKNOWN_LENGTH and len(parts) == 1 else None
    return Blocks(name, rate, seconds, _unchanged(file, name, rate, _decoded(parts, reader, content, name)))


def _is_pipe(source) -> bool:
    return isinstance(source, (str, os.PathLike)) and os.path.exists(source) and stat.S_ISFIFO(os.stat(source).st_mode)


def _spooled(source, name: str):
    """Bytes, an open file or a pipe as a temporary file, which is removed when it is closed."""
    file = tempfile.NamedTemporaryFile(prefix="gemoclap-")
    try:
        if isinstance(source, BYTES_LIKE):
            file.write(source)
        elif hasattr(source, "read"):
            seekable = getattr(source, "seekable", bool)()
            position = source.tell() if seekable else None
            if seekable:
                source.seek(0)
            shutil.copyfileobj(source, file)
            if seekable:
                source.seek(position)
        else:
            with open(source, "rb") as pipe:
                shutil.copyfileobj(pipe, file)
    except (OSError, TypeError, ValueError) as error:  # a closed or text file, a full disk
        file.close()
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise AudioError(f"{name}: cannot be read ({error_summary(error)}); open it with open(path, 'rb')") from None
    file.flush()
    file.seek(0)
    return file


def _open_array(source, sampling_rate: int | None, name: str) -> Blocks:
    """An array with its rate, or what only `read_audio` can read, as one block."""
    rate, array = sampling_rate, source
    if isinstance(source, Mapping):
        rate, array = source.get("sampling_rate", rate), source.get("array")
    elif isinstance(source, tuple) and len(source) == 2:
        rate, array = source if np.ndim(source[0]) == 0 else source[::-1]
    if np.ndim(array) == 2:
        rate = check_rate(rate, name)
        frames = to_frames(array, rate, name)[0]
    else:
        wave, rate = read_audio(source, sampling_rate, name)
        frames = wave[:, None]
    return Blocks(name, rate, len(frames) / rate, iter([frames]))


class _Lenient:
    """A file that ignores invalid seeks, which damaged files cause in a callback that cannot raise an exception."""

    def __init__(self, file):
        self._file, self.read, self.readinto, self.tell = file, file.read, file.readinto, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self._file.tell()


def _sound(source) -> soundfile.SoundFile:
    """Open for sequential reading: soundfile would seek in streams of unknown length and GSM, which fails."""
    sound = soundfile.SoundFile(_Lenient(source))
    sound.seekable = lambda: False
    return sound


def _parts(file, head: bytes, name: str) -> list:
    """The file, or its content as it should be: a chained Ogg file has one part for each recording.

    Raises:
        AudioError: If it is truncated, or too large to be corrected.
    """
    if head[:4] == b"OggS":
        return [io.BytesIO(link) for link in ogg_links(_whole(file, name), name, strict=False)]
    checked = _checked(file, name)
    file.seek(0)
    return [file if checked is None else checked]


def _checked(file, name: str) -> _Corrected | None:
    """The content with correct sizes in its header; None if the file has them."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        correction = size_correction(content, name, strict=False)
    return None if correction is None else _Corrected(file, correction)


class _Corrected(io.RawIOBase):
    """A file with corrections, read as it is needed."""

    def __init__(self, file, correction: Correction):
        super().__init__()
        self._file, self._correction, self._position = file, correction, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._correction.end}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        self._file.seek(self._position)
        part = self._correction.apply(self._position, self._file.read(len(buffer)))
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _whole(file, name: str) -> bytes:
    if os.fstat(file.fileno()).st_size > MAX_IN_MEMORY:
        raise _too_large(name)
    file.seek(0)
    return file.read()


def _too_large(name: str) -> AudioError:
    return AudioError(
        f"{name}: larger than {MAX_IN_MEMORY:,} bytes, and MP3 and Ogg files are checked as a whole; convert it "
        "to WAV or FLAC, or cut it into parts"
    )


def _decoded(parts: list, reader: soundfile.SoundFile, content: bytes, name: str) -> Iterator[np.ndarray]:
    rate, channels, format, expected = reader.samplerate, reader.channels, reader.format, reader.frames
    count = 0
    try:
        for number, part in enumerate(parts):
            sound = reader if number == 0 and not content else _sound(part)
            if (sound.samplerate, sound.channels) != (rate, channels):
                raise AudioError(f"{name}: its rate or number of channels changes; convert it to WAV or FLAC")
            with sound:
                while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
                    count += len(block)
                    yield block
        check_decoded(content, format, expected, count, name, strict=False)
    except AudioError:
        raise
    except Exception as error:
        reason = error_summary(error).removeprefix("Error : ")
        raise AudioError(
            f"{name}: truncated or damaged after {count / rate:.1f} s ({reason}); download it again, or convert it"
        ) from None


def _unchanged(file, name: str, rate: int, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass blocks on; at the end, report a file that changed while it was read."""
    before, count = os.fstat(file.fileno()), 0
    with file:
        for block in blocks:
            count += len(block)
            yield block
        after = os.fstat(file.fileno())
    if after.st_size > before.st_size:
        logger.warning(f"{name}: the file grew while it was read; what is used ends at {count / rate:.1f} s")
    elif (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise AudioError(f"{name}: the file changed while it was read; wait until it is complete, and start again")


# ---- ffmpeg ---------------------------------------------------------------------------------------------------------
def _with_ffmpeg(file, demuxer: str, name: str) -> Blocks:
    """Decode a file by ffmpeg, which writes to a pipe in the format AU: a header of fixed form, then the samples."""
    command = ffmpeg_command(demuxer, os.path.abspath(file.name), name)
    messages = tempfile.TemporaryFile()
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    environment = {**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, env=environment
        )
    except OSError as error:
        raise AudioError(f"{name}: ffmpeg cannot be run ({command[0]}: {error.strerror})") from None
    header = _read(process, AU_HEADER.size)
    if len(header) < AU_HEADER.size:
        _finish(process, messages, name)
        raise AudioError(f"{name}: ffmpeg found no audio in it")
    _, offset, _, _, rate, channels = AU_HEADER.unpack(header)
    _read(process, offset - AU_HEADER.size)
    rate = check_rate(rate, name)
    return Blocks(name, rate, None, _unchanged(file, name, rate, _from_pipe(process, messages, channels, name)))


def _from_pipe(process, messages, channels: int, name: str) -> Iterator[np.ndarray]:
    width = 4 * channels
    try:
        while data := _read(process, BLOCK * width):
            samples = np.frombuffer(data[: len(data) // width * width], ">f4")
            yield samples.reshape(-1, channels).astype(np.float32)
        if log := _finish(process, messages, name):
            logger.warning(f"{name}: read, but ffmpeg reports: {log}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        messages.close()


def _read(process, size: int) -> bytes:
    """Read from the pipe. If nothing comes for a long time, ffmpeg is ended."""
    timer = threading.Timer(FFMPEG_SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.read(size)
    finally:
        timer.cancel()


def _finish(process, messages, name: str) -> str:
    """The messages of ffmpeg.

    Raises:
        AudioError: If it failed.
    """
    status = process.wait()
    messages.seek(0)
    log = messages.read(2**16).decode(errors="replace")
    if "matches no streams" in log:
        raise AudioError(f"{name}: it has no audio track; give a recording with sound")
    return ffmpeg_problem(log, status, name)
