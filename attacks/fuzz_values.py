"""Structured values drawn by hypothesis: labels, templates, settings and timelines."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

from attack import Attack
from fuzz_judge import BrokenPromise, judge

EXAMPLES, FEW = 600, 12


def draw_values(attack: Attack) -> None:
    """Draw values of all kinds."""
    if importlib.util.find_spec("hypothesis") is None:
        attack.figures["structured values"] = "hypothesis is not installed"
        return
    from fuzz_strategies import KINDS

    for kind, (strategy, run) in KINDS.items():
        try:
            _draw(attack, kind, strategy, run)
        except BrokenPromise as error:
            notes = " ".join(getattr(error, "__notes__", ()))
            attack.lost.append(f"{kind}: {error}; {notes}"[:500])


def _draw(attack: Attack, kind: str, strategy, run: Callable) -> None:
    from hypothesis import HealthCheck, given, seed, settings

    limits = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
    limits |= {"max_examples": FEW if attack.options.small else EXAMPLES, "report_multiple_bugs": False}

    @seed(attack.options.seed)
    @settings(**limits)
    @given(value=strategy)
    def draw(value) -> None:
        attack.tried[kind] += 1
        verdict, message, place = judge(lambda: run(value), ("",))
        if verdict == "broken":
            raise BrokenPromise(f"{place}: {message}")

    draw()


def in_file(name: str, text: str, read: Callable[[Path], object]) -> object:
    """Write a text to a temporary file and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return read(path)
