"""Damages bytes: bits, cuts, copies, numbers and words, at one to five places."""

from __future__ import annotations

import random
import struct

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = (2**33, 2**47, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff" * 8, b"..", b"/etc/passwd", b'"', b"'", b",", b";", b"\t", b"\n")
WORDS += (
    b"\r",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"9" * 40,
    b"{}",
    b"[" * 200,
    b"%s%n",
    "\u202e\u0301".encode(),
    b"&a",
)


def damage(data: bytes, dice: random.Random, header: int | None = None) -> bytes:
    """Damage bytes at one to five places.

    Args:
        data: The file.
        dice: The source of chance.
        header: Bytes at the start in which half of the damage is done; None: a tenth of the file, at least 64.
    """
    limit, data = max(2**20, 2 * len(data)), bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 5))):
        if not data:
            return bytes(dice.randbytes(dice.randrange(64)))
        size = min(len(data), (header or max(64, len(data) // 10)) if dice.random() < 0.5 else len(data))
        _DAMAGES[dice.randrange(len(_DAMAGES))](data, dice.randrange(size), dice)
    return bytes(data[:limit])


def _flip(data: bytearray, at: int, dice) -> None:
    data[at] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, at: int, dice) -> None:
    data[at] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))


def _number(data: bytearray, at: int, dice) -> None:
    layout = dice.choice(("<H", ">H", "<I", ">I", "<I", ">I", "<Q", ">Q", "<d", "<f"))
    at -= at % 2
    value = dice.choice((*NUMBERS, *LARGE, len(data), len(data) - 8, dice.randrange(2**16)))
    if layout[1] in "df":
        value = dice.choice((float("nan"), float("inf"), 1e300, -1.0, 1e-310)) if layout[1] == "d" else 1e38
        new = struct.pack(layout, value)
    else:
        new = struct.pack(layout, value % 2 ** (8 * struct.calcsize(layout)))
    data[at : at + len(new)] = new


def _cut(data: bytearray, at: int, dice) -> None:
    del data[at:]


def _remove(data: bytearray, at: int, dice) -> None:
    del data[at : at + dice.choice((1, 2, 4, 8, 64, 1000))]


def _copy(data: bytearray, at: int, dice) -> None:
    size = dice.choice((1, 4, 8, 24, 64, 512, len(data)))
    start = dice.randrange(len(data))
    data[at:at] = data[start : start + size]


def _noise(data: bytearray, at: int, dice) -> None:
    data[at : at + dice.choice((1, 4, 16, 100))] = dice.randbytes(dice.choice((1, 4, 16, 100)))


def _word(data: bytearray, at: int, dice) -> None:
    word = dice.choice(WORDS)
    data[at : at + dice.choice((0, len(word)))] = word


_DAMAGES = (_flip, _flip, _byte, _number, _number, _number, _cut, _remove, _copy, _noise, _word)
