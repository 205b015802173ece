"""The part `supcon` of docs/evidence.md: two stages of supervised contrast against direct fine-tuning."""

from __future__ import annotations

import json
import shutil

from evidence_markdown import change, markdown, percent, span, uar_interval
from evidence_record import cost_of, kept, record_of
from evidence_runs import ROOT, Runner

from modeling_gemoclap.evaluation.comparison import compare_runs

PICTURE = ROOT / "docs" / "layer_similarity.png"
TRAINED = {
    "direct": "direct fine-tuning",
    "two_stages": "two stages",
    "longer": "two stages, the second longer; added afterwards",
}


def rerun_stages(part: dict, run: Runner) -> dict:
    """Train both stages and the baseline on every fold, judge and compare them, and compare clips layer by layer.

    Args:
        part: The plan's entry: `corpora`, `protocol`, `seeds`, the three `configs`, and of a second stage that was
            added when the figures had been seen the options, `afterwards`.
        run: Runs the programs.

    Returns:
        For each corpus the records, with paired differences of UAR to direct fine-tuning; and the layer similarity.
    """
    first, second, direct = part["configs"]
    protocol = ["--protocol", part["protocol"], "--seeds", *part["seeds"]]
    common = [*protocol, "--control", "false", "--save_strategy", "no"]
    both = ["--data_dir", *(f"CORPORA/{name}" for name in part["corpora"])]
    stage1 = run.folder / "stage1"
    run("train.py", "--config", first, *both, *common, "--output_dir", stage1)
    found = {}
    for name in part["corpora"]:
        data = ["--data_dir", f"CORPORA/{name}"]
        trained = {
            "direct": ("--config", direct),
            "two_stages": ("--config", second, "--init_from", stage1),
            "longer": ("--config", second, "--init_from", stage1, *part["afterwards"]),
        }
        for kind, options in trained.items():
            folder = run.folder / f"{kind}_{name}"
            run("train.py", *options, *data, *common, "--output_dir", folder)
            run("evaluate.py", "--model", folder, *data, *protocol)
            trained[kind] = folder
        found[name] = {kind: kept(record_of([folder])) for kind, folder in trained.items()}
        for kind in ("two_stages", "longer"):
            found[name][kind]["difference"] = compare_runs(trained["direct"], trained[kind])
    layers = run.folder / "layer_similarity"
    run("evaluate.py", "--model", stage1, *both, "--layer_similarity", "--output_dir", layers, "--overwrite_output")
    shutil.copyfile(layers / "layer_similarity.png", PICTURE)
    similarity = json.loads((layers / "layer_similarity.json").read_text(encoding="utf-8"))
    names = ("before", "after", "pairs", "before_is")
    return {"corpora": found, "stage1": cost_of([stage1]), "layers": {name: similarity[name] for name in names}}


def table(found: dict) -> str:
    """Both ways on each corpus, and what of the layers' similarity the picture shows, in numbers."""
    lines = []
    for name, corpus in found["corpora"].items():
        for kind, words in TRAINED.items():
            one = corpus[kind]
            seeds = ", ".join(percent(seed["uar"]) for seed in one["per_seed"])
            line = [
                name,
                words,
                percent(one["uar"]),
                percent(one["war"]),
                span(uar_interval(one), one["speakers"]),
                seeds,
                change(one.get("difference")),
            ]
            lines.append([*line, str(one["trainings"]), f"{one['training_seconds'] / 60:.0f}"])
    lines.append(["both", "stage 1", *[""] * 5, str(found["stage1"]["trainings"])])
    lines[-1].append(f"{found['stage1']['training_seconds'] / 60:.0f}")
    head = "|trained|UAR|WAR|95 % interval|UAR of the seeds|UAR minus direct (interval)|trainings|minutes"
    layers, rows = found["layers"], []
    for kind, count in layers["pairs"].items():
        first, last = ([f"{layers[when][kind][layer]:.2f}" for when in ("before", "after")] for layer in (0, -1))
        rows.append([kind.replace("_", ", "), f"{count:,}", *first, *last])
    pairs = "pairs of clips|how many|first layer, before|after|last layer, before|after"
    return f"{markdown(head, lines)}\n\n{markdown(pairs, rows)}"
