"""What the clusters of speaker embeddings within each speaker agree with (Ulgen et al., Figure 1), and what not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, pairwise_distances, silhouette_score

from ..corpora.files import write_json
from ..corpora.manifest import Corpus
from ..corpora.protocols import genders_of
from ..objectives.speaker_clusters.clusters import Clusters

MEASURES = {
    "adjusted_rand": "adjusted Rand",
    "mutual_information": "mutual information",
    "purity": "purity",
    "silhouette": "silhouette of the labels",
}
PERMUTATIONS = 200
ANALYSIS = "cluster_analysis.json"
PICTURED = 4  # speakers in the picture
MOST_CLIPS, MOST_PICTURED = 1000, 300  # clips of a speaker that are compared, and pictured


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Share of the clips whose label is the most frequent one of their cluster.

    Args:
        labels: `(clips,)`, numbers from 0.
        clusters: `(clips,)`.
    """
    return float(sum(np.bincount(labels[clusters == one]).max() for one in np.unique(clusters)) / len(labels))


def agreement(labels: np.ndarray, clusters: np.ndarray, distances: np.ndarray) -> dict[str, float]:
    """How clusters agree with labels.

    Args:
        labels: What is compared with, `(clips,)`, numbers from 0, two or more.
        clusters: The clusters, `(clips,)`, two or more.
        distances: `(clips, clips)`, of the embeddings.

    Returns:
        Adjusted Rand index, normalised mutual information (by the arithmetic mean), purity, and the silhouette of
        the labels themselves in the space of the embeddings, in which the clusters have no part: NaN where every clip
        has a label of its own.
    """
    own = len(set(labels.tolist())) == len(labels)
    return {
        "adjusted_rand": float(adjusted_rand_score(labels, clusters)),
        "mutual_information": float(normalized_mutual_info_score(labels, clusters)),
        "purity": purity(labels, clusters),
        "silhouette": math.nan if own else float(silhouette_score(distances, labels, metric="precomputed")),
    }


def analyse(embeddings: np.ndarray, clusters: Clusters, corpus: Corpus, seed: int = 0) -> dict:
    """Agreement of the clusters with emotion, gender and sentence, each beside what permuted labels give.

    Labels are permuted within each speaker; a p-value is the share of permutations (and of the labels as they are)
    that agree at least as well. Overall figures are means over speakers, weighted by their clips, of those whose clips
    have two labels and two clusters or more. Of a speaker with very many clips some are drawn.

    Args:
        embeddings: `(clips, size)`, of unit length.
        clusters: Their clusters.
        corpus: The clips; a column `transcript` is the sentence, where there is one.
        seed: Of permutations and draws.

    Returns:
        `labels`: for emotion, gender and sentence the figures `overall` and by `speakers`, each measure with `value`,
        `chance` (the permutations' mean), `chance_95` (their 95th percentile) and `p`, or None where no speaker has
        two labels, as no speaker has two genders; and what the clusters are, their own silhouette among it.

    Raises:
        ValueError: If no speaker has two clusters, or there is nothing to compare them with.
    """
    genders_of(corpus)
    who = np.array(corpus.column("speaker_id").to_pylist())
    columns = {"emotion": "emotion", "gender": "gender", "sentence": "transcript"}
    columns = {name: column for name, column in columns.items() if column in corpus.clips.column_names}
    words = {name: np.array(corpus.column(column).to_pylist()) for name, column in columns.items()}
    speakers = [speaker for speaker, count in clusters.counts.items() if count > 1]
    if not speakers:
        raise ValueError(f"{corpus.name}: no speaker has clips for two clusters")
    generator, found, own = np.random.default_rng(seed), {name: {} for name in words}, {}
    for speaker in speakers:
        rows = np.flatnonzero((who == speaker) & (clusters.labels >= 0))
        rows = np.sort(generator.permutation(rows)[:MOST_CLIPS])
        distances = pairwise_distances(embeddings[rows])
        if len(set(clusters.labels[rows].tolist())) < 2:  # drawn from so many, the smaller cluster was missed
            continue
        own[speaker] = float(silhouette_score(distances, clusters.labels[rows], metric="precomputed"))
        for name, labels in words.items():
            known = np.flatnonzero(labels[rows] != "")
            several = [len(set(values[rows[known]].tolist())) > 1 for values in (labels, clusters.labels)]
            if all(several):
                among = distances[np.ix_(known, known)]
                found[name][speaker] = _permuted(labels[rows[known]], clusters.labels[rows[known]], among, generator)
    if not any(found.values()):
        raise ValueError(f"{corpus.name}: no speaker has two emotions or sentences, so there is nothing to compare")
    sizes, clips = [clusters.counts[speaker] for speaker in speakers], np.isin(who, speakers) & (clusters.labels >= 0)
    return {
        "labels": {name: _overall(by_speaker) if by_speaker else None for name, by_speaker in found.items()},
        "clips": int(clips.sum()),
        "speakers": len(speakers),
        "clusters_of_a_speaker": {"least": min(sizes), "mean": float(np.mean(sizes)), "most": max(sizes)},
        "silhouette_of_the_clusters": own,
        "permutations": PERMUTATIONS,
        "most_clips_of_a_speaker": MOST_CLIPS,
        "notes": clusters.notes,
    }


