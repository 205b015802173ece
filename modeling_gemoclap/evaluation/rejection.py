"""Coverage against accuracy: what remains if predictions with a low score are rejected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..intervals import enough_speakers
from .statistics import Predictions, estimate, speaker_counts, uar_of, war_of

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class RiskCoverage:
    """The risk-coverage curve. Clips are kept if their highest score is at least a threshold.

    There is one point for each distinct highest score, from the highest to the lowest.

    Args:
        thresholds: The scores, `(points,)`, descending.
        kept: Number of clips that are kept, `(points,)`.
        accuracy: Share of correct predictions among those kept, `(points,)`.
        uar: UAR of those kept, over the emotions that occur among them, `(points,)`.
    """

    thresholds: np.ndarray
    kept: np.ndarray
    accuracy: np.ndarray
    uar: np.ndarray

    @property
    def coverage(self) -> np.ndarray:
        """Share of clips that are kept, `(points,)`. The last one is 1."""
        return self.kept / self.kept[-1]

    @property
    def aurc(self) -> float:
        """Area under the curve of risk (1 - accuracy) against coverage.

        It is the mean risk over the clips, in the order of their scores; clips of equal score share a point.
        """
        return float(np.average(1 - self.accuracy, weights=np.diff(self.kept, prepend=0)))


def risk_coverage(scores: np.ndarray, truth: np.ndarray) -> RiskCoverage:
    """Compute the risk-coverage curve.

    Args:
        scores: Scores of the labels, `(clips, labels)`.
        truth: Index of the true label, `(clips,)`.
    """
    best, number = scores.max(1), scores.shape[1]
    order = np.argsort(-best, kind="stable")
    best, truth, right = best[order], truth[order], (scores.argmax(1) == truth)[order]
    points = np.flatnonzero(np.diff(best, append=-np.inf))  # the last clip of each distinct score
    of_label = truth[:, None] == np.arange(number)
    clips, hits = of_label.cumsum(0)[points], (of_label & right[:, None]).cumsum(0)[points]
    recall = np.divide(hits, clips, out=np.full(clips.shape, np.nan), where=clips > 0)
    return RiskCoverage(best[points], points + 1, right.cumsum()[points] / (points + 1), np.nanmean(recall, 1))


def rejection(runs: list[Predictions]) -> dict:
    """What remains if predictions with a low highest score are rejected, over all seeds together.

    Returns:
        A dict with `thresholds`, rows for each of `THRESHOLDS`; `coverages`, rows for the highest threshold that keeps
        at least each of `COVERAGES`; `aurc`, the area under the risk-coverage curve; and `aurc_of_random_order`, which
        a score unrelated to correctness has: the error rate. A row has `threshold`, the share `coverage` and
        number `n` of predictions that are kept, `accuracy` and `uar` of these (None if there are none), the number
        `emotions` that occur among them, and `intervals` of both over speakers at this threshold: None below
        `FEWEST_SPEAKERS` speakers, or if a speaker has all predictions that are kept.
    """
    curve = risk_coverage(np.concatenate([run.scores for run in runs]), np.concatenate([run.truth for run in runs]))
    reached = [curve.thresholds[np.searchsorted(curve.coverage, share - 1e-12)] for share in COVERAGES]
    return {
        "thresholds": [_row(runs, threshold) for threshold in THRESHOLDS],
        "coverages": [_row(runs, float(threshold)) for threshold in reached],
        "aurc": curve.aurc,
        "aurc_of_random_order": float(1 - curve.accuracy[-1]),
    }


def _row(runs: list[Predictions], threshold: float) -> dict:
    kept = [run.where(run.scores.max(1) >= threshold) for run in runs]
    speakers = np.unique(runs[0].speakers)
    counts = speaker_counts(kept, speakers).sum(0, keepdims=True)  # over all seeds together
    number, total = int(counts.sum()), sum(map(len, runs))
    row = {"threshold": threshold, "coverage": number / total, "n": number, "accuracy": None, "uar": None}
    row |= {"emotions": int((counts.sum((0, 1, 3)) > 0).sum()), "intervals": {"accuracy": None, "uar": None}}
    if not number:
        return row
    pooled = counts.sum((0, 1))
    row |= {"accuracy": float(war_of(pooled)), "uar": float(uar_of(pooled))}
    rest = (pooled - counts[0]).sum((-2, -1))  # that remains without each speaker
    if enough_speakers(len(speakers)) and rest.min() > 0:
        statistics = (("accuracy", war_of), ("uar", uar_of))
        row["intervals"] = {name: estimate(counts, of).share_interval() for name, of in statistics}
    return row
