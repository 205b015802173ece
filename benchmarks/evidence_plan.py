"""The plan in evidence.yaml: systems, rows and other parts, where their records are, and the hash of a recipe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import yaml
from harness import ROOT

from modeling_gemoclap.command_line.files import read_yaml, typed

PLAN = typed(read_yaml(Path(__file__).with_name("evidence.yaml")), keys=True)
SYSTEMS = PLAN["systems"]
MAIN, COMPACT = next(iter(SYSTEMS)), "compact"
CHECKPOINTS = PLAN["checkpoints"]
OTHER_PARTS = (*CHECKPOINTS, "supcon", "speakers")  # neither a row nor a grid
OTHER_PARTS += ("whisper-supcon", "whisper-supcon-three", "whisper-speakers", "clusters")
NOT_IN_RECIPE = ("title", "beside", "untouched", "system", "metric", "note", "card", "shipped")
NOT_IN_RECIPE += ("zeroshot",)  # an evaluation that was added later, which changes nothing else
CHECKPOINTS_FOLDER, MAX_BYTES = ROOT / "checkpoints", 48_000_000  # bytes of a shipped checkpoint


def system_of(name: str, system: str | None = None) -> str:
    """The system whose record a part is.

    Args:
        name: The part.
        system: The system of a row; None: the main one. Other parts have a system of their own.

    Raises:
        ValueError: If the system has no such row or part.
    """
    if name not in PLAN["rows"]:
        own = part_of(name).get("system", COMPACT)
        if system not in (None, own):
            raise ValueError(f"--system {system}: {name} is a part of {own}; leave --system out")
        return own
    system = system or MAIN
    if name not in SYSTEMS[system]["rows"]:
        raise ValueError(f"--system {system}: it has no row {name}; its rows are {', '.join(SYSTEMS[system]['rows'])}")
    return system


def part_of(name: str, system: str | None = None) -> dict:
    """The entry of a part; that of a row has what its system changes."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name] | {"words": PLAN["words"], "zeroshot": PLAN["zeroshot"]}
    if name not in PLAN["rows"]:
        return (PLAN | PLAN["tables"])[name]
    settings = SYSTEMS[system_of(name, system)]
    seeds = {"seeds": settings["seeds"]} if "seeds" in settings else {}
    return PLAN["rows"][name] | seeds | settings.get("changes", {}).get(name, {})


def shipped_checkpoints() -> dict[str, Path]:
    """The folders of the checkpoints that are shipped, by name."""
    return {name: CHECKPOINTS_FOLDER / name for name, entry in CHECKPOINTS.items() if entry.get("shipped", True)}


def record_name(name: str, system: str | None = None) -> str:
    """The name of a part's record in docs/evidence, as `evidence_record.load` takes it."""
    return f"{system_of(name, system)}/{name}"


def training_options(system: str) -> list:
    """The options of `train.py` that all rows of a system have."""
    settings = SYSTEMS[system]
    config = ["--config", settings["config"]] if "config" in settings else []
    return [*config, *settings.get("options", []), *PLAN["options"]]


def recipe_sha256(name: str, system: str | None = None) -> str:
    """Hash of everything that determines a part: its options, its grid and its configurations without comments.

    A part with `configs` of its own does not use the configuration of its system.
    """
    part, settings = part_of(name, system), SYSTEMS[system_of(name, system)]
    recipe = [PLAN["options"], {key: part[key] for key in part if key not in NOT_IN_RECIPE}]
    recipe += [settings["options"]] if "options" in settings else []
    taught_by = SYSTEMS[settings["teacher"]]["config"] if "teacher" in settings else None
    paths = {*part["configs"]} if "configs" in part else {settings.get("config"), taught_by, part.get("grid")} - {None}
    recipe += [yaml.safe_load((ROOT / path).read_text(encoding="utf-8")) for path in paths]
    return hashlib.sha256(json.dumps(sorted(map(str, recipe))).encode()).hexdigest()
