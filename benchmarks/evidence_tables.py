"""The tables that documents quote from docs/evidence/*.json, between `evidence: NAME` and `end of evidence`."""

from __future__ import annotations

import json

import evidence_filters  # noqa: F401 (the templates need them)
from documents import percent, render, write_blocks
from evidence_plan import (
    CHECKPOINTS,
    COMPACT,
    MAIN,
    OTHER_PARTS,
    PLAN,
    SYSTEMS,
    part_of,
    record_name,
    system_of,
)
from evidence_record import load
from harness import ROOT

from modeling_gemoclap.evaluation.cluster_analysis import MEASURES

DOCUMENTS = ("README.md", "docs/evidence.md", "docs/evidence_compact.md")
DOCUMENTS += ("docs/supcon.md", "docs/speakers.md")
DEVELOPMENT = ROOT / "configs" / "folds" / "emodb_development.json"  # speakers that were used for choosing settings
NOT_RUN = "not run yet"
TEMPLATES = {"whisper-supcon": "supcon", "whisper-supcon-three": "supcon", "whisper-speakers": "speakers"}  # of parts
OF_ROWS = {  # templates of blocks that show many records, by the name of the block
    **{"systems": "systems", "paired": "paired", "runs": "runs", "commands": "commands", "sources": "sources"},
    **{"distilled": "distilled", "compact-rows": "rows", "compact-costs": "costs", "compact-commands": "commands"},
}


def records_of(names, system: str | None = None) -> dict[str, dict]:
    """The records of those parts that were run, by name; those of rows are of a system."""
    return {name: record for name in names if (record := load(record_name(name, system)))}


def rows_of(system: str) -> dict[str, dict]:
    """The records of a system's rows that were run, by name."""
    return records_of(SYSTEMS[system]["rows"], system)


def figure(row: str, system: str) -> str:
    """The figure of a row and a system: UAR or, where it is the main score, WAR; or why there is none."""
    if row not in SYSTEMS[system]["rows"]:
        return "–"
    part, record = part_of(row, system), rows_of(system).get(row)
    if record is None:
        return NOT_RUN
    note = f" ({part['note']})" if "note" in part else ""
    return percent(record[part.get("metric", "uar")]) + note


def baseline(row: str, features: str) -> str:
    """The UAR of openSMILE's functionals in a row; a dash where they cannot answer it."""
    metric = PLAN["rows"][row].get("metric", "uar")
    records = (load("opensmile") or {"rows": {}})["rows"].get(row, {})
    return percent(records[features][metric]) if features in records else "–"


def published(row: str) -> list[dict]:
    """The published figures that tables give beside a row."""
    return [model for model in PLAN["rows"][row].get("beside", []) if model.get("in_table", True)]


def comparisons(row: str) -> list[dict]:
    """Title, UAR and WAR of what a row is compared with: openSMILE's functionals, and published figures."""
    baselines = (load("opensmile") or {"rows": {}})["rows"].get(row, {})
    return [{"name": features} | figures for features, figures in baselines.items()] + published(row)


def parts_of(block_name: str) -> dict[str, dict]:
    """The records whose commands a document gives, by what names them."""
    others = [*PLAN["tables"], *OTHER_PARTS]
    if block_name == "compact-commands":
        return rows_of(COMPACT) | records_of([name for name in others if system_of(name) == COMPACT])
    systems = {
        f"{system}/{name}": record
        for system in SYSTEMS
        if system != COMPACT
        for name, record in rows_of(system).items()
    }
    others = [name for name in others if system_of(name) != COMPACT]
    return systems | {record_name(name): record for name, record in records_of(others).items()}


def block(name: str) -> str:
    """The content of a block; it says what was not run yet."""
    source = name.removesuffix("-words").removesuffix("-notes")  # of a checkpoint
    record = None if name in OF_ROWS else load(name if name == "corpora" else record_name(source))
    if name not in OF_ROWS and record is None:
        return f"Not run yet: `{source}`."
    templates = OF_ROWS | dict.fromkeys(PLAN["tables"], "grid") | dict.fromkeys(CHECKPOINTS, "checkpoint")
    templates |= {f"{checkpoint}-words": "words" for checkpoint in CHECKPOINTS}
    templates |= {f"{checkpoint}-notes": "checkpoint_notes" for checkpoint in CHECKPOINTS}
    return render(
        (templates | TEMPLATES).get(name, name),
        checkpoint=CHECKPOINTS.get(source),
        part=record,
        rows=rows_of(COMPACT),
        checkpoint_rows=rows_of(CHECKPOINTS[source]["system"]) if source in CHECKPOINTS else {},
        parts=parts_of(name),
        records={system: rows_of(system) for system in SYSTEMS},
        plan=PLAN,
        columns=[system for system, settings in SYSTEMS.items() if settings.get("column", True)],
        main=MAIN,
        compact=COMPACT,
        not_run=NOT_RUN,
        figure=figure,
        baseline=baseline,
        published=published,
        comparisons=comparisons,
        development=sorted(sum(json.loads(DEVELOPMENT.read_text(encoding="utf-8")), [])),
        measures=MEASURES,
    )


def write_documents() -> None:
    """Put the tables into the documents."""
    for name in DOCUMENTS:
        if (path := ROOT / name).is_file():
            write_blocks(path, block)
