"""Diarisations, and what must hold for damaged ones."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np
from fuzz_audio import RATE, wave
from fuzz_judge import BrokenPromise
from fuzz_mutate import damage
from fuzz_tables import CELLS

RTTM = """;; a comment
SPEAKER clip 1 0.00 0.50 <NA> <NA> anna <NA> <NA>
SPEAKER clip 1 0.40 0.60 <NA> <NA> ben <NA> <NA>
NON-SPEECH clip 1 1.0 0.2 <NA> noise <NA> <NA> <NA>
SPEAKER clip 1 1.00 1e-3 <NA> <NA> anna <NA> <NA>
"""
TIMES = ("0", "1e308", "1e12", "-1", "nan", "inf", "1e-300", "0x10", "1_0", "٣", "1,5", "9" * 400, "1e9", "4e5", "")


def seeds() -> list[bytes]:
    """A valid diarisation."""
    return [RTTM.encode()]


def damage_rttm(data: bytes, dice: random.Random) -> bytes:
    """Damage the bytes of a diarisation, or the fields of its lines."""
    if dice.random() < 0.4:
        return damage(data, dice)
    lines = [line.split(" ") for line in data.decode().splitlines()]
    for _ in range(dice.choice((1, 1, 2, 3))):
        line = dice.choice(lines)
        line[dice.randrange(len(line))] = dice.choice((*TIMES, *CELLS[:11], "SPEAKER"))
        if dice.random() < 0.2:
            lines.append(list(line))
    return "\n".join(map(" ".join, lines)).encode(dice.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))


@functools.cache
def _second() -> dict:
    return {"array": wave(1.2, 1)[:, 0], "sampling_rate": RATE}


def read_diarisation(path: Path) -> None:
    """Read a diarisation, and cut a recording of 1.2 s into the clips of its turns.

    Raises:
        BrokenPromise: If there are no turns, or a time is not finite.
    """
    from modeling_gemoclap import AudioError
    from modeling_gemoclap.inference import turns as module

    turns = module.read_rttm(path, "clip.wav")
    if not turns or not all(np.isfinite([turn.start, turn.end]).all() for turn in turns):
        raise BrokenPromise(f"turns {turns[:3]}")
    try:
        parts = module._split(turns, RATE, 30.0)
        for part, clip in module._clips(module.waves(_second(), RATE, None), parts, turns, RATE):
            if len(clip) > part.end - part.start:
                raise BrokenPromise(f"a clip of {len(clip)} samples for {part}")
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
