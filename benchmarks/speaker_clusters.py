"""The part `speakers` of docs/evidence.md: what speaker embeddings' clusters hold, and teach an encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from evidence_markdown import change, markdown, percent, span, uar_interval
from evidence_record import cost_of, kept, record_of
from evidence_runs import ROOT, Runner
from matplotlib.figure import Figure

from modeling_gemoclap.evaluation.cluster_analysis import MEASURES, cells_of
from modeling_gemoclap.evaluation.comparison import compare_runs

FIGURE_1, CURVE = ROOT / "docs" / "speaker_clusters.png", ROOT / "docs" / "label_efficiency.png"
SCRATCH = "scratch"


def rerun_speakers(part: dict, run: Runner) -> dict:
    """Analyse the clusters, pretrain on them in three ways, and fine-tune with more and more of the labels.

    Args:
        part: The plan's entry: both `configs`, the corpora heard without labels, `corpus`, `protocol`, `seeds`, the
            `tasks` of the pretraining and, by the share of the labels, the `epochs` of the fine-tuning.
        run: Runs the programs.

    Returns:
        For each corpus what its clusters agree with; what each pretraining cost; for each start and fraction the
        record, and its paired difference to the training from scratch.
    """
    pretraining, finetuning = part["configs"]
    protocol = ["--protocol", part["protocol"], "--seeds", *part["seeds"]]
    common = [*protocol, "--control", "false", "--save_strategy", "no"]
    both = ["--data_dir", *(f"CORPORA/{name}" for name in part["unlabelled"])]
    data = ["--data_dir", f"CORPORA/{part['corpus']}"]
    starts = {SCRATCH: []}
    for task in part["tasks"]:
        folder = run.folder / task
        run("train.py", "--config", pretraining, "--speaker_task", task, *both, *common, "--output_dir", folder)
        starts[task] = ["--init_from", folder]
    found = {start: {} for start in starts}
    for start, options in starts.items():
        for share, epochs in part["epochs"].items():
            folder = run.folder / f"{start}_{share}"
            few = [*options, "--label_fraction", share, "--num_train_epochs", epochs]
            run("train.py", "--config", finetuning, *few, *data, *common, "--output_dir", folder)
            run("evaluate.py", "--model", folder, *data, *protocol)
            record = record_of([folder])
            scratch = None if start == SCRATCH else compare_runs(run.folder / f"{SCRATCH}_{share}", folder)
            found[start][str(share)] = kept(record) | {"difference": scratch}
    draw(found, CURVE)
    cost = {task: cost_of([run.folder / task]) for task in part["tasks"]}
    return {"clusters": _analysed(part["unlabelled"], run), "pretraining": cost, "starts": found}


def _analysed(corpora: list[str], run: Runner) -> dict:
    found = {}
    for name in corpora:
        folder = run.folder / f"clusters_{name}"
        options = ["--data_dir", f"CORPORA/{name}", "--output_dir", folder, "--overwrite_output"]
        run("evaluate.py", "--cluster_analysis", *options)
        record = json.loads((folder / "cluster_analysis.json").read_text(encoding="utf-8"))
        names = ("clips", "speakers", "clusters_of_a_speaker", "permutations", "notes")
        labels = {label: one and one["overall"] for label, one in record["labels"].items()}
        found[name] = {key: record[key] for key in names} | {"labels": labels}
    shutil.copyfile(run.folder / f"clusters_{corpora[0]}" / "cluster_analysis.png", FIGURE_1)
    return found


def draw(starts: dict, path: Path) -> None:
    """The curve: UAR by the share of the labels, a line for each start, with intervals over speakers."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, (start, by_share) in enumerate(starts.items()):
        shares = [100 * float(share) for share in by_share]
        middle = [100 * one["uar"] for one in by_share.values()]
        bounds = [[100 * bound for bound in uar_interval(one) or 2 * [float("nan")]] for one in by_share.values()]
        below, above = zip(*((m - low, high - m) for m, (low, high) in zip(middle, bounds, strict=True)), strict=True)
        beside = [share + place - (len(starts) - 1) / 2 for share in shares]
        axes.errorbar(beside, middle, yerr=[below, above], marker="o", capsize=3, label=start)
    axes.set(xlabel="training labels (%)", ylabel="UAR (%), 95 % interval over speakers", xticks=shares)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def table(found: dict) -> str:
    """What the clusters agree with, beside chance; and each start, by the share of the labels."""
    rows = []
    for corpus, one in found["clusters"].items():
        for label, overall in one["labels"].items():
            rows.append([f"{corpus}, {label}", *cells_of(overall)])
    clusters = markdown("|".join(["clusters and", *MEASURES.values()]), rows)
    lines = []
    for start, by_share in found["starts"].items():
        cells, minutes = [], 0.0
        for one in by_share.values():
            figures = [
                f"{percent(one['uar'])} ({span(uar_interval(one), one['speakers'])})",
                change(one["difference"]),
            ]
            cells.append("; ".join(filter(None, figures)))
            minutes += one["training_seconds"] / 60
        minutes += found["pretraining"].get(start, {"training_seconds": 0})["training_seconds"] / 60
        lines.append([start, *cells, f"{minutes:.0f}"])
    shares = [f"{100 * float(share):.0f} % of the labels" for share in found["starts"][SCRATCH]]
    return f"{clusters}\n\n{markdown('|'.join(['start', *shares, 'minutes']), lines)}"
