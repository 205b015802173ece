"""Similarity of clips with the same and with different emotions in each layer of an encoder (Xiang, Figure 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.files import write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import Heard, merged
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForXVector
from ..towers_gemoclap import load_complete_model
from .clips import EvaluationOptions
from .layers import LayerMeans, layer_means, starting_point
from .protocol_runs import clips_of_run, read_run
from .seen_speakers import is_control, refuse_seen_speakers
from .trained_folds import check_fold, folds_of, recorded_protocol

LAYERS = "layer_similarity.json"
PICTURE = "layer_similarity.png"
MOMENTS = ("before", "after")
KINDS = {
    "positive": "same emotion",
    "positive_across": "same emotion, different corpora",
    "negative": "different emotions",
}


def pair_sums(means: np.ndarray, emotions: list[str], corpora: list[int]) -> dict[str, tuple[np.ndarray, int]]:
    """Sums of the cosine similarities of all pairs of clips, by kind of pair.

    The pairs are not formed: for vectors `u` of unit length, the sum over the pairs of a group is
    `(|sum u|^2 - n) / 2`.

    Args:
        means: Mean frame of each clip in each layer, `(clips, layers, hidden_size)`.
        emotions: Emotion of each clip.
        corpora: Number of the corpus of each clip.

    Returns:
        For each kind of pair the sum in each layer, `(layers,)`, and the number of pairs.
    """
    units = means.astype(np.float64)
    units /= np.linalg.norm(units, axis=-1, keepdims=True).clip(1e-12)

    def within(groups: list) -> tuple[np.ndarray, int]:
        total, count = np.zeros(units.shape[1]), 0
        for group in sorted(set(groups)):
            members = units[[name == group for name in groups]]
            total += (np.square(members.sum(0)).sum(-1) - len(members)) / 2
            count += len(members) * (len(members) - 1) // 2
        return total, count

    all_pairs, same_emotion = within([0] * len(units)), within(emotions)
    same_corpus = within(list(zip(emotions, corpora, strict=True)))
    return {
        "positive": same_emotion,
        "positive_across": (same_emotion[0] - same_corpus[0], same_emotion[1] - same_corpus[1]),
        "negative": (all_pairs[0] - same_emotion[0], all_pairs[1] - same_emotion[1]),
    }


@dataclass
class _Sums:
    """Sums over pairs of clips, added up over the folds of a run.

    Args:
        sums: For each kind of pair the sum in each layer and the number of pairs.
        clips: Number of clips.
    """

    sums: dict[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    clips: int = 0

    def add(self, layers: LayerMeans, corpus: Corpus) -> None:
        """Add the pairs of clips of a corpus."""
        emotions, parts = corpus.column("emotion").to_pylist(), corpus.part_numbers()
        sums = pair_sums(layers.means, [emotions[row] for row in layers.rows], [parts[row] for row in layers.rows])
        for kind, (total, count) in sums.items():
            known = self.sums.get(kind, (np.zeros(len(total)), 0))
            self.sums[kind] = (known[0] + total, known[1] + count)
        self.clips += len(layers.rows)

    @property
    def pairs(self) -> dict[str, int]:
        """Number of pairs of each kind that occurs."""
        return {kind: count for kind, (_, count) in self.sums.items() if count}

    @property
    def means(self) -> dict[str, list[float]]:
        """Mean cosine similarity of each kind of pair in each layer."""
        return {kind: (self.sums[kind][0] / count).tolist() for kind, count in self.pairs.items()}


def checkpoints_of(root: Path, corpus: Corpus, allow_seen: bool) -> Iterator[tuple[Path, Corpus, Heard]]:
    """List the checkpoints to compare: a single one, or each fold of a run with its test clips.

    Args:
        root: A checkpoint, or a run of a protocol.
        corpus: The clips.
        allow_seen: Whether a single checkpoint may be evaluated on speakers that it was trained on.

    Yields:
        The folder of the checkpoint, its clips, and which of their speakers it was trained on.

    Raises:
        ValueError: If the training of a fold is not complete, or the fold belongs to another run.
        SeenSpeakersError: If a checkpoint was trained on test speakers and that is not allowed.
    """
    if not (root / "run.json").is_file():
        records = GEmoClapConfig.from_pretrained(root).training_data
        yield root, corpus, refuse_seen_speakers(corpus, records, allow_seen)
        return
    corpus, run = clips_of_run(root, corpus), read_run(root)
    for seed in run["protocols"]:
        protocol = recorded_protocol(run, seed)
        for fold in folds_of(root, protocol, int(seed)):
            check_fold(fold, run)
            clips = protocol.test(corpus, fold.number)
            records = GEmoClapConfig.from_pretrained(fold.folder).training_data
            yield fold.folder, clips, refuse_seen_speakers(clips, records, not protocol.speaker_independent)


def compare_layers(
    root: Path, corpus: Corpus, start: str | None = None, options: EvaluationOptions | None = None
) -> dict:
    """Mean cosine similarity of positive and negative pairs of clips in each layer, before and after training.

    Args:
        root: A checkpoint, or a run of a protocol, whose folds are pooled.
        corpus: The clips. Clips without an emotion are ignored.
        start: What the training started from; see `starting_point`.
        options: How clips are evaluated.

    Returns:
        A dict with `before` and `after`: for each kind of pair a list with one number for each layer; `pairs`; `clips`
        (over all seeds); `before_is`; `heard` (by either encoder); `control` (trained on shuffled labels); `skipped`.

    Raises:
        ValueError: If there are no pairs, or the two encoders have different numbers of layers.
    """
    options = options or EvaluationOptions()
    sums = {moment: _Sums() for moment in MOMENTS}
    skipped, heard, start_name, control = [], [], "", False
    for folder, clips, heard_by_trained in checkpoints_of(root, corpus, options.allow_seen_speakers):
        clips = clips.where("emotion", bool)
        config, extractor = (kind.from_pretrained(folder) for kind in (GEmoClapConfig, GEmoClapFeatureExtractor))
        extractor.check_window(config.audio_config)
        before = starting_point(config, start)
        start_name, control = before.name, control or is_control(config.training_data)
        # What the trained encoder may have heard, the other may have heard too.
        allow = options.allow_seen_speakers or bool(heard_by_trained.speakers)
        heard_before = refuse_seen_speakers(clips, before.training_data, allow, f"--before {start}")
        heard += [heard_by_trained, heard_before]
        for moment, model in (
            ("before", before.model),
            ("after", load_complete_model(GEmoClapForXVector, str(folder))),
        ):
            layers = layer_means(model, extractor, clips, options)
            sums[moment].add(layers, clips)
        skipped += layers.skipped
    _refuse_incomparable(sums, corpus, (start_name, root))
    return {
        **{moment: sums[moment].means for moment in MOMENTS},
        "pairs": sums["after"].pairs,
        "clips": sums["after"].clips,
        "before_is": start_name,
        "heard": merged(heard).to_dict(),
        "control": control,
        "skipped": skipped,
    }


def _refuse_incomparable(sums: dict[str, _Sums], corpus: Corpus, names: tuple) -> None:
    if not {"positive", "negative"} <= set(sums["after"].pairs):
        raise ValueError(
            f"{corpus.name}: there must be pairs of clips with the same emotion and with different emotions; give "
            f"more clips"
        )
    layers = [len(sums[moment].means["negative"]) - 1 for moment in MOMENTS]
    if layers[0] != layers[1]:
        raise ValueError(
            f"{names[0]} has {layers[0]} layers, but {names[1]} has {layers[1]}: give the encoder that the training "
            f"started from with --before"
        )


def write_layers(record: dict, folder: Path) -> str:
    """Write `layer_similarity.json` and `layer_similarity.png`.

    Args:
        record: Result of `compare_layers`, with further fields.
        folder: Folder for the files.

    Returns:
        The figures as a Markdown table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)  # an old picture must not remain beside new figures
    write_json(folder / LAYERS, record)
    _plot_layers(record, folder / PICTURE)
    columns = [(moment, kind) for moment in MOMENTS for kind in record[moment]]
    header = " | ".join(f"{moment}: {KINDS[kind]}" for moment, kind in columns)
    lines = [f"| layer | {header} |", f"|{'---|' * (len(columns) + 1)}"]
    for layer, values in enumerate(zip(*(record[moment][kind] for moment, kind in columns), strict=True)):
        lines.append(f"| {layer} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


def _plot_layers(record: dict, path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    titles = (f"before training: {record['before_is']}", "after training")
    for axes, moment, title in zip(figure.subplots(1, 2, sharey=True), MOMENTS, titles, strict=True):
        for kind, values in record[moment].items():
            axes.plot(range(len(values)), values, marker="o", markersize=3, label=KINDS[kind])
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer (0: input of the first layer)")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean cosine similarity of pairs")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
