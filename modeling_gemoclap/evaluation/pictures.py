"""The pictures of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from .statistics import Judged

FEWEST_POINTS = 8


def draw(
    record: dict, folder: Path, judged: Judged, embeddings: np.ndarray, similarities: np.ndarray | None, title: str
) -> list[tuple[str, str]]:
    """Draw everything.

    Args:
        record: What `results.json` says.
        folder: Where the PNGs go.
        judged: Clips of one checkpoint, for the projections.
        embeddings: Their audio embeddings, `(clips, size)`.
        similarities: Mean cosine of each true emotion's clips to each class text, `(labels, labels)`; or None.
        title: Which clips and checkpoint these are.

    Returns:
        Names of the files and what they show.
    """
    summed = f", answers of {len(record['seeds'])} seeds together" if len(record.get("seeds", ())) > 1 else ""
    made = [("confusion_matrix.png", f"Confusion matrix: rows are true emotions{summed}")]
    plot_confusion(record, folder / "confusion_matrix.png")
    if record["fairness"]:
        _fairness(record, folder / "fairness.png")
        made.append(("fairness.png", "UAR for women and men"))
    _calibration(record, folder / "calibration.png")
    made.append(("calibration.png", "Reliability: how often answers of a score are right"))
    if len(judged) >= FEWEST_POINTS:
        points = TSNE(perplexity=min(30.0, (len(judged) - 1) / 3), random_state=0, init="pca").fit_transform(
            embeddings
        )
        colours = {
            "emotion": np.array(judged.labels)[judged.truth],
            "gender": np.where(judged.genders == "", "unknown", judged.genders),
            "speaker": judged.speakers,
        }
        for name, groups in colours.items():
            _scatter(points, groups, folder / f"projection_{name}.png", f"by {name}")
            made.append((f"projection_{name}.png", f"Audio embeddings (t-SNE), {title}, coloured by {name}"))
    if similarities is not None:
        _matrix(similarities, judged.labels, folder / "similarity.png")
        made.append(("similarity.png", f"Mean cosine of clips to class texts, {title}"))
    return made


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
    _name_axes(axes, labels, "predicted")
    title = f"{record['corpus']}: UAR {100 * record['uar']:.1f}, WAR {100 * record['war']:.1f} ({record['n']} clips)"
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="share of the true emotion", shrink=0.8)
    figure.savefig(path, dpi=150)


def _name_axes(axes, labels: list[str], across: str) -> None:
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(across)
    axes.set_ylabel("true")


def _calibration(record: dict, path: Path) -> None:
    bins = record["calibration"]["bins"]
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="as it should be")
    confidence, accuracy, number = (np.array([one[name] for one in bins]) for name in ("confidence", "accuracy", "n"))
    axes.plot(confidence, accuracy, color="tab:blue", zorder=1)
    axes.scatter(confidence, accuracy, s=20 + 300 * number / number.sum(), label="answers (area: how many)", zorder=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="best score", ylabel="share that is right")
    axes.set_title(f"expected calibration error {100 * record['calibration']['ece']:.1f}", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def _fairness(record: dict, path: Path) -> None:
    fair = record["fairness"]
    figure = Figure(figsize=(4.6, 2.4), layout="constrained")
    axes = figure.subplots()
    values = [100 * fair["uar_male"], 100 * fair["uar_female"]]
    bars = axes.barh(["men", "women"], values, color=["tab:orange", "tab:purple"])
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3)
    axes.axvline(100 / len(record["labels"]), color="0.5", linestyle=":", label="chance")
    axes.set(xlim=(0, 108), xlabel="UAR")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=150)


def _scatter(points: np.ndarray, groups: np.ndarray, path: Path, title: str) -> None:
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes, names = figure.subplots(), sorted(set(groups))
    palette = colormaps["tab10" if len(names) <= 10 else "turbo"]
    for index, name in enumerate(names):
        colour = palette(index) if len(names) <= 10 else palette(index / (len(names) - 1))
        axes.scatter(*points[groups == name].T, s=14, color=colour, label=name, alpha=0.8, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.01))
    figure.savefig(path, dpi=150)


def _matrix(values: np.ndarray, labels: list[str], path: Path) -> None:
    size = 2.2 + 0.6 * len(labels)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            colour = "white" if abs(values[row, column]) > 0.6 else "black"
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    _name_axes(axes, labels, "class text")
    figure.colorbar(image, label="mean cosine", shrink=0.8)
    figure.savefig(path, dpi=150)
