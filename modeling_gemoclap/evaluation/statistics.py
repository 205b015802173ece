"""What predictions are worth, and how sure one can be of it: intervals over speakers, fairness, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sklearn.metrics

from .metrics import war_uar

SAMPLES = 2000
LEVEL = 0.95
BINS = 15


@dataclass
class Judged:
    """Answers to clips, pooled over the folds of a protocol; each clip stands here once.

    Args:
        labels: Emotions that were chosen between.
        files: File of each clip.
        speakers: Speaker of each clip.
        genders: Gender of each clip; "" where it is not known.
        folds: Fold of each clip.
        truth: True emotion, as an index, `(clips,)`.
        scores: Scores that sum to one over the labels, `(clips, labels)`.
    """

    labels: list[str]
    files: np.ndarray
    speakers: np.ndarray
    genders: np.ndarray
    folds: np.ndarray
    truth: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def predicted(self) -> np.ndarray:
        """Index of the best label, `(clips,)`."""
        return self.scores.argmax(1)

    def where(self, kept: np.ndarray) -> Judged:
        """Some of the clips.

        Args:
            kept: Mask or indices.
        """
        columns = (self.files, self.speakers, self.genders, self.folds, self.truth, self.scores)
        return Judged(self.labels, *(column[kept] for column in columns))

    def confusion(self) -> np.ndarray:
        """Counts, `(labels, labels)`; rows are true emotions."""
        return sklearn.metrics.confusion_matrix(self.truth, self.predicted, labels=range(len(self.labels)))


def scores_of(judged: Judged) -> dict:
    """WAR, UAR, macro F1 and recall by emotion; means are taken over the emotions that occur."""
    names = np.array(judged.labels)
    result = war_uar(names[judged.predicted].tolist(), names[judged.truth].tolist())
    present = np.unique(judged.truth)
    f1 = sklearn.metrics.f1_score(judged.truth, judged.predicted, labels=present, average="macro", zero_division=0.0)
    return {**result, "macro_f1": float(f1)}


def mean_scores(runs: list[Judged]) -> dict:
    """`scores_of`, averaged over seeds."""
    found = [scores_of(run) for run in runs]
    result = {name: float(np.mean([one[name] for one in found])) for name in ("uar", "war", "macro_f1")}
    return result | {
        "recall": {name: float(np.mean([one["recall"][name] for one in found])) for name in found[0]["recall"]}
    }


def over_folds(runs: list[Judged]) -> dict:
    """Mean and standard deviation of each fold's own UAR and WAR, over folds and seeds."""
    values = [scores_of(run.where(run.folds == fold)) for run in runs for fold in np.unique(run.folds)]
    deviation = (lambda found: float(np.std(found, ddof=1))) if len(values) > 1 else lambda found: 0.0
    columns = {name: [value[name] for value in values] for name in ("uar", "war")}
    return {name: {"mean": float(np.mean(column)), "std": deviation(column)} for name, column in columns.items()}


def speaker_counts(runs: list[Judged], speakers: np.ndarray) -> np.ndarray:
    """Confusion counts of each speaker, `(seeds, speakers, labels, labels)`."""
    return np.stack([[run.where(run.speakers == speaker).confusion() for speaker in speakers] for run in runs])


def uar_of(counts: np.ndarray) -> np.ndarray:
    """UAR from confusion counts `(..., labels, labels)`, over the emotions that occur: `(...)`."""
    total = counts.sum(-1)
    recall = np.diagonal(counts, axis1=-2, axis2=-1) / np.where(total == 0, np.nan, total)
    return np.nanmean(recall, -1)


def war_of(counts: np.ndarray) -> np.ndarray:
    """WAR from confusion counts `(..., labels, labels)`: `(...)`."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def resampled(groups: list[np.ndarray], seed: int = 0) -> np.ndarray:
    """How often each speaker is drawn in each bootstrap sample: `(SAMPLES, speakers)`.

    Args:
        groups: Indices of speakers; as many are drawn from each group as it has.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((SAMPLES, sum(map(len, groups))))
    for group in groups:
        drawn = group[generator.integers(len(group), size=(SAMPLES, len(group)))]
        np.add.at(weights, (np.arange(SAMPLES)[:, None], drawn), 1)
    return weights


def interval(values: np.ndarray) -> list[float]:
    """The percentiles between which `LEVEL` of the values lie."""
    return [float(value) for value in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def intervals(runs: list[Judged]) -> dict:
    """Bootstrap intervals of the pooled UAR and WAR over *speakers*, seeds averaged; None for a single speaker."""
    speakers = np.unique(runs[0].speakers)
    if len(speakers) < 2:
        return {"uar": None, "war": None}
    counts = speaker_counts(runs, speakers)
    drawn = np.einsum("bs,rsij->brij", resampled([np.arange(len(speakers))]), counts)
    return {"uar": interval(uar_of(drawn).mean(1)), "war": interval(war_of(drawn).mean(1))}


def fairness(runs: list[Judged]) -> dict | None:
    """UAR for women and for men, their gap (women minus men) and its interval; None if only one gender occurs.

    Speakers are drawn within their gender; a mean is over the emotions that occur in each.
    """
    genders = dict(sorted(zip(runs[0].speakers, runs[0].genders, strict=True)))  # "" comes before "female"
    groups = [sorted(speaker for speaker in genders if genders[speaker] == gender) for gender in ("female", "male")]
    if not all(groups):
        return None
    counts = speaker_counts(runs, np.array(groups[0] + groups[1]))
    number = len(groups[0])
    weights = resampled([np.arange(number), np.arange(number, number + len(groups[1]))])
    drawn, own = [], []
    for part in (slice(number), slice(number, None)):
        drawn.append(uar_of(np.einsum("bs,rsij->brij", weights[:, part], counts[:, part])).mean(1))
        own.append(float(uar_of(counts[:, part].sum(1)).mean()))
    enough = min(map(len, groups)) > 1
    return {
        "uar_female": own[0],
        "uar_male": own[1],
        "gap": own[0] - own[1],
        "gap_interval": interval(drawn[0] - drawn[1]) if enough else None,
        "num_female": number,
        "num_male": len(groups[1]),
    }


def calibration(runs: list[Judged]) -> dict:
    """Expected calibration error of the best score, in `BINS` bins of equal width, all seeds together.

    `ECE = Σ_b n_b / n |accuracy_b - confidence_b|`.

    Returns:
        A dict with `ece`, `confidence` (mean best score), `accuracy`, and `bins`: of each that is not empty its number
        of answers, mean confidence and accuracy.
    """
    best = np.concatenate([run.scores.max(1) for run in runs])
    right = np.concatenate([run.predicted == run.truth for run in runs])
    places = np.clip(np.ceil(best * BINS).astype(int) - 1, 0, BINS - 1)
    bins = [
        {
            "n": int((places == place).sum()),
            "confidence": float(best[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
        }
        for place in np.unique(places)
    ]
    error = sum(one["n"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / len(best)
    return {"ece": float(error), "confidence": float(best.mean()), "accuracy": float(right.mean()), "bins": bins}
