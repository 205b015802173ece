"""Clusters of speaker embeddings within each speaker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

MOST_CLUSTERS = 8


@dataclass
class Clusters:
    """Clusters within speakers.

    Args:
        labels: The cluster of each clip within its speaker, `(clips,)`; -1 is none.
        counts: How many clusters each speaker has.
        notes: What is to be told: speakers with fewer clusters than were asked for, or left out.
    """

    labels: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cluster_within_speakers(
    embeddings: np.ndarray, speakers: list[str], k: int | None = None, seed: int = 0
) -> Clusters:
    """k-means within each speaker.

    Args:
        embeddings: `(clips, size)`, of unit length.
        speakers: Speaker of each clip.
        k: Clusters of a speaker; None: as many as have the best silhouette, 2 to 8.
        seed: Of the first centres.

    Returns:
        The clusters. A speaker with fewer than two clips for each cluster has fewer clusters, one with a single clip
        none.

    Raises:
        ValueError: If `k` is below 2, or there are not as many embeddings as clips.
    """
    if k is not None and k < 2:
        raise ValueError(f"{k} clusters: two or more of a speaker's clips are to be told apart")
    if len(embeddings) != len(speakers):
        raise ValueError(f"{len(embeddings)} embeddings of {len(speakers)} clips: the rows are not the corpus's")
    who = np.asarray(speakers)
    found = Clusters(np.full(len(who), -1))
    for speaker in sorted(set(speakers)):
        rows = np.flatnonzero(who == speaker)
        if len(rows) == 1:
            found.notes.append(f"speaker {speaker} has one clip, and is left out")
            continue
        most = max(1, min(k or MOST_CLUSTERS, len(rows) // 2))
        tried = [most] if k or most == 1 else range(2, most + 1)
        labels = max((_k_means(embeddings[rows], one, seed) for one in tried), key=lambda pair: pair[0])[1]
        found.labels[rows], found.counts[speaker] = labels, len(set(labels.tolist()))
        if found.counts[speaker] < (k or 2):
            instead = f"cluster(s) in place of {k}" if k else "cluster: nothing is apart from it"
            found.notes.append(f"speaker {speaker} has {len(rows)} clips, and {found.counts[speaker]} {instead}")
    return found


def _k_means(embeddings: np.ndarray, k: int, seed: int) -> tuple[float, np.ndarray]:
    """The silhouette, and each row's cluster, numbered from the largest."""
    if k == 1:
        return 0.0, np.zeros(len(embeddings), int)
    labels = KMeans(k, n_init=10, random_state=seed).fit_predict(embeddings)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    labels = np.argsort(order)[labels]
    distinct = len(set(labels.tolist()))
    score = silhouette_score(embeddings, labels) if 1 < distinct < len(embeddings) else -1.0
    return float(score), labels
