"""Clusters of speaker embeddings within each speaker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

MAX_CLUSTERS = 8


@dataclass
class Clusters:
    """Clusters within speakers.

    Args:
        labels: Cluster of each clip within its speaker, `(clips,)`; -1: no cluster.
        counts: Number of clusters of each speaker.
        notes: Messages about speakers that are left out or have fewer clusters than requested.
    """

    labels: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cluster_within_speakers(
    embeddings: np.ndarray, speakers: list[str], k: int | None = None, seed: int = 0
) -> Clusters:
    """Cluster the embeddings of each speaker by k-means.

    Args:
        embeddings: Vectors of unit length, `(clips, size)`.
        speakers: Speaker of each clip.
        k: Number of clusters of a speaker; None: the number from 2 to 8 with the best silhouette.
        seed: Seed of k-means.

    Returns:
        The clusters. A speaker with fewer than two clips for each cluster has fewer clusters. A speaker with a single
        clip has none.

    Raises:
        ValueError: If `k` is below 2, or the numbers of embeddings and clips differ.
    """
    if k is not None and k < 2:
        raise ValueError(f"{k} clusters: give 2 or more clusters for each speaker")
    if len(embeddings) != len(speakers):
        raise ValueError(f"{len(embeddings)} embeddings of {len(speakers)} clips: give one embedding for each clip")
    speaker_of_clip = np.asarray(speakers)
    clusters = Clusters(np.full(len(speaker_of_clip), -1))
    for speaker in sorted(set(speakers)):
        rows = np.flatnonzero(speaker_of_clip == speaker)
        if len(rows) == 1:
            clusters.notes.append(f"speaker {speaker} has one clip and is left out")
            continue
        largest = max(1, min(k or MAX_CLUSTERS, len(rows) // 2))
        candidates = [largest] if k or largest == 1 else range(2, largest + 1)
        results = (_k_means(embeddings[rows], number, seed) for number in candidates)
        _, labels = max(results, key=lambda result: result[0])
        clusters.labels[rows], clusters.counts[speaker] = labels, len(set(labels.tolist()))
        if clusters.counts[speaker] < (k or 2):
            expected = f"cluster(s) instead of {k}" if k else "cluster, so it has no negatives"
            clusters.notes.append(f"speaker {speaker} has {len(rows)} clips and {clusters.counts[speaker]} {expected}")
    return clusters


def _k_means(embeddings: np.ndarray, k: int, seed: int) -> tuple[float, np.ndarray]:
    """Return the silhouette and the cluster of each row. Clusters are numbered by size, the largest first."""
    if k == 1:
        return 0.0, np.zeros(len(embeddings), int)
    labels = KMeans(k, n_init=10, random_state=seed).fit_predict(embeddings)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    labels = np.argsort(order)[labels]
    distinct = len(set(labels.tolist()))
    score = silhouette_score(embeddings, labels) if 1 < distinct < len(embeddings) else -1.0
    return float(score), labels
