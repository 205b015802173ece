"""Figures of a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from .rejection import RiskCoverage
from .statistics import Predictions

FEWEST_POINTS = 8


@dataclass(frozen=True)
class EmbeddingFigures:
    """Data of the figures of embeddings, which are of a single checkpoint.

    Args:
        predictions: Predictions of the checkpoint.
        embeddings: Audio embeddings of the clips, `(clips, projection_dim)`.
        similarities: Mean cosine similarity between the clips of each emotion and each class text,
            `(labels, labels)`; None for a classifier.
        title: Name of these clips in the report.
    """

    predictions: Predictions
    embeddings: np.ndarray
    similarities: np.ndarray | None
    title: str


def draw(record: dict, folder: Path, figures: EmbeddingFigures, curve: RiskCoverage) -> list[tuple[str, str]]:
    """Draw all figures.

    Args:
        record: Content of `results.json`.
        folder: Folder for the PNGs.
        figures: Data of the figures of embeddings.
        curve: The risk-coverage curve of all predictions.

    Returns:
        File name and caption of each figure.
    """
    seeds = len(record.get("seeds", ()))
    captions = {"confusion_matrix.png": "Confusion matrix (rows: true emotions)"}
    captions["confusion_matrix.png"] += f", sum over {seeds} seeds" if seeds > 1 else ""
    plot_confusion(record, folder / "confusion_matrix.png")
    if record["fairness"]:
        _plot_fairness(record, folder / "fairness.png")
        captions["fairness.png"] = "UAR for women and for men"
    _plot_calibration(record, folder / "calibration.png")
    captions["calibration.png"] = "Reliability diagram: accuracy of predictions by their score"
    _plot_coverage(curve, folder / "coverage.png")
    captions["coverage.png"] = "Accuracy and UAR of the predictions that are kept, if low scores are rejected"
    if len(figures.predictions) >= FEWEST_POINTS:
        captions |= _plot_projections(figures, folder)
    if figures.similarities is not None:
        _plot_similarities(figures, folder / "similarity.png")
        captions["similarity.png"] = f"Mean cosine similarity between clips and class texts, {figures.title}"
    return list(captions.items())


def plot_confusion(record: dict, path: Path) -> None:
    """Draw the confusion matrix, coloured by the share of each true emotion, with per cent and counts.

    Args:
        record: Content of `results.json`.
        path: The PNG.
    """
    counts, labels = np.array(record["confusion"]), record["labels"]
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    figure, axes = _matrix_axes(labels, 0.8, "predicted emotion")
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        text = f"{100 * shares[row, column]:.0f}\n({counts[row, column]})"
        _write_cell(axes, (row, column), text, shares[row, column] > 0.55)
    title = f"{record['corpus']}: UAR {100 * record['uar']:.1f}, WAR {100 * record['war']:.1f} ({record['n']} clips)"
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="share of the true emotion", shrink=0.8)
    figure.savefig(path, dpi=150)


def _matrix_axes(labels: list[str], cell: float, across: str):
    """A figure with named rows (true emotions) and columns.

    Args:
        labels: Names of the rows and columns.
        cell: Size of a cell in inches.
        across: Label of the horizontal axis.
    """
    size = 2.2 + cell * len(labels)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(across)
    axes.set_ylabel("true emotion")
    return figure, axes


def _write_cell(axes, place: tuple[int, int], text: str, on_dark: bool) -> None:
    row, column = place
    axes.text(column, row, text, ha="center", va="center", color="white" if on_dark else "black", fontsize=8)


def _plot_similarities(figures: EmbeddingFigures, path: Path) -> None:
    values = figures.similarities
    figure, axes = _matrix_axes(figures.predictions.labels, 0.6, "class text")
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            _write_cell(axes, (row, column), f"{values[row, column]:.2f}", abs(values[row, column]) > 0.6)
    figure.colorbar(image, label="mean cosine similarity", shrink=0.8)
    figure.savefig(path, dpi=150)


def _plot_calibration(record: dict, path: Path) -> None:
    bins = record["calibration"]["bins"]
    confidence, accuracy, number = (
        np.array([entry[name] for entry in bins]) for name in ("confidence", "accuracy", "n")
    )
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect calibration")
    axes.plot(confidence, accuracy, color="tab:blue", zorder=1)
    label = "predictions (area: their number)"
    axes.scatter(confidence, accuracy, s=20 + 300 * number / number.sum(), label=label, zorder=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="highest score", ylabel="accuracy")
    axes.set_title(f"expected calibration error {100 * record['calibration']['ece']:.1f}", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def _plot_coverage(curve: RiskCoverage, path: Path) -> None:
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(100 * curve.coverage, 100 * curve.accuracy, color="tab:blue", label="accuracy")
    axes.plot(100 * curve.coverage, 100 * curve.uar, color="tab:orange", label="UAR")
    axes.axhline(100 * curve.accuracy[-1], color="0.6", linestyle="--", label="accuracy without rejection")
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="coverage: predictions that are kept, in %", ylabel="%")
    axes.set_title(f"area under the risk-coverage curve {100 * curve.aurc:.1f}", fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=150)


def _plot_fairness(record: dict, path: Path) -> None:
    fairness = record["fairness"]
    figure = Figure(figsize=(4.6, 2.4), layout="constrained")
    axes = figure.subplots()
    values = [100 * fairness["uar_male"], 100 * fairness["uar_female"]]
    bars = axes.barh(["men", "women"], values, color=["tab:orange", "tab:purple"])
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3)
    axes.axvline(100 / len(record["labels"]), color="0.5", linestyle=":", label="chance")
    axes.set(xlim=(0, 108), xlabel="UAR in %")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=150)


def _plot_projections(figures: EmbeddingFigures, folder: Path) -> dict[str, str]:
    """Draw the t-SNE projection of embeddings, coloured by emotion, gender and speaker; returns captions by file."""
    predictions = figures.predictions
    perplexity = min(30.0, (len(predictions) - 1) / 3)
    points = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(figures.embeddings)
    groups = {
        "emotion": np.array(predictions.labels)[predictions.truth],
        "gender": np.where(predictions.genders == "", "unknown", predictions.genders),
        "speaker": predictions.speakers,
    }
    captions = {}
    for name, values in groups.items():
        file_name = f"projection_{name}.png"
        _plot_points(points, values, folder / file_name, f"by {name}")
        captions[file_name] = f"Audio embeddings (t-SNE), {figures.title}, coloured by {name}"
    return captions


def _plot_points(points: np.ndarray, groups: np.ndarray, path: Path, title: str) -> None:
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes, names = figure.subplots(), sorted(set(groups))
    few = len(names) <= 10
    palette = colormaps["tab10" if few else "turbo"]
    for number, name in enumerate(names):
        colour = palette(number if few else number / (len(names) - 1))
        axes.scatter(*points[groups == name].T, s=14, color=colour, label=name, alpha=0.8, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.01))
    figure.savefig(path, dpi=150)
