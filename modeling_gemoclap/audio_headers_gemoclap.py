"""What the headers of audio files say of their length, and when a file is truncated.

docs/recordings.md states the rules in full.
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

SLACK = 64  # bytes, less than a header: what a size may be wrong by without a loss that is worth a refusal
MARGIN = 2**20  # sizes this close to 2**31 or 2**32 are what programs write that do not know the size
MPEG_BITRATES = (  # kilobits a second: MPEG-2 layers II and III, MPEG-1 layer II, MPEG-1 layer III
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
POINTERS = {  # what stands in their place when the content of files was not fetched
    b"version https://git-lfs": "a pointer of git-lfs, not the file itself; fetch it with: git lfs pull",
    b"/annex/objects/": "a pointer of git-annex, not the file itself; fetch it with: git annex get",
}


class AudioError(ValueError):
    """A recording cannot be used; the message names it, what is wrong, and what to do."""


def remark(message: str, strict: bool) -> None:
    """Warn of a recording that is read although something about it is wrong; refuse it if `strict`."""
    if strict:
        raise AudioError(f"{message} (strict)")
    logger.warning_once(message)


def words_of(error: Exception) -> str:
    """What an exception says in its first line, without addresses of objects."""
    words = getattr(error, "error_string", None) or str(error).strip() or type(error).__name__
    return re.sub(r"( at| @)? 0x[0-9a-fA-F]+", "", words.splitlines()[0]).rstrip(".")[:300]


def pointer_reason(data: bytes) -> str | None:
    """What is wrong with a file that begins with `data` if that is a pointer of git-lfs or git-annex, else None."""
    return next((reason for prefix, reason in POINTERS.items() if data.startswith(prefix)), None)


def refuse_pointers(folder: str) -> None:
    """Refuse a local checkpoint of which a file is a pointer; what is not a folder is passed over.

    Raises:
        ValueError: If there is one; it names the file and the command that fetches its content.
    """
    for path in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ():
        if path.is_file():
            with path.open("rb") as file:
                reason = pointer_reason(file.read(64))
            if reason:
                raise ValueError(f"{path}: {reason}")


class Extent(NamedTuple):
    """What a header says: the first byte of the samples, how many bytes they take, and where the file ends.

    None stands for what the header does not say. `fields` are the places of sizes, their layouts, and the bytes from
    which they count.
    """

    start: int
    size: int | None
    end: int | None = None
    fields: tuple[tuple[int, str, int], ...] = ()


def _known(size: int, bits: int = 32) -> int | None:
    """A size, or None for the placeholders of programs that write into a pipe."""
    if size <= 0 or (bits == 64 and size >= 2**48):
        return None
    near = abs(size - 2**31) <= MARGIN or size >= 2**32 - MARGIN
    return None if bits == 32 and near else size


def _chunks(data: bytes, position: int, layout: str, align: int, inclusive: int = 0) -> Iterator[tuple]:
    """`(id, position of the content, size)` of the chunks from `position` on."""
    width = struct.calcsize(layout)
    while position + width <= len(data):
        name, size = struct.unpack_from(layout, data, position)
        yield name, position + width, size - inclusive
        if size < inclusive:
            return
        position += width + size - inclusive
        position += -position % align


def _riff(data: bytes) -> Extent | None:
    """WAV and RF64, and AIFF, whose samples begin 8 bytes after their chunk."""
    aiff = data[:4] == b"FORM"
    order, wanted, skipped = (">", b"SSND", 8) if aiff else (">" if data[:4] == b"RIFX" else "<", b"data", 0)
    end, wide, fields = _known(struct.unpack_from(f"{order}I", data, 4)[0]), None, ()
    for name, start, size in islice(_chunks(data, 12, f"{order}4sI", 2), 10_000):
        if name == b"ds64" and data[:4] == b"RF64" and start + 16 <= len(data):
            end, wide = (_known(number, 64) or 0 for number in struct.unpack_from("<QQ", data, start))
            fields = ((start, "<Q", 8), (start + 8, "<Q", 0))
        elif name == wanted:
            size = _known(size) if wide is None else wide or None
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
    """SPHERE, as TIMIT and the LDC's corpora have it; what is compressed in it does not say its size."""
    header = data[: int(data[8:16].decode("ascii", "replace").strip())].decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\S+ (\S+)", header, re.M))
    factors = [int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes") if name in fields]
    if "," in fields.get("sample_coding", "") or len(factors) < 3:
        return None
    return Extent(len(header), factors[0] * factors[1] * factors[2])


def _extent(data: bytes) -> Extent | None:
    """What the header of a format that libsndfile would shorten in silence says; None: nothing, or another format."""
    try:
        if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM") and data[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
            return _riff(data)
        readers = {b".snd": _au, b"riff": _w64, b"caff": _caf, b"NIST": _nist}
        return readers[data[:4]](data) if data[:4] in readers else None
    except (struct.error, ValueError):
        return None  # cut within the header or nonsense: the decoder has the last word


def _with_size(data: bytes, extent: Extent) -> bytes:
    """The same file with the sizes of what is there; libsndfile takes 0 at its word, for example."""
    mended = bytearray(data)
    for place, layout, base in extent.fields:
        largest = 2 ** (8 * struct.calcsize(layout)) - 1
        struct.pack_into(layout, mended, place, min(len(data) - base, largest))
    return bytes(mended)


def check_size(data: bytes, name: str, strict: bool) -> bytes:
    """Compare a header's size with what is there; return the bytes, mended where the size leaves out samples.

    A file is truncated if its header promises more than there is and nothing contradicts the header. The size of the
    whole file, which RIFF, AIFF, W64 and RF64 have beside that of the samples, contradicts it where it is met; so does
    a size that is exactly 2, 4 or 8 times what is there (samples counted by another width).
    """
    extent = _extent(data)
    if extent is None:
        return data
    present = len(data) - extent.start
    missing = (extent.size or 0) - present
    if missing > SLACK or present <= 0 < missing:
        contradicted = extent.end is not None and extent.end - len(data) <= SLACK
        if present <= 0 or not (contradicted or extent.size in (2 * present, 4 * present, 8 * present)):
            raise AudioError(f"{name}: truncated, {missing} bytes are missing at its end; fetch it again")
    if missing > 0:
        remark(
            f"{name}: its header counts {extent.size:,} bytes of samples, {present:,} are there, and all of these are "
            "read; if the recording ends early, fetch it again",
            strict,
        )
    if missing >= 0 or not extent.fields:
        return data
    if extent.size and extent.start + extent.size <= (extent.end or 0) < len(data) - SLACK:
        remark(f"{name}: {len(data) - extent.end:,} bytes behind its end are not read", strict)
        return data[: extent.end]
    after = extent.start + (extent.size or 0) + (extent.size or 0) % 2
    ends_here = extent.end is not None and abs(extent.end - len(data)) <= 1
    if ends_here and re.match(rb"[ -~]{4}", data[after : after + 4]):
        return data  # other chunks follow the samples
    if extent.size is None:
        return _with_size(data, extent)
    if ends_here and missing < -SLACK:
        remark(f"{name}: its header leaves out {-missing} bytes at its end; they are read as samples", strict)
        return _with_size(data, extent)
    return data


def ogg_links(data: bytes, name: str, strict: bool) -> list[bytes]:
    """The recordings of which an Ogg file is a chain, one as a rule; libsndfile reads the first alone.

    An Ogg file is a row of pages; the last page of a recording is marked, and so is the first of the next.
    """
    position, starts, ended = 0, [0], False
    while data[position : position + 4] == b"OggS":
        segments = data[position + 27 : position + 27 + (data[position + 26] if position + 26 < len(data) else 255)]
        size = 27 + len(segments) + sum(segments)
        if position + 27 > len(data) or len(segments) < data[position + 26] or position + size > len(data):
            raise AudioError(f"{name}: truncated, its last page is not whole; fetch it again")
        if ended and data[position + 5] & 2:
            starts.append(position)
        ended = bool(data[position + 5] & 4)
        position += size
    if not ended:
        remark(
            f"{name}: its last page is not marked as the last, so its end may be missing; what is there is read",
            strict,
        )
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def after_id3(data: bytes) -> int:
    """Where what follows an ID3v2 tag begins."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 127
    return size + 10


def _xing(data: bytes, start: int = 0) -> tuple[int | None, int | None]:
    """How many frames and bytes an MP3's Xing or Info header counts; without one its length is an estimate."""
    found = re.search(rb"Xing|Info", data[start : start + 64])
    if not found or len(data) < start + found.end() + 12:
        return None, None
    flags, first, second = struct.unpack_from(">III", data, start + found.end())
    return (first if flags & 1 else None), (second if flags & 3 == 3 else first if flags & 2 else None)


def _mpeg_frame(data: bytes, position: int) -> int:
    """The length in bytes of the MPEG audio frame (layer II or III) that begins here; 0: none does."""
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
    """Where the first MPEG audio frame of layer III begins, which another one follows."""
    start = first = after_id3(data)
    while 0 <= first < start + 2**16:
        size = _mpeg_frame(data, first)
        if size and _mpeg_frame(data, first + size):
            return first if data[first + 1] & 6 == 2 else None
        first = data.find(b"\xff", first + 1)
    return None


def uncounted_mp3(data: bytes, name: str, strict: bool) -> bytes:
    """Put a header that promises more than enough before an MP3 whose own counts no or too few frames.

    libsndfile stops where the header says, or guesses the length by the first frame: in the midst of a variable bit
    rate, or behind the first of two files that were joined.
    """
    first = _first_frame(data)
    if first is None or data[first + 36 : first + 40] == b"VBRI":
        return data
    counted, frames, position = _xing(data, first)[0], 0, first
    while (size := _mpeg_frame(data, position)) and position + size <= len(data):
        frames, position = frames + 1, position + size
    if counted and frames <= counted + 2:
        return data
    if counted:
        remark(
            f"{name}: its header counts {counted:,} frames, {frames - 1:,} are there, all of which are read", strict
        )
    elif size:
        remark(f"{name}: its last frame is not whole, so its end may be missing; what is there is read", strict)
    [header] = struct.unpack_from(">I", data, first)
    header = struct.pack(">I", header & ~0xF200 | 0x1E000)  # no checksum, no padding, the largest frame
    mono, first_version = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
    side = (17 if mono else 32) if first_version else (9 if mono else 17)
    promise = header + bytes(side) + b"Xing" + struct.pack(">II", 1, len(data) // 24)  # no frame is smaller
    return promise.ljust(_mpeg_frame(header, 0), b"\0") + data[first:]


def check_decoded(data: bytes, format: str, promised: int, count: int, name: str, strict: bool) -> None:
    """Compare the frames that were decoded with those that FLAC, or an MP3's Xing header, counts."""
    short = 0
    if format == "FLAC" and promised < 2**36:  # longer: of unknown length
        short = promised - count
    elif format == "MP3":
        start = after_id3(data)
        frames, size = _xing(data, start)
        short = promised - count - 2 * 1152 if frames else 0
        if short > 0 and size and size <= len(data) - start + SLACK:
            return remark(f"{name}: its header counts {promised:,} samples, {count:,} are there and read", strict)
    if short > 0:
        raise AudioError(f"{name}: truncated, {count} of {promised} samples could be read; fetch it again")
    return None
