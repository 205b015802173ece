"""The lengths in the headers of audio files, and the detection of truncated files.

docs/recordings.md lists the rules.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from transformers.utils import logging

logger = logging.get_logger(__name__)

SLACK = 64  # bytes: a smaller error in a size loses no audible part of a recording
MARGIN = 2**20  # bytes: a size this close to 2**31 or 2**32 is a placeholder for an unknown size
LARGEST = {layout: 2 ** (8 * struct.calcsize(layout)) - 1 for layout in ("<I", ">I", "<Q", ">Q", "<q", ">q")}
MPEG_BITRATES = (  # kilobits per second: MPEG-2 layers II and III, MPEG-1 layer II, MPEG-1 layer III
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
POINTERS = {  # beginnings of the pointer files of git-lfs and git-annex
    b"version https://git-lfs": "a pointer of git-lfs, not the file itself; fetch it with: git lfs pull",
    b"/annex/objects/": "a pointer of git-annex, not the file itself; fetch it with: git annex get",
}


class AudioError(ValueError):
    """A recording cannot be used. The message names the recording, what is wrong and what to do."""


def warn_or_refuse(message: str, strict: bool) -> None:
    """Log a warning about a recording, once.

    Raises:
        AudioError: If `strict`.
    """
    if strict:
        raise AudioError(f"{message} (strict)")
    logger.warning_once(message)


def error_summary(error: Exception) -> str:
    """The first line of an exception's message, without memory addresses."""
    message = getattr(error, "error_string", None) or str(error).strip() or type(error).__name__
    return re.sub(r"( at| @)? 0x[0-9a-fA-F]+", "", message.splitlines()[0]).rstrip(".")[:300]


def pointer_reason(data: bytes) -> str | None:
    """The error message for a file that is a pointer of git-lfs or git-annex; None for other files.

    Args:
        data: The beginning of the file.
    """
    return next((reason for prefix, reason in POINTERS.items() if data.startswith(prefix)), None)


def refuse_pointers(folder: str) -> None:
    """Check that no file of a local checkpoint is a pointer. A path that is not a folder is ignored.

    Raises:
        ValueError: If a file is a pointer. The message names the file and the command that fetches its content.
    """
    for path in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ():
        if path.is_file():
            with path.open("rb") as file:
                reason = pointer_reason(file.read(64))
            if reason:
                raise ValueError(f"{path}: {reason}")


class Extent(NamedTuple):
    """Location of the samples according to a header.

    Args:
        start: Offset of the first byte of the samples.
        size: Size of the samples in bytes; None if the header does not specify it.
        end: Size of the file in bytes; None if the header does not specify it.
        fields: The sizes in the header: the offset of each, its `struct` layout, and the offset from which it counts.
    """

    start: int
    size: int | None
    end: int | None = None
    fields: tuple[tuple[int, str, int], ...] = ()


def _known(size: int, bits: int = 32) -> int | None:
    """A size, or None for the placeholders of programs that write to a pipe."""
    if size <= 0 or (bits == 64 and size >= 2**48):
        return None
    is_placeholder = abs(size - 2**31) <= MARGIN or size >= 2**32 - MARGIN
    return None if bits == 32 and is_placeholder else size


def _chunks(data: bytes, position: int, layout: str, align: int, inclusive: int = 0) -> Iterator[tuple]:
    """Yield `(id, offset of the content, size)` of the chunks from `position` on.

    Args:
        data: The file.
        position: Offset of the first chunk.
        layout: `struct` layout of an id and a size.
        align: Alignment of chunks in bytes.
        inclusive: Number of header bytes that a size includes.
    """
    width = struct.calcsize(layout)
    while position + width <= len(data):
        name, size = struct.unpack_from(layout, data, position)
        yield name, position + width, size - inclusive
        if size < inclusive:
            return
        position += width + size - inclusive
        position += -position % align


