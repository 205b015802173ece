"""The files of `security_bombs.py`: headers that claim much, and small files that expand to large ones."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from security_pickles import copy_checkpoint

RATE, LONG = 16000, 2**62
FORMATS = {"WAV": "PCM_16", "RF64": "PCM_16", "W64": "PCM_16", "AIFF": "PCM_16", "AU": "PCM_16", "CAF": "PCM_16"}
FORMATS |= {"FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}


def _sound(kind: str, seconds: float = 0.3) -> bytearray:
    file = io.BytesIO()
    wave = 0.1 * np.sin(np.arange(int(seconds * RATE)) / 5)
    soundfile.write(file, wave, RATE, format=kind, subtype=FORMATS[kind])
    return bytearray(file.getvalue())


def claims_of(kind: str) -> bytes:
    """A short recording whose header claims the largest number of samples or bytes that it can."""
    data = _sound(kind)
    if kind == "FLAC":  # 36 bits of the number of samples
        data[21] |= 0x0F
        data[22:26] = b"\xff\xff\xff\xfe"
    elif kind == "OGG":
        last = data.rindex(b"OggS")
        data[last + 6 : last + 14] = struct.pack("<q", LONG)
        data[last + 22 : last + 26] = bytes(4)
        data[last + 22 : last + 26] = struct.pack("<I", _checksum(data[last:]))
    elif kind == "MP3":
        place = re.search(rb"Xing|Info", data).end()
        data[place : place + 8] = struct.pack(">II", 1, 2**32 - 2)
    else:
        layout, place = {"AU": (">I", 8), "W64": ("<q", data.find(b"data\xf3") + 16)}.get(kind, ("<I", 0))
        layout, place = (">q", data.find(b"data") + 4) if kind == "CAF" else (layout, place)
        if kind in ("WAV", "AIFF"):
            layout, place = ("<I", data.find(b"data") + 4) if kind == "WAV" else (">I", data.find(b"SSND") + 4)
        if kind == "RF64":
            layout, place = "<Q", data.find(b"ds64") + 16
        struct.pack_into(layout, data, place, 4 * 10**9 if layout[1] == "I" else 2**47)
    return bytes(data)


def _checksum(page: bytes) -> int:
    """The checksum of a page of Ogg."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def silence(seconds: int) -> bytes:
    """Silence as FLAC, in a few kilobytes an hour."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, format="FLAC") as sound:
        for _ in range(seconds // 60):
            sound.write(np.zeros(60 * RATE, np.int16))
    return file.getvalue()


def npz(path: Path, shape: tuple, expanded: int) -> Path:
    """An `.npz` file whose array claims a shape, with so many bytes of compressed zeros."""
    header = io.BytesIO()
    names = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, names)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("file_name.npy", "embeddings.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(header.getvalue())
                for _ in range(expanded // 2**24):
                    member.write(bytes(2**24))
    return path


def write_shard(path: Path, rows: int) -> Path:
    """A shard of equal rows, which take no space."""
    path.parent.mkdir(parents=True)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), ["x"])
    names = ("emotion", "gender", "speaker_id", "file_name", "audio")
    pq.write_table(pa.table(dict.fromkeys(names, column)), path, compression="zstd", row_group_size=rows)
    return path


def checkpoint(folder: Path, name: str, content: bytes | str) -> Path:
    """A copy of an included checkpoint with another content of a file."""
    copy_checkpoint(folder)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder
