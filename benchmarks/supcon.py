"""Parts of the evidence: two stages of supervised contrast against direct fine-tuning."""

from __future__ import annotations

import json
import shutil

from evidence_record import cost_of, record_of, table_record
from evidence_runs import Runner
from harness import ROOT

from modeling_gemoclap.evaluation.comparison import compare_runs

PICTURE = ROOT / "docs" / "layer_similarity.png"
NO_CONTROL = ("--control", "false", "--save_strategy", "no")


def rerun_stages(part: dict, run: Runner) -> dict:
    """Train both stages and the baseline on every fold, evaluate and compare them, and compare clips layer by layer.

    Args:
        part: The plan's entry: `corpora`, `protocol`, `seeds` and the three `configs`; optionally more options of the
            first stage in `first_stage`; in `afterwards` the options of a longer second stage, which was added after
            the other results were known; `layers: false` leaves out the similarity by layer; `evaluate` has more
            options of `evaluate.py`.
        run: Runs the programs.

    Returns:
        For each corpus the records, with paired differences of UAR to direct fine-tuning, the cost of the first stage,
        and the similarity by layer, if it is not left out.
    """
    first, second, direct = part["configs"]
    protocol = ["--protocol", part["protocol"], "--seeds", *part["seeds"]]
    both = ["--data_dir", *(f"CORPORA/{name}" for name in part["corpora"])]
    stage1 = run.folder / "stage1"
    more = [*part.get("first_stage", []), *NO_CONTROL]
    run("train.py", "--config", first, *both, *protocol, *more, "--output_dir", stage1)
    trainings = {
        "direct": ["--config", direct],
        "two_stages": ["--config", second, "--init_from", stage1],
    }
    if "afterwards" in part:
        trainings["longer"] = [*trainings["two_stages"], *part["afterwards"]]
    evaluate = part.get("evaluate", [])
    records = {}
    for name in part["corpora"]:
        folders = {kind: run.folder / f"{kind}_{name}" for kind in trainings}
        for kind, options in trainings.items():
            data = ["--data_dir", f"CORPORA/{name}"]
            run.train_and_evaluate(folders[kind], options, data, protocol, NO_CONTROL, evaluate)
        records[name] = {kind: table_record(record_of([folder])) for kind, folder in folders.items()}
        for kind in [kind for kind in trainings if kind != "direct"]:
            records[name][kind]["difference"] = compare_runs(folders["direct"], folders[kind])
    layers = {"layers": _layers(run, stage1, both)} if part.get("layers", True) else {}
    return {"corpora": records, "stage1": cost_of([stage1])} | layers


def _layers(run: Runner, stage1, data: list[str]) -> dict:
    """Similarity of clips by layer before and after the first stage; the picture goes to docs/."""
    folder = run.folder / "layer_similarity"
    run("evaluate.py", "--model", stage1, *data, "--layer_similarity", "--output_dir", folder, "--overwrite_output")
    shutil.copyfile(folder / "layer_similarity.png", PICTURE)
    similarity = json.loads((folder / "layer_similarity.json").read_text(encoding="utf-8"))
    return {name: similarity[name] for name in ("before", "after", "pairs", "before_is")}