def _riff(data: bytes) -> Extent | None:
    """The extent in WAV, RF64 and AIFF. The samples of AIFF begin 8 bytes into their chunk."""
    aiff = data[:4] == b"FORM"
    order, sample_chunk, skipped = (">", b"SSND", 8) if aiff else (">" if data[:4] == b"RIFX" else "<", b"data", 0)
    end, size64, fields = _known(struct.unpack_from(f"{order}I", data, 4)[0]), None, ()
    for name, start, size in islice(_chunks(data, 12, f"{order}4sI", 2), 10_000):
        if name == b"ds64" and data[:4] == b"RF64" and start + 16 <= len(data):
            end, size64 = (_known(number, 64) or 0 for number in struct.unpack_from("<QQ", data, start))
            fields = ((start, "<Q", 8), (start + 8, "<Q", 0))
        elif name == sample_chunk:
            size = _known(size) if size64 is None else size64 or None
            fields = (fields[0], (*fields[1][:2], start)) if fields else ((start - 4, f"{order}I", start),)
            return Extent(start + skipped, size and size - skipped, (end or 0) + 8 if end else None, fields)
    return Extent(len(data), end + 8 - len(data), end + 8) if end and end + 8 > len(data) else None


def _au(data: bytes) -> Extent:
    start, size = struct.unpack_from(">II", data, 4)
    return Extent(start, _known(size), None, ((8, ">I", start),))


def _w64(data: bytes) -> Extent | None:
    for name, start, size in islice(_chunks(data, 40, "<16sq", 8, 24), 10_000):
        if name.startswith(b"data"):
            fields = ((16, "<q", 0), (start - 8, "<q", start - 24))
            return Extent(start, _known(size, 64), _known(struct.unpack_from("<q", data, 16)[0], 64), fields)
    return None


def _caf(data: bytes) -> Extent | None:
    for name, start, size in islice(_chunks(data, 8, ">4sq", 1), 10_000):
        if name == b"data":
            return Extent(start, _known(size, 64), None, ((start - 8, ">q", start),))
    return None


