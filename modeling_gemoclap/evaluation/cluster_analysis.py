"""Agreement of the clusters of speaker embeddings within each speaker with other labels (Ulgen et al., Figure 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
COLUMNS = {"emotion": "emotion", "gender": "gender", "sentence": "transcript"}  # labels, and their column in a corpus
PERMUTATIONS = 200
ANALYSIS = "cluster_analysis.json"
PICTURE = "cluster_analysis.png"
PICTURED = 4  # speakers in the picture
MOST_CLIPS, MOST_PICTURED = 1000, 300  # clips of a speaker that are compared, and drawn


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Share of clips whose label is the most frequent label of their cluster.

    Args:
        labels: Labels as numbers from 0, `(clips,)`.
        clusters: Cluster of each clip, `(clips,)`.
    """
    most_frequent = sum(np.bincount(labels[clusters == cluster]).max() for cluster in np.unique(clusters))
    return float(most_frequent / len(labels))


def agreement(labels: np.ndarray, clusters: np.ndarray, distances: np.ndarray) -> dict[str, float]:
    """Agreement of clusters with labels.

    Args:
        labels: Labels as numbers from 0, at least two different ones, `(clips,)`.
        clusters: Cluster of each clip, at least two, `(clips,)`.
        distances: Distances between the embeddings, `(clips, clips)`.

    Returns:
        Adjusted Rand index, normalised mutual information (arithmetic mean), purity, and the silhouette of the labels
        in the space of the embeddings. The silhouette does not depend on the clusters; it is NaN if every clip has a
        different label.
    """
    all_different = len(set(labels.tolist())) == len(labels)
    return {
        "adjusted_rand": float(adjusted_rand_score(labels, clusters)),
        "mutual_information": float(normalized_mutual_info_score(labels, clusters)),
        "purity": purity(labels, clusters),
        "silhouette": math.nan if all_different else float(silhouette_score(distances, labels, metric="precomputed")),
    }


@dataclass
class _Speakers:
    """Results of the speakers with at least two clusters.

    Args:
        agreement: For each kind of label and each speaker the result of `_with_chance`.
        silhouettes: Silhouette of the clusters of each speaker.
    """

    agreement: dict[str, dict[str, dict]]
    silhouettes: dict[str, float] = field(default_factory=dict)


def analyse(embeddings: np.ndarray, clusters: Clusters, corpus: Corpus, seed: int = 0) -> dict:
    """Agreement of clusters with emotion, gender and sentence, beside the agreement with permuted labels.

    Labels are permuted within each speaker. A p value is the share of permutations, with the identity among them, that
    agree at least as well. Overall figures are means over the speakers whose clips have at least two labels and two
    clusters, weighted by their number of clips. If a speaker has more than `MOST_CLIPS` clips, a sample is used.

    Args:
        embeddings: Embeddings of unit length, `(clips, size)`.
        clusters: Their clusters.
        corpus: The clips. The sentence is in an optional column `transcript`.
        seed: Seed of permutations and samples.

    Returns:
        A dict with `labels`, which has for emotion, gender and sentence the figures `overall` and by `speakers`, each
        measure with `value`, `chance` (mean of the permutations), `chance_95` (their 95th percentile) and `p`. They
        are None if no speaker has two labels, as for gender. Further entries describe the clusters.

    Raises:
        ValueError: If no speaker has two clusters, or no speaker has two labels of any kind.
    """
    genders_of(corpus)
    all_speakers = np.array(corpus.column("speaker_id").to_pylist())
    speakers = [speaker for speaker, count in clusters.counts.items() if count > 1]
    if not speakers:
        raise ValueError(f"{corpus.name}: no speaker has enough clips for two clusters")
    results = _analyse_speakers(embeddings, clusters, corpus, speakers, np.random.default_rng(seed))
    if not any(results.agreement.values()):
        raise ValueError(f"{corpus.name}: no speaker has two emotions or sentences to compare the clusters with")
    sizes = [clusters.counts[speaker] for speaker in speakers]
    return {
        "labels": {
            name: _overall(by_speaker) if by_speaker else None for name, by_speaker in results.agreement.items()
        },
        "clips": int((np.isin(all_speakers, speakers) & (clusters.labels >= 0)).sum()),
        "speakers": len(speakers),
        "clusters_of_a_speaker": {"least": min(sizes), "mean": float(np.mean(sizes)), "most": max(sizes)},
        "silhouette_of_the_clusters": results.silhouettes,
        "permutations": PERMUTATIONS,
        "most_clips_of_a_speaker": MOST_CLIPS,
        "notes": clusters.notes,
    }


def _analyse_speakers(
    embeddings: np.ndarray,
    clusters: Clusters,
    corpus: Corpus,
    speakers: list[str],
    generator: np.random.Generator,
) -> _Speakers:
    labels = {
        name: np.array(corpus.column(column).to_pylist())
        for name, column in COLUMNS.items()
        if column in corpus.clips.column_names
    }
    speaker_of_clip = np.array(corpus.column("speaker_id").to_pylist())
    results = _Speakers({name: {} for name in labels})
    for speaker in speakers:
        rows = np.flatnonzero((speaker_of_clip == speaker) & (clusters.labels >= 0))
        rows = np.sort(generator.permutation(rows)[:MOST_CLIPS])
        distances, assigned = pairwise_distances(embeddings[rows]), clusters.labels[rows]
        if len(set(assigned.tolist())) < 2:  # the sample has no clip of the smaller clusters
            continue
        results.silhouettes[speaker] = float(silhouette_score(distances, assigned, metric="precomputed"))
        for name, words in labels.items():
            known = np.flatnonzero(words[rows] != "")
            if all(len(set(values[known].tolist())) > 1 for values in (words[rows], assigned)):
                results.agreement[name][speaker] = _with_chance(
                    words[rows[known]], assigned[known], distances[np.ix_(known, known)], generator
                )
    return results


