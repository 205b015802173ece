"""Damages the structure of files: chunks of RIFF and AIFF, and values of JSON."""

from __future__ import annotations

import json
import random
import struct

from fuzz_mutate import NUMBERS, damage

VALUES = (None, True, False, 0, 1, -1, 2**31, 2**63, 10**40, 1e308, 1e-320, -0.0, "", "x", "\0", "nan", [], {}, [[]])
VALUES += (float("nan"), float("inf"), -float("inf"), "9" * 5000, [None], {"": None}, 1e39, 1e-50, 1e9, "\ud800")


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
            chunks[at][0] = dice.choice(
                (b"LIST", b"fmt ", b"data", b"ds64", b"COMM", b"SSND", b"fact", b"\0\0\0\0", b"id3 ")
            )
        elif kind == 6:
            dice.shuffle(chunks)
        else:
            chunks[at][1] = damage(content, dice, 40) if content else dice.randbytes(16)
    body = b"".join(
        name
        + struct.pack(f"{order}I", len(content) % 2**32 if size is None else size)
        + content
        + b"\0" * (len(content) % 2)
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
