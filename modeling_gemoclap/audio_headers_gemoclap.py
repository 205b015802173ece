"""What the headers of audio files say of their length, and when a file is truncated.

docs/recordings.md states the rules in full.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from transformers.utils import logging

logger = logging.get_logger(__name__)

SLACK = 64  # bytes, less than a header: what a size may be wrong by without a loss that is worth a refusal
MARGIN = 2**20  # sizes this close to 2**31 or 2**32 are what programs write that do not know the size
POINTERS = {b"version https://git-lfs": "git lfs pull", b"/annex/objects/": "git annex get"}


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


def pointer_command(data: bytes) -> str | None:
    """The command that fetches a file's content if `data` is a pointer to it (git-lfs, git-annex), else None."""
    return next((command for prefix, command in POINTERS.items() if data.startswith(prefix)), None)


class Extent(NamedTuple):
    """What a header says: the first byte of the samples, how many bytes they take, and where the file ends.

    None stands for what the header does not say; `field` is where a RIFF header has the size of its samples.
    """

    start: int
    size: int | None
    end: int | None = None
    field: int | None = None


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
    order = ">" if data[:4] in (b"RIFX", b"FORM") else "<"
    end = _known(struct.unpack_from(f"{order}I", data, 4)[0])
    end = end and end + 8
    wanted, skipped, wide = (b"SSND", 8, None) if data[:4] == b"FORM" else (b"data", 0, None)
    for name, start, size in islice(_chunks(data, 12, f"{order}4sI", 2), 10_000):
        if name == b"ds64" and data[:4] == b"RF64" and start + 16 <= len(data):
            end, wide = struct.unpack_from("<QQ", data, start)
            end = end + 8 if _known(end, 64) else None
        elif name == wanted:
            size = _known(size, 32) if wide is None else _known(wide, 64)
            return Extent(start + skipped, size and size - skipped, end, None if skipped or wide else start - 4)
    return Extent(len(data), 1, end) if end and end > len(data) else None


def _w64(data: bytes) -> Extent | None:
    for name, start, size in islice(_chunks(data, 40, "<16sq", 8, 24), 10_000):
        if name.startswith(b"data"):
            return Extent(start, _known(size, 64), _known(struct.unpack_from("<q", data, 16)[0], 64))
    return None


def _caf(data: bytes) -> Extent | None:
    for name, start, size in islice(_chunks(data, 8, ">4sq", 1), 10_000):
        if name == b"data":
            return Extent(start, _known(size, 64))
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
        if data[:4] == b".snd":
            return Extent(struct.unpack_from(">I", data, 4)[0], _known(struct.unpack_from(">I", data, 8)[0]))
        if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM") and data[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
            return _riff(data)
        readers = {b"riff": _w64, b"caff": _caf, b"NIST": _nist}
        return readers[data[:4]](data) if data[:4] in readers else None
    except (struct.error, ValueError):
        return None  # cut within the header or nonsense: the decoder has the last word


def check_size(data: bytes, name: str, strict: bool) -> bytes:
    """Compare a header's size with what is there; return the bytes, mended where the size was too small.

    A file is truncated if its header promises more than there is and nothing contradicts the header. The size of the
    whole file, which RIFF, AIFF, W64 and RF64 have beside that of the samples, contradicts it where it is met; so does
    a size that is exactly 2, 4 or 8 times what is there (samples counted by another width).
    """
    extent = _extent(data)
    if extent is None or extent.size is None:
        return data
    present = len(data) - extent.start
    missing = extent.size - present
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
    after = extent.start + extent.size + extent.size % 2
    unexplained = missing < -SLACK and not re.match(rb"[ -~]{4}", data[after : after + 4])
    if unexplained and extent.field and extent.end and abs(extent.end - len(data)) <= 1:
        remark(f"{name}: its header leaves out {-missing} bytes at its end; they are read as samples", strict)
        order = ">I" if data[:4] == b"RIFX" else "<I"
        return data[: extent.field] + struct.pack(order, present) + data[extent.start :]
    return data


def check_ogg(data: bytes, name: str, strict: bool) -> None:
    """An Ogg file is a row of pages, the last of which says that it is the last."""
    position, last = 0, False
    while data[position : position + 4] == b"OggS":
        segments = data[position + 27 : position + 27 + (data[position + 26] if position + 26 < len(data) else 255)]
        size = 27 + len(segments) + sum(segments)
        if position + 27 > len(data) or len(segments) < data[position + 26] or position + size > len(data):
            raise AudioError(f"{name}: truncated, its last page is not whole; fetch it again")
        last = bool(data[position + 5] & 4)
        position += size
    if not last:
        remark(
            f"{name}: its last page is not marked as the last, so its end may be missing; what is there is read",
            strict,
        )


def after_id3(data: bytes) -> int:
    """Where what follows an ID3v2 tag begins."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 127
    return size + 10


def _xing(data: bytes) -> tuple[int | None, int | None]:
    """How many frames and bytes an MP3's Xing or Info header counts; without one its length is an estimate."""
    start = after_id3(data)
    found = re.search(rb"Xing|Info", data[start : start + 64])
    if not found or len(data) < start + found.end() + 12:
        return None, None
    flags, first, second = struct.unpack_from(">III", data, start + found.end())
    return (first if flags & 1 else None), (second if flags & 3 == 3 else first if flags & 2 else None)


def check_decoded(data: bytes, format: str, promised: int, count: int, name: str, strict: bool) -> None:
    """Compare the frames that were decoded with those that FLAC, or an MP3's Xing header, counts."""
    short = 0
    if format == "FLAC" and promised < 2**36:  # longer: of unknown length
        short = promised - count
    elif format == "MP3":
        frames, size = _xing(data)
        short = promised - count - 2 * 1152 if frames else 0
        if short > 0 and size and size <= len(data) - after_id3(data) + SLACK:
            return remark(
                f"{name}: its header counts {promised:,} samples and {count:,} are there, all of which are read",
                strict,
            )
    if short > 0:
        raise AudioError(f"{name}: truncated, {count} of {promised} samples could be read; fetch it again")
    return None