def _with_chance(
    words: np.ndarray, clusters: np.ndarray, distances: np.ndarray, generator: np.random.Generator
) -> dict:
    """Agreement of the clusters of a speaker with labels, and with permuted labels."""
    labels = np.unique(words, return_inverse=True)[1]
    chance = [agreement(generator.permutation(labels), clusters, distances) for _ in range(PERMUTATIONS)]
    return {
        "clips": len(words),
        "labels": len(set(labels.tolist())),
        "values": agreement(labels, clusters, distances),
        "chance": {name: [values[name] for values in chance] for name in MEASURES},
    }


def _overall(by_speaker: dict[str, dict]) -> dict:
    """Figures of each speaker, and their means weighted by the number of clips."""
    overall, speakers = {}, {speaker: {} for speaker in by_speaker}
    weights = np.array([result["clips"] for result in by_speaker.values()], float)
    for name in MEASURES:
        values = np.array([result["values"][name] for result in by_speaker.values()])
        chance = np.array([result["chance"][name] for result in by_speaker.values()])
        defined = np.isfinite(values)
        shares = weights[defined] / weights[defined].sum() if defined.any() else None
        overall[name] = _beside_chance(shares @ values[defined], shares @ chance[defined]) if defined.any() else None
        for speaker, value, permuted in zip(by_speaker, values, chance, strict=True):
            speakers[speaker][name] = _beside_chance(value, permuted) if np.isfinite(value) else None
    for speaker, result in by_speaker.items():
        speakers[speaker] |= {"clips": result["clips"], "labels": result["labels"]}
    return {"overall": overall, "speakers": speakers}


def _beside_chance(value: float, chance: np.ndarray) -> dict:
    at_least_as_good = 1 + int((chance >= value - 1e-12).sum())
    return {
        "value": float(value),
        "chance": float(chance.mean()),
        "chance_95": float(np.percentile(chance, 95)),
        "p": at_least_as_good / (1 + len(chance)),
    }


def as_table(record: dict) -> str:
    """The overall figures of `analyse` as a Markdown table.

    Args:
        record: Result of `analyse`.
    """
    lines = [f"| | {' | '.join(MEASURES.values())} |", "|---|---|---|---|---|"]
    for name, result in record["labels"].items():
        lines.append(f"| {name} | {' | '.join(cells_of(result and result['overall']))} |")
    return "\n".join(lines)


def cells_of(overall: dict | None) -> list[str]:
    """Format the overall figures of one kind of label as cells of a table.

    Args:
        overall: For each measure its figures; None if there are none.
    """
    if overall is None:
        return ["not known, or one for each speaker", "–", "–", "–"]
    figures = [overall[measure] for measure in MEASURES]
    return [
        f"{figure['value']:.3f} (chance {figure['chance']:.3f}, p {figure['p']:.3f})" if figure else "–"
        for figure in figures
    ]


def write_analysis(record: dict, embeddings: np.ndarray, clusters: Clusters, corpus: Corpus, folder: Path) -> None:
    """Write `cluster_analysis.json` and `cluster_analysis.png`, a t-SNE of some speakers by emotion and by cluster.

    Args:
        record: Result of `analyse`, with further fields.
        embeddings: Embeddings of the clips, `(clips, size)`.
        clusters: Their clusters.
        corpus: The clips.
        folder: Folder for the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)  # an old picture must not remain beside new figures
    write_json(folder / ANALYSIS, record)
    speaker_of_clip, emotions = (np.array(corpus.column(name).to_pylist()) for name in ("speaker_id", "emotion"))
    pictured = _pictured_speakers(clusters, genders_of(corpus))
    rows = np.concatenate([np.flatnonzero(speaker_of_clip == speaker)[:MOST_PICTURED] for speaker in pictured])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    points = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(embeddings[rows])
    figure = Figure(figsize=(11, 5), layout="constrained")
    labels = {"emotion": emotions[rows], "cluster": clusters.labels[rows].astype(str)}
    for axes, (name, values) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        pairs = zip(speaker_of_clip[rows], values, strict=True)
        _plot_groups(axes, points, np.array([f"{speaker}_{value or 'unknown'}" for speaker, value in pairs]))
        axes.set_title(f"speaker embeddings, by speaker and {name}", fontsize=10)
    figure.savefig(folder / PICTURE, dpi=150)


def _pictured_speakers(clusters: Clusters, genders: dict[str, str]) -> list[str]:
    """Some speakers with at least two clusters, spread over the genders."""
    candidates = [speaker for speaker, count in clusters.counts.items() if count > 1]
    ordered = [speaker for gender in ("female", "male", "") for speaker in candidates if genders[speaker] == gender]
    return sorted(ordered[:: max(1, len(ordered) // PICTURED)][:PICTURED])


def _plot_groups(axes, points: np.ndarray, groups: np.ndarray) -> None:
    names = sorted(set(groups))
    for number, name in enumerate(names):
        colour = colormaps["turbo"](number / max(1, len(names) - 1))
        axes.scatter(*points[groups == name].T, s=12, color=colour, label=name, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.legend(fontsize=6, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.01))
