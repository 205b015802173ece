"""The files that an evaluation leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from matplotlib.figure import Figure

from ..corpora.manifest import Corpus
from .answers import Evaluation


def results_record(evaluation: Evaluation, corpus: Corpus, model: str, command: str) -> dict:
    """Everything that `results.json` says.

    Args:
        evaluation: The answers.
        corpus: The clips they are about.
        model: Name or path of the checkpoint.
        command: The command that made them.

    Returns:
        A dict that JSON can hold.
    """
    protocol = f"{evaluation.method}; "
    if evaluation.seen:
        protocol += f"NOT speaker-independent: trained on speakers {', '.join(evaluation.seen)}"
    else:
        protocol += f"speaker-independent: {len(corpus.speakers)} speakers of {corpus.name} that it was not trained on"
    return evaluation.metrics() | {
        "n": len(evaluation.rows),
        "protocol": protocol,
        "labels": evaluation.labels,
        "confusion": evaluation.confusion(),
        "model": model,
        "corpus": corpus.name,
        "speakers": corpus.speakers,
        "seen_speakers": evaluation.seen,
        "manifest_sha256": corpus.manifest_sha256,
        "skipped": evaluation.skipped,
        "command": command,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def as_table(record: dict) -> str:
    """WAR, UAR and recall by emotion as a Markdown table."""
    names = ["WAR", "UAR", *record["recall"]]
    values = [record["war"], record["uar"], *record["recall"].values()]
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n"
    return head + f"| {' | '.join(f'{100 * value:.1f}' for value in values)} |"


def plot_confusion(record: dict, path: Path) -> None:
    """Draw the confusion matrix: shares of each true emotion as colour and per cent, with counts below."""
    counts = np.array(record["confusion"])
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    labels = record["labels"]
    size = 2.2 + 0.8 * len(labels)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        text = f"{100 * shares[row, column]:.0f}\n({counts[row, column]})"
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    title = f"{record['corpus']}: UAR {100 * record['uar']:.1f}, WAR {100 * record['war']:.1f} ({record['n']} clips)"
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="share of the true emotion", shrink=0.8)
    figure.savefig(path, dpi=150)


def write_report(record: dict, evaluation: Evaluation, output_dir: Path) -> None:
    """Write `results.json`, `predictions.csv` and `confusion_matrix.png`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    plot_confusion(record, output_dir / "confusion_matrix.png")
    with open(output_dir / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(evaluation.rows[0]))
        writer.writeheader()
        writer.writerows(evaluation.rows)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (output_dir / "results.json").write_text(text + "\n", encoding="utf-8")
