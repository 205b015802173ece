"""The tables of docs/reliability.md, from the records of the attacks and from what they found."""

from __future__ import annotations

import json
from dataclasses import dataclass

import yaml
from attack import FINDINGS, RECORDS, ROOT
from documents import render, with_blocks

PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Kind:
    """An attack: its title, and its share of the time."""

    title: str
    share: float


ATTACKS = {
    "crash": Kind("Crash and resume", 3),
    "fuzz": Kind("Bad files", 2.5),
    "numerics": Kind("Numbers", 2.5),
    "security": Kind("Security", 1.5),
    "versions": Kind("Versions", 2),
    "load": Kind("Load", 4),
    "determinism": Kind("Determinism", 2),
    "mutation": Kind("Mutation", 4),
}


def record_of(name: str) -> dict:
    """The record of the last complete run of an attack."""
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def findings_of(name: str) -> dict:
    """What an attack found: `mended` and `remaining`."""
    found = yaml.safe_load((FINDINGS / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    return {"mended": found.get("mended") or [], "remaining": found.get("remaining") or []}


def figure(value: float | int | str) -> str:
    """A figure with at most three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def block(name: str) -> str | None:
    """The block of the page with a name: `attacks` for the table of all, or the name of an attack."""
    if name == "attacks":
        rows = [(name, kind.title, record_of(name), findings_of(name)) for name, kind in ATTACKS.items()]
        return render("attacks", rows=rows)
    if name not in ATTACKS:
        return None
    return render("attack", record=record_of(name), found=findings_of(name), figure=figure)


def page() -> str:
    """The page with new blocks."""
    return with_blocks(PAGE.read_text(encoding="utf-8"), block)


def write_page() -> None:
    """Write the tables of docs/reliability.md anew."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write_page()
