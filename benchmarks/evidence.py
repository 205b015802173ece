"""Rerun parts of docs/evidence.md and docs/evidence_compact.md (a row, a table, ...) and write the documents.

    python benchmarks/evidence.py emodb-pair --system whisper_minilm --corpora CORPORA --output_dir runs/evidence

CORPORA is the folder with emodb/, ravdess/ and nemo/ (default: $GEMOCLAP_CORPORA). `--system` chooses the system of
rows (evidence.yaml); other parts have their own. An interrupted part continues when the same command is run again.
Without a name the documents are written from the JSON files in docs/evidence.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import speaker_clusters
import supcon
from evidence_cards import describe, write_cards
from evidence_checkpoints import rerun_checkpoint
from evidence_folds import corpora_of
from evidence_plan import CHECKPOINTS, MAIN, PLAN, SYSTEMS, part_of, record_name, system_of, training_options
from evidence_record import record_of
from evidence_runs import Runner
from evidence_tables import write_documents
from harness import EVIDENCE, ROOT, parser_of

from modeling_gemoclap.command_line.failures import run_main
from modeling_gemoclap.corpora.catalogue import where_to_get
from modeling_gemoclap.corpora.files import write_json
from modeling_gemoclap.evaluation.comparison import compare_runs
from modeling_gemoclap.runs.grid import cells_of, folder_of  # noqa: E402


def rerun_row(row: dict, run: Runner) -> dict:
    """Train and evaluate a row: all folds of a protocol, or a checkpoint for each seed on another corpus."""
    config = ["train.py", *training_options(run.system)]
    if "judge" not in row:
        if teacher := SYSTEMS[run.system].get("teacher"):
            folder = f"{run.folder}-teacher"
            command = ["train.py", *training_options(teacher), *row["train"], "--seeds", *row["seeds"]]
            run(*command, "--output_dir", folder)
            config += ["--distil_from", folder]
        run(*config, *row["train"], "--seeds", *row["seeds"], "--output_dir", run.folder)
        shared = [name for name in ("--data_dir", "--protocol", "--folds_file") if name in row["train"]]
        options = [word for name in shared for word in (name, row["train"][row["train"].index(name) + 1])]
        options += SYSTEMS[run.system].get("evaluate", [])
        run("evaluate.py", "--model", run.folder, *options, "--seeds", *row["seeds"])
        return record_of([run.folder], row.get("untouched")) | {"seeds": row["seeds"]}
    models = [run.folder / f"seed_{seed}" for seed in row["seeds"]]
    for seed, model in zip(row["seeds"], models, strict=True):
        command = [*config, *row["train"], "--seed", seed, "--output_dir", model, "--overwrite_output", "true"]
        run(*command, skip=(model / "README.md").is_file())
        run("evaluate.py", "--model", model, *row["judge"], "--output_dir", model / "results")
    return record_of(models) | {"seeds": row["seeds"]}


def rerun_table(table: dict, run: Runner) -> dict:
    """Train and evaluate every cell of a grid, and compare each with the first."""
    options = [*PLAN["options"], *table.get("train", [])]
    run("grid.py", "--config", table["grid"], *table["options"], "--output_dir", run.folder, "--", *options)
    _, cells = cells_of(str(ROOT / table["grid"]))
    folders = [run.folder / folder_of(cell) for cell in cells]
    records = []
    for cell, folder in zip(cells, folders, strict=True):
        difference = compare_runs(folders[0], folder) if folder != folders[0] else None
        record = record_of([folder], table.get("untouched"))
        records.append({"name": cell["name"], "difference": difference} | record)
    return {"cells": records}


PARTS = dict.fromkeys(PLAN["rows"], rerun_row) | dict.fromkeys(PLAN["tables"], rerun_table)
PARTS |= dict.fromkeys(CHECKPOINTS, rerun_checkpoint) | {"clusters": speaker_clusters.rerun_clusters}
PARTS |= dict.fromkeys(("supcon", "whisper-supcon", "whisper-supcon-three"), supcon.rerun_stages)
PARTS |= dict.fromkeys(("speakers", "whisper-speakers"), speaker_clusters.rerun_speakers)


def corpora_for(names: list[str], system: str | None = None) -> list[str]:
    """The names of the folders of the corpora that some parts need."""
    parts = [part_of(name, system) for name in names]
    needed = [corpora_of(part) or part.get("corpora", ["emodb", "ravdess"]) for part in parts]
    return sorted({corpus for corpora in needed for corpus in corpora})


def rerun(name: str, run: Runner) -> None:
    """Rerun a part, and store its record in docs/evidence."""
    part = part_of(name, run.system)
    title = {"title": part["title"]} if "title" in part else {}
    record = title | PARTS[name](part, run) | run.hashes
    record |= {"commands": run.commands, "wall_seconds": run.wall_seconds}
    path = EVIDENCE / f"{record_name(name, run.system)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    if not part.get("shipped", True):
        describe(run.folder / name, name)


def expanded_path(text: str) -> Path:
    """A path, with the home folder in place of `~`."""
    return Path(text).expanduser()


def main(argv: list[str]) -> None:
    """Rerun the named parts, and write the documents."""
    parser = parser_of(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--system", choices=list(SYSTEMS), help=f"system of rows (default: {MAIN})")
    parser.add_argument("--corpora", default=os.environ.get("GEMOCLAP_CORPORA"), type=expanded_path, help="see above")
    parser.add_argument("--output_dir", default=Path("runs/evidence"), type=expanded_path, help="folder of the runs")
    parser.add_argument("--overwrite", action="store_true", help="remove the folder of each part first")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.names) - set(PARTS)):
        parser.error(f"unknown part: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    systems = {name: system_of(name, options.system) for name in options.names}
    for corpus in corpora_for(options.names, options.system):
        if options.corpora is None or not (options.corpora / corpus).is_dir():
            place = options.corpora or "(which is not given, and $GEMOCLAP_CORPORA is not set)"
            sys.exit(f"evidence.py: no folder {corpus} in --corpora {place}{where_to_get(corpus)}")
    for name, system in systems.items():
        rerun(name, Runner(name, options.corpora.resolve(), options.output_dir, options.overwrite, system))
    write_documents()
    write_cards()


if __name__ == "__main__":
    run_main("evidence.py", main)
