"""Damages valid files: bits, cuts, copies and numbers anywhere, and the structure of chunks, tables and JSON."""

from __future__ import annotations

import json
import random
import struct

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = (2**33, 2**47, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff" * 8, b"..", b"/etc/passwd", b'"', b"'", b",", b";", b"\t", b"\n")
WORDS += (b"\r", b"nan", b"inf", b"-1", b"1e999", b"9" * 40, b"{}", b"[" * 200, b"%s%n", "\u202e\u0301".encode(), b"&a")
VALUES = (None, True, False, 0, 1, -1, 2**31, 2**63, 10**40, 1e308, 1e-320, -0.0, "", "x", "\0", "nan", [], {}, [[]])
VALUES += (float("nan"), float("inf"), -float("inf"), "9" * 5000, [None], {"": None}, 1e39, 1e-50, 1e9, "\ud800")


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


# ---- structure ------------------------------------------------------------------------------------------------------
def damage_chunks(data: bytes, dice: random.Random) -> bytes:
    """Damage a file of RIFF, AIFF or RF64 chunk by chunk: fields, sizes, copies, nesting and order."""
    order = ">" if data[:4] in (b"FORM", b"RIFX") else "<"
    chunks, position = [], 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from(f"{order}4sI", data, position)
        chunks.append([name, data[position + 8 : position + 8 + size], None])
        position += 8 + size + size % 2
    for _ in range(dice.choice((1, 1, 2, 3))):
        if not chunks:
            break
        at = dice.randrange(len(chunks))
        name, content, _size = chunks[at]
        kind = dice.randrange(8)
        if kind == 0:
            chunks.insert(dice.randrange(len(chunks) + 1), list(chunks[at]))
        elif kind == 1:
            del chunks[at]
        elif kind == 2:
            chunks[at][1] = b""
        elif kind == 3:
            chunks[at][2] = dice.choice((*NUMBERS, len(data), len(content) + dice.randrange(-3, 100))) % 2**32
        elif kind == 4:
            chunks[at] = [b"LIST", b"INFO" + struct.pack(f"{order}4sI", name, len(content)) + content, None]
        elif kind == 5:
            chunks[at][0] = dice.choice((b"LIST", b"fmt ", b"data", b"ds64", b"COMM", b"SSND", b"fact", b"\0\0\0\0", b"id3 "))
        elif kind == 6:
            dice.shuffle(chunks)
        else:
            chunks[at][1] = damage(content, dice, 40) if content else dice.randbytes(16)
    body = b"".join(
        name + struct.pack(f"{order}I", len(content) % 2**32 if size is None else size) + content + b"\0" * (len(content) % 2)
        for name, content, size in chunks
    )
    total = len(body) + 4 if dice.random() < 0.7 else dice.choice(NUMBERS)
    return (data[:4] + struct.pack(f"{order}I", total % 2**32) + data[8:12] + body)[: 2**20]


def damage_json(data: bytes, dice: random.Random) -> bytes:
    """Replace, remove, repeat or nest values of a JSON file; a fifth of the files are damaged as bytes instead."""
    if dice.random() < 0.2:
        return damage(data, dice)
    content = json.loads(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        content = _damaged_value(content, dice)
    text = json.dumps(content, ensure_ascii=dice.random() < 0.5)
    if dice.random() < 0.03:
        text = text.replace(":", ':{"a":' * dice.choice((50, 3000)), 1)
    if dice.random() < 0.05 and text.startswith('{"'):
        text = text[:-1] + ", " + text[1:]  # every key twice
    return text.encode(errors="surrogatepass")[: 2**20]


def _damaged_value(value, dice: random.Random):
    nested = isinstance(value, (dict, list)) and value
    if not nested or dice.random() < 0.1:
        return dice.choice((*VALUES, [value], {"a": value}, str(value), [value] * 3))
    value = dict(value) if isinstance(value, dict) else list(value)
    key = dice.choice(list(value) if isinstance(value, dict) else range(len(value)))
    kind = dice.random()
    if kind < 0.15:
        del value[key]
    elif kind < 0.25 and isinstance(value, dict):
        value[dice.choice((key + "x", key.upper(), "", "__class__", "auto_map"))] = value.pop(key)
    elif kind < 0.25:
        value.append(value[key])
    else:
        value[key] = _damaged_value(value[key], dice)
    return value
