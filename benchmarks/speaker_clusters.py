"""Parts of the evidence: what clusters of speaker embeddings agree with, and pretraining on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from evidence_filters import start_title
from evidence_intervals import uar_interval
from evidence_record import cost_of, record_of, table_record
from evidence_runs import Runner
from harness import ROOT
from matplotlib.figure import Figure
from supcon import NO_CONTROL

from modeling_gemoclap.evaluation.comparison import compare_runs

DOCS = ROOT / "docs"
CLUSTERS, CURVE = DOCS / "speaker_clusters.png", DOCS / "label_efficiency.png"
SCRATCH = "scratch"


def rerun_speakers(part: dict, run: Runner) -> dict:
    """Pretrain on the clusters, fine-tune on growing shares of the labels, and analyse the clusters.

    Args:
        part: The plan's entry: both `configs`, the `unlabelled` corpora of the pretraining, `corpus`, `protocol`,
            `seeds`, the `tasks` of the pretraining and, by the share of the labels, the `epochs` of the fine-tuning;
            optionally `start`, the options of fine-tuning without pretraining; `evaluate`, more options of
            `evaluate.py`; `curve`, the name of the picture in docs/; `analyse: false`, which leaves out the analysis.
        run: Runs the programs.

    Returns:
        For each corpus what its clusters agree with, if not left out; the cost of each pretraining; for each start and
        share of the labels the record and its paired difference to the training without pretraining.
    """
    pretraining, finetuning = part["configs"]
    protocol = ["--protocol", part["protocol"], "--seeds", *part["seeds"]]
    both = ["--data_dir", *(f"CORPORA/{name}" for name in part["unlabelled"])]
    data = ["--data_dir", f"CORPORA/{part['corpus']}"]
    starts = {SCRATCH: part.get("start", [])}
    for task in part["tasks"]:
        task_options = ["--config", pretraining, "--speaker_task", task]
        run("train.py", *task_options, *both, *protocol, *NO_CONTROL, "--output_dir", run.folder / task)
        starts[task] = ["--init_from", run.folder / task]
    records = {start: {} for start in starts}
    for start, start_options in starts.items():
        for share, epochs in part["epochs"].items():
            folder, scratch = run.folder / f"{start}_{share}", run.folder / f"{SCRATCH}_{share}"
            train = ["--config", finetuning, *start_options, "--label_fraction", share, "--num_train_epochs", epochs]
            run.train_and_evaluate(folder, train, data, protocol, NO_CONTROL, part.get("evaluate", []))
            difference = None if start == SCRATCH else compare_runs(scratch, folder)
            records[start][str(share)] = table_record(record_of([folder])) | {"difference": difference}
    draw(records, DOCS / part["curve"] if "curve" in part else CURVE)
    cost = {task: cost_of([run.folder / task]) for task in part["tasks"]}
    clusters = {"clusters": _analysed(part["unlabelled"], run)} if part.get("analyse", True) else {}
    return clusters | {"pretraining": cost, "starts": records}


def rerun_clusters(part: dict, run: Runner) -> dict:
    """Analyse the clusters of each corpus, with their number chosen by silhouette and with as many as emotions.

    Args:
        part: The plan's entry: for each of the `corpora` its number of emotions.
        run: Runs the programs.

    Returns:
        For each corpus and number of clusters what they agree with.
    """
    analyses = {}
    for name, emotions in part["corpora"].items():
        chosen = {"by silhouette": [], f"{emotions}, as many as emotions": ["--speaker_clusters", emotions]}
        analyses[name] = {
            number: _analysis(name, run, run.folder / f"clusters_{name}{'_emotions' if options else ''}", options)
            for number, options in chosen.items()
        }
    return {"clusters": analyses}


def _analysed(corpora: list[str], run: Runner) -> dict:
    """What the clusters of each corpus agree with; the picture of the first goes to docs/."""
    analyses = {name: _analysis(name, run, run.folder / f"clusters_{name}") for name in corpora}
    shutil.copyfile(run.folder / f"clusters_{corpora[0]}" / "cluster_analysis.png", CLUSTERS)
    return analyses


def _analysis(corpus: str, run: Runner, folder: Path, more: list = ()) -> dict:
    """What the clusters of a corpus agree with."""
    options = ["--data_dir", f"CORPORA/{corpus}", "--output_dir", folder, "--overwrite_output", *more]
    run("evaluate.py", "--cluster_analysis", *options)
    analysis = json.loads((folder / "cluster_analysis.json").read_text(encoding="utf-8"))
    names = ("clips", "speakers", "clusters_of_a_speaker", "permutations", "notes")
    labels = {label: agreement and agreement["overall"] for label, agreement in analysis["labels"].items()}
    return {key: analysis[key] for key in names} | {"labels": labels}


def draw(starts: dict, path: Path) -> None:
    """Plot UAR by the share of the labels, a line for each start, with intervals over speakers."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (start, records) in enumerate(starts.items()):
        shares = [100 * float(share) for share in records]
        uar = [100 * record["uar"] for record in records.values()]
        bounds = [[100 * b for b in uar_interval(record) or 2 * [float("nan")]] for record in records.values()]
        below, above = zip(*((u - low, high - u) for u, (low, high) in zip(uar, bounds, strict=True)), strict=True)
        shifted = [share + number - (len(starts) - 1) / 2 for share in shares]  # error bars do not overlap
        axes.errorbar(shifted, uar, yerr=[below, above], marker="o", capsize=3, label=start_title(start))
    axes.set(xlabel="training labels (%)", ylabel="UAR (%), 95 % interval over speakers", xticks=shares)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