def _permuted(words: np.ndarray, clusters: np.ndarray, distances: np.ndarray, generator) -> dict:
    labels = np.unique(words, return_inverse=True)[1]
    chance = [agreement(generator.permutation(labels), clusters, distances) for _ in range(PERMUTATIONS)]
    return {
        "clips": len(words),
        "labels": len(set(labels.tolist())),
        "values": agreement(labels, clusters, distances),
        "chance": {name: [one[name] for one in chance] for name in MEASURES},
    }


def _overall(by_speaker: dict[str, dict]) -> dict:
    overall, speakers = {}, {speaker: {} for speaker in by_speaker}
    weights = np.array([one["clips"] for one in by_speaker.values()], float)
    for name in MEASURES:
        values = np.array([one["values"][name] for one in by_speaker.values()])
        chance = np.array([one["chance"][name] for one in by_speaker.values()])
        there = np.isfinite(values)
        shares = weights[there] / weights[there].sum() if there.any() else None
        overall[name] = _beside(shares @ values[there], shares @ chance[there]) if there.any() else None
        for speaker, value, own in zip(by_speaker, values, chance, strict=True):
            speakers[speaker][name] = _beside(value, own) if np.isfinite(value) else None
    for speaker, one in by_speaker.items():
        speakers[speaker] |= {"clips": one["clips"], "labels": one["labels"]}
    return {"overall": overall, "speakers": speakers}


def _beside(value: float, chance: np.ndarray) -> dict:
    as_good = 1 + int((chance >= value - 1e-12).sum())
    return {
        "value": float(value),
        "chance": float(chance.mean()),
        "chance_95": float(np.percentile(chance, 95)),
        "p": as_good / (1 + len(chance)),
    }


def as_table(record: dict) -> str:
    """The overall figures of what `analyse` found, as a Markdown table."""
    lines = [f"| | {' | '.join(MEASURES.values())} |", "|---|---|---|---|---|"]
    for name, found in record["labels"].items():
        lines.append(f"| {name} | {' | '.join(cells_of(found and found['overall']))} |")
    return "\n".join(lines)


def cells_of(overall: dict | None) -> list[str]:
    """The figures of one kind of label, overall, as cells of a table; None where there are none."""
    if overall is None:
        return ["not known, or one for each speaker", "–", "–", "–"]
    figures = [overall[measure] for measure in MEASURES]
    return [f"{one['value']:.3f} (chance {one['chance']:.3f}, p {one['p']:.3f})" if one else "–" for one in figures]


def write_analysis(record: dict, embeddings: np.ndarray, clusters: Clusters, corpus: Corpus, folder: Path) -> None:
    """Write `cluster_analysis.json` and `cluster_analysis.png`: t-SNE of some speakers, by emotion and by cluster.

    Args:
        record: What `analyse` found.
        embeddings: `(clips, size)`.
        clusters: Their clusters.
        corpus: The clips.
        folder: Where.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cluster_analysis.png").unlink(missing_ok=True)  # no old picture beside new numbers
    write_json(folder / ANALYSIS, record)
    who, emotions = (np.array(corpus.column(name).to_pylist()) for name in ("speaker_id", "emotion"))
    genders = genders_of(corpus)
    able = [speaker for speaker, count in clusters.counts.items() if count > 1]
    shown = [speaker for gender in ("female", "male", "") for speaker in able if genders[speaker] == gender]
    shown = sorted(shown[:: max(1, len(shown) // PICTURED)][:PICTURED])
    rows = np.concatenate([np.flatnonzero(who == speaker)[:MOST_PICTURED] for speaker in shown])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    points = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(embeddings[rows])
    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, values, title in zip(
        figure.subplots(1, 2), (emotions[rows], clusters.labels[rows].astype(str)), ("emotion", "cluster"), strict=True
    ):
        groups = np.array(
            [f"{speaker}_{value or 'unknown'}" for speaker, value in zip(who[rows], values, strict=True)]
        )
        names = sorted(set(groups))
        for number, name in enumerate(names):
            colour = colormaps["turbo"](number / max(1, len(names) - 1))
            axes.scatter(*points[groups == name].T, s=12, color=colour, label=name, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"speaker embeddings, by speaker and {title}", fontsize=10)
        axes.legend(fontsize=6, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.01))
    figure.savefig(folder / "cluster_analysis.png", dpi=150)
