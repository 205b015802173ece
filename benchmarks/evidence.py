"""Rerun a part of docs/evidence.md: a row, a table, the checkpoint or its words; what was found is written there anew.

    python benchmarks/evidence.py emodb-pair --corpora CORPORA --output_dir runs/evidence

CORPORA is the folder that holds emodb/ and ravdess/ (default: $GEMOCLAP_CORPORA). What was interrupted goes on where
it was. Without a name the documents alone are written again, from the JSON files in docs/evidence.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from evidence_markdown import FOUND
from evidence_record import record_of
from evidence_runs import PLAN, ROOT, Runner
from evidence_tables import CHECKPOINT, write_documents
from huggingface_hub import ModelCard

sys.path.insert(0, str(ROOT))
import speaker_clusters  # noqa: E402
import supcon  # noqa: E402
import words  # noqa: E402

from modeling_gemoclap.command_line.failures import run_main  # noqa: E402
from modeling_gemoclap.corpora.catalogue import where_to_get  # noqa: E402
from modeling_gemoclap.corpora.files import write_json  # noqa: E402
from modeling_gemoclap.evaluation.comparison import compare_runs  # noqa: E402
from modeling_gemoclap.runs import grid  # noqa: E402
from modeling_gemoclap.training.card import NO_RESULTS  # noqa: E402

CODE = sorted(path.name for path in (ROOT / "modeling_gemoclap").glob("*_gemoclap.py"))


def rerun_row(row: dict, run: Runner) -> dict:
    """Train and judge a row: all folds of a protocol, or seeds that are judged on another corpus."""
    config = ["train.py", "--config", PLAN["config"], *PLAN["options"]]
    if "judge" not in row:
        run(*config, *row["train"], "--seeds", *row["seeds"], "--output_dir", run.folder)
        kept = [name for name in ("--data_dir", "--protocol", "--folds_file") if name in row["train"]]
        options = [word for name in kept for word in (name, row["train"][row["train"].index(name) + 1])]
        run("evaluate.py", "--model", run.folder, *options, "--seeds", *row["seeds"])
        return record_of([run.folder], row.get("untouched"))
    models = [run.folder / f"seed_{seed}" for seed in row["seeds"]]
    for seed, model in zip(row["seeds"], models, strict=True):
        command = [*config, *row["train"], "--seed", seed, "--output_dir", model, "--overwrite_output", "true"]
        run(*command, skip=(model / "README.md").is_file())
        run("evaluate.py", "--model", model, *row["judge"], "--output_dir", model / "results")
    return record_of(models)


def rerun_table(table: dict, run: Runner) -> dict:
    """Train and judge every cell of a grid; the first is what the others are compared with."""
    more = [*PLAN["options"], *table.get("train", [])]
    run("grid.py", "--config", table["grid"], *table["options"], "--output_dir", run.folder, "--", *more)
    _, cells = grid.cells_of(str(ROOT / table["grid"]))
    folders = [run.folder / grid.folder_of(cell) for cell in cells]
    found = []
    for cell, folder in zip(cells, folders, strict=True):
        difference = compare_runs(folders[0], folder) if folder != folders[0] else None
        record = record_of([folder], table.get("untouched"))
        found.append({"name": cell["name"], "difference": difference} | record)
    return {"cells": found}


def ship(checkpoint: dict, run: Runner) -> dict:
    """Train the checkpoint, judge it, and put it where it is shipped from."""
    trained = run.folder / CHECKPOINT.name
    command = ["train.py", *checkpoint["train"], "--output_dir", trained, "--overwrite_output", "true"]
    run(*command, skip=(trained / "README.md").is_file())
    CHECKPOINT.mkdir(parents=True, exist_ok=True)
    for name in checkpoint["files"]:
        shutil.copyfile(trained / name, CHECKPOINT / name)
    for name in CODE:  # links: the code is that of the project, and cannot fall behind it
        (CHECKPOINT / name).unlink(missing_ok=True)
        (CHECKPOINT / name).symlink_to(Path("../..", "modeling_gemoclap", name))
    card = ModelCard.load(trained / "README.md")
    card.data.license, card.data.language = "apache-2.0", "de"
    card.text = card.text.replace(NO_RESULTS, "<!-- evidence: checkpoint -->\n<!-- end of evidence -->")
    card.save(CHECKPOINT / "README.md")
    judge = ["--model", CHECKPOINT.relative_to(ROOT), *checkpoint["judge"], "--output_dir", trained / "results"]
    run("evaluate.py", *judge, "--overwrite_output")
    shutil.copyfile(trained / "results/predictions.csv", FOUND / "checkpoint_predictions.csv")
    return record_of([trained])


def rerun(name: str, run: Runner) -> dict:
    """Rerun one part: what its JSON file says."""
    for parts, again in ((PLAN["rows"], rerun_row), (PLAN["tables"], rerun_table)):
        if name in parts:
            return {"title": parts[name]["title"]} | again(parts[name], run)
    if name == "checkpoint":
        return ship(PLAN["checkpoint"], run)
    for part, again in (("supcon", supcon.rerun_stages), ("speakers", speaker_clusters.rerun_speakers)):
        if name == part:
            return {"title": PLAN[part]["title"]} | again(PLAN[part], run)
    return words.measured(CHECKPOINT, run.corpora / "emodb", PLAN["words"])


def a_path(text: str) -> Path:
    """A path, with the home folder in place of `~`."""
    return Path(text).expanduser()


def main(argv: list[str]) -> None:
    """Rerun what is named, and write the documents."""
    names = [*PLAN["rows"], *PLAN["tables"], "checkpoint", "words", "supcon", "speakers"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--corpora", default=os.environ.get("GEMOCLAP_CORPORA"), type=a_path)
    parser.add_argument("--output_dir", default=Path("runs/evidence"), type=a_path)
    parser.add_argument("--overwrite", action="store_true", help="remove what another recipe left in the folders")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.names) - set(names)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(names)}")
    for corpus in ("emodb", "ravdess") if options.names else ():
        if options.corpora is None or not (options.corpora / corpus).is_dir():
            place = options.corpora or "(nor is $GEMOCLAP_CORPORA set)"
            sys.exit(f"evidence.py: no folder {corpus} in --corpora {place}{where_to_get(corpus)}")
    for name in options.names:
        run = Runner(name, options.corpora.resolve(), options.output_dir, options.overwrite)
        found = rerun(name, run)
        FOUND.mkdir(exist_ok=True)
        write_json(FOUND / f"{name}.json", found | run.made_of | {"commands": run.typed})
    write_documents(PLAN)


if __name__ == "__main__":
    run_main("evidence.py", main)