def _nist(data: bytes) -> Extent | None:
    """The extent in SPHERE (TIMIT and other corpora of the LDC); None for compressed samples."""
    header = data[: int(data[8:16].decode("ascii", "replace").strip())].decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\S+ (\S+)", header, re.M))
    factors = [int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes") if name in fields]
    if "," in fields.get("sample_coding", "") or len(factors) < 3:
        return None
    return Extent(len(header), factors[0] * factors[1] * factors[2])


def _extent(data: bytes) -> Extent | None:
    """The extent according to the header, for formats that libsndfile truncates without an error.

    Returns:
        None if the header does not specify a size, or for other formats.
    """
    try:
        if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM") and data[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
            return _riff(data)
        readers = {b".snd": _au, b"riff": _w64, b"caff": _caf, b"NIST": _nist}
        return readers[data[:4]](data) if data[:4] in readers else None
    except (struct.error, ValueError):
        return None  # truncated or invalid header: the decoder raises the error


class Correction(NamedTuple):
    """Corrections of a file: its end, after which bytes are left out, and bytes that replace others, by offset."""

    end: int
    patches: tuple[tuple[int, bytes], ...] = ()

    def apply(self, start: int, part: bytes) -> bytes:
        """Correct the part of the file that begins at an offset."""
        corrected = bytearray(part[: max(0, self.end - start)])
        for offset, patch in self.patches:
            for place in range(max(offset, start), min(offset + len(patch), start + len(corrected))):
                corrected[place - start] = patch[place - offset]
        return bytes(corrected)


def _actual_size(data: bytes, extent: Extent) -> Correction:
    """Replace the sizes in the header by the actual sizes; libsndfile would read no samples for a size of 0."""
    sizes = ((offset, layout, min(len(data) - base, LARGEST[layout])) for offset, layout, base in extent.fields)
    return Correction(len(data), tuple((offset, struct.pack(layout, size)) for offset, layout, size in sizes))


def size_correction(data: bytes, name: str, strict: bool) -> Correction | None:
    """Compare the size in the header with the actual size.

    A file is truncated if its header specifies more bytes than there are and nothing contradicts the header. Two
    facts contradict it: the size of the file, which RIFF, AIFF, W64 and RF64 specify in addition, is correct; or the
    size of the samples is exactly 2, 4 or 8 times the actual size (computed with another sample width).

    Args:
        data: The file.
        name: Name of the recording in messages.
        strict: Whether a wrong size is an error instead of a warning.

    Returns:
        What makes the file readable to its end; None if nothing has to be changed.

    Raises:
        AudioError: If the file is truncated, or if `strict` and its size is wrong.
    """
    extent = _extent(data)
    if extent is None:
        return None
    present = len(data) - extent.start
    missing = (extent.size or 0) - present
    if missing > SLACK or present <= 0 < missing:
        contradicted = extent.end is not None and extent.end - len(data) <= SLACK
        if present <= 0 or not (contradicted or extent.size in (2 * present, 4 * present, 8 * present)):
            raise AudioError(f"{name}: truncated, {missing} bytes are missing at its end; download it again")
    if missing > 0:
        warn_or_refuse(
            f"{name}: its header specifies {extent.size:,} bytes of samples, but the file holds {present:,}, all of "
            "which are read; if the recording ends early, download it again",
            strict,
        )
    if missing >= 0 or not extent.fields:
        return None
    if extent.size and extent.start + extent.size <= (extent.end or 0) < len(data) - SLACK:
        warn_or_refuse(f"{name}: {len(data) - extent.end:,} bytes after its end are not read", strict)
        return Correction(extent.end)
    after = extent.start + (extent.size or 0) + (extent.size or 0) % 2
    ends_here = extent.end is not None and abs(extent.end - len(data)) <= 1
    if ends_here and re.match(rb"[ -~]{4}", data[after : after + 4]):
        return None  # other chunks follow the samples
    if extent.size is None:
        return _actual_size(data, extent)
    if ends_here and missing < -SLACK:
        warn_or_refuse(f"{name}: its header omits {-missing} bytes at its end; they are read as samples", strict)
        return _actual_size(data, extent)
    return None


def check_size(data: bytes, name: str, strict: bool) -> bytes:
    """The file as it should be: with corrected sizes if the header omits samples; see `size_correction`."""
    correction = size_correction(data, name, strict)
    return data if correction is None else correction.apply(0, data)


def ogg_links(data: bytes, name: str, strict: bool) -> list[bytes]:
    """Split a chained Ogg file into its recordings; libsndfile reads only the first. Most files have one.

    An Ogg file is a sequence of pages. The first and the last page of a recording are marked.

    Args:
        data: The file.
        name: Name of the recording in messages.
        strict: Whether a missing last page is an error instead of a warning.

    Raises:
        AudioError: If a page is incomplete, or if `strict` and the last page is not marked.
    """
    position, starts, ended = 0, [0], False
    while data[position : position + 4] == b"OggS":
        segments = data[position + 27 : position + 27 + (data[position + 26] if position + 26 < len(data) else 255)]
        size = 27 + len(segments) + sum(segments)
        if position + 27 > len(data) or len(segments) < data[position + 26] or position + size > len(data):
            raise AudioError(f"{name}: truncated, its last page is incomplete; download it again")
        if ended and data[position + 5] & 2:
            starts.append(position)
        ended = bool(data[position + 5] & 4)
        position += size
    if not ended:
        warn_or_refuse(
            f"{name}: its last page is not marked as the last, so its end may be missing; the rest is read",
            strict,
        )
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def id3_size(data: bytes) -> int:
    """Size in bytes of the ID3v2 tag at the beginning of a file; 0 without a tag."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 127
    return size + 10


def _xing(data: bytes, start: int = 0) -> tuple[int | None, int | None]:
    """Number of frames and of bytes according to the Xing or Info header of an MP3; None where not specified."""
    match = re.search(rb"Xing|Info", data[start : start + 64])
    if not match or len(data) < start + match.end() + 12:
        return None, None
    flags, first, second = struct.unpack_from(">III", data, start + match.end())
    return (first if flags & 1 else None), (second if flags & 3 == 3 else first if flags & 2 else None)


def _mpeg_frame_size(data: bytes, position: int) -> int:
    """Size in bytes of the MPEG audio frame (layer II or III) at `position`; 0 if there is no frame."""
    if position + 4 > len(data) or data[position] != 0xFF or data[position + 1] < 0xE0:
        return 0
    version, layer = data[position + 1] >> 3 & 3, data[position + 1] >> 1 & 3
    bitrate, rate, padding = data[position + 2] >> 4, data[position + 2] >> 2 & 3, data[position + 2] >> 1 & 1
    if version == 1 or layer not in (1, 2) or bitrate in (0, 15) or rate == 3:
        return 0
    kilobits = MPEG_BITRATES[(3 - layer) if version == 3 else 0][bitrate - 1]
    hertz = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (72 if layer == 1 and version != 3 else 144) * kilobits * 1000 // hertz + padding


def _first_frame(data: bytes) -> int | None:
    """Offset of the first MPEG audio frame of layer III that another frame follows, or None."""
    start = first = id3_size(data)
    while 0 <= first < start + 2**16:
        size = _mpeg_frame_size(data, first)
        if size and _mpeg_frame_size(data, first + size):
            return first if data[first + 1] & 6 == 2 else None
        first = data.find(b"\xff", first + 1)
    return None


def with_sufficient_frame_count(data: bytes, name: str, strict: bool) -> bytes:
    """Prepend a header with a sufficient frame count to an MP3 whose header counts no or too few frames.

    libsndfile stops at the count of the header. Without a count it estimates the length from the first frame, and
    stops early at a variable bit rate or in a concatenation of two files.

    Args:
        data: The file.
        name: Name of the recording in messages.
        strict: Whether a wrong count or an incomplete last frame is an error instead of a warning.

    Raises:
        AudioError: If `strict` and the file is not as its header specifies.
    """
    first = _first_frame(data)
    if first is None or data[first + 36 : first + 40] == b"VBRI":
        return data
    counted, frames, position = _xing(data, first)[0], 0, first
    while (size := _mpeg_frame_size(data, position)) and position + size <= len(data):
        frames, position = frames + 1, position + size
    if counted and frames <= counted + 2:
        return data
    if counted:
        warn_or_refuse(
            f"{name}: its header counts {counted:,} frames, but the file holds {frames - 1:,}, all of which are read",
            strict,
        )
    elif size:
        warn_or_refuse(f"{name}: its last frame is incomplete, so its end may be missing; the rest is read", strict)
    [header] = struct.unpack_from(">I", data, first)
    header = struct.pack(">I", header & ~0xF200 | 0x1E000)  # no checksum, no padding, the largest frame
    mono, first_version = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
    side = (17 if mono else 32) if first_version else (9 if mono else 17)
    first_frame = header + bytes(side) + b"Xing" + struct.pack(">II", 1, len(data) // 24)  # no frame is smaller
    return first_frame.ljust(_mpeg_frame_size(header, 0), b"\0") + data[first:]


def check_decoded(data: bytes, format: str, expected: int, count: int, name: str, strict: bool) -> None:
    """Compare the number of decoded samples with that in the header of a FLAC or MP3 file.

    Args:
        data: The file.
        format: libsndfile's name of the format.
        expected: Number of samples according to libsndfile.
        count: Number of samples that were decoded.
        name: Name of the recording in messages.
        strict: Whether a wrong count is an error instead of a warning.

    Raises:
        AudioError: If the file is truncated, or if `strict` and its header is wrong.
    """
    missing = 0
    if format == "FLAC" and expected < 2**36:  # above: unknown length
        missing = expected - count
    elif format == "MP3":
        start = id3_size(data)
        frames, size = _xing(data, start)
        missing = expected - count - 2 * 1152 if frames else 0
        if missing > 0 and size and size <= len(data) - start + SLACK:
            message = f"{name}: its header counts {expected:,} samples, but the file holds {count:,}, which are read"
            return warn_or_refuse(message, strict)
    if missing > 0:
        raise AudioError(f"{name}: truncated, {count} of {expected} samples could be read; download it again")
    return None
