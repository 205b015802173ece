"""What the tables of the evidence are written with."""

from __future__ import annotations

import json

from evidence_runs import ROOT

FOUND = ROOT / "docs" / "evidence"


def load(name: str) -> dict | None:
    """A JSON file of the evidence, or None where that part was not run."""
    path = FOUND / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def percent(value: float | None) -> str:
    """A share as per cent."""
    return "–" if value is None else f"{100 * value:.1f}"


def span(pair: list[float] | None, sign: str = "") -> str:
    """An interval of shares as per cent."""
    return "{0:{2}.1f} to {1:{2}.1f}".format(*(100 * value for value in pair), sign) if pair else "–"


def change(less: dict | None) -> str:
    """A paired difference with its interval, in points; nothing where there is none."""
    return f"{100 * less['difference']:+.1f} ({span(less['interval'], '+')})" if less else ""


def markdown(head: str, rows: list[list[str]]) -> str:
    """A table; `head` has its columns between bars."""
    lines = [columns := head.split("|"), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
