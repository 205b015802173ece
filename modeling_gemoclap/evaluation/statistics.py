"""What predictions are worth, and how sure one can be of it: intervals over speakers, fairness, calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

from .metrics import war_uar

FEWEST_SPEAKERS = 5
LEVEL = 0.95
METHOD = "t over speakers"
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


def speaker_confusions(runs: list[Judged]) -> dict[str, list[list[str]]]:
    """What intervals can be recomputed from: the confusion counts of each speaker, for JSON.

    Returns:
        For each speaker and seed the rows of the matrix, the counts of a row with blanks between them.
    """
    speakers = np.unique(runs[0].speakers)
    counts = speaker_counts(runs, speakers).swapaxes(0, 1)
    return {
        str(speaker): [[" ".join(map(str, row)) for row in matrix] for matrix in seeds]
        for speaker, seeds in zip(speakers, counts, strict=True)
    }


def recorded_counts(confusions: dict[str, list[list[str]]]) -> np.ndarray:
    """The counts that `speaker_confusions` wrote, `(seeds, speakers, labels, labels)`; speakers in its order."""
    seeds = zip(*confusions.values(), strict=True)
    return np.array([[[row.split() for row in matrix] for matrix in speakers] for speakers in seeds], dtype=int)


def uar_of(counts: np.ndarray) -> np.ndarray:
    """UAR from confusion counts `(..., labels, labels)`, over the emotions that occur: `(...)`."""
    total = counts.sum(-1)
    recall = np.diagonal(counts, axis1=-2, axis2=-1) / np.where(total == 0, np.nan, total)
    return np.nanmean(recall, -1)


def war_of(counts: np.ndarray) -> np.ndarray:
    """WAR from confusion counts `(..., labels, labels)`: `(...)`."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


@dataclass(frozen=True)
class Estimate:
    """A figure and how far it varies with the speakers that happen to be judged.

    Args:
        value: The figure.
        error: Its standard error.
        freedom: Degrees of freedom of the error.
    """

    value: float
    error: float
    freedom: float

    def minus(self, other: Estimate) -> Estimate:
        """The difference to a figure of other speakers; degrees of freedom by Welch and Satterthwaite."""
        parts = [self.error**2, other.error**2]
        weights = sum(part**2 / one.freedom for part, one in zip(parts, (self, other), strict=True))
        freedom = sum(parts) ** 2 / weights if weights else self.freedom + other.freedom
        return Estimate(self.value - other.value, sum(parts) ** 0.5, freedom)

    def interval(self) -> list[float] | None:
        """The `LEVEL` interval of a difference, by Student's t; None where nothing varies."""
        if self.error == 0:
            return None
        reach = scipy.stats.t.ppf((1 + LEVEL) / 2, self.freedom) * self.error
        return [float(self.value - reach), float(self.value + reach)]

    def share_interval(self) -> list[float] | None:
        """The `LEVEL` interval of a share, by Student's t on the logit scale, so that it lies between 0 and 1."""
        if self.error == 0 or not 0 < self.value < 1:
            return None
        odds = self.value / (1 - self.value)
        on_logits = Estimate(float(np.log(odds)), self.error / (self.value * (1 - self.value)), self.freedom)
        return [float(scipy.special.expit(bound)) for bound in on_logits.interval()]


def enough_speakers(number: int) -> bool:
    """The rule of all intervals: there is none below `FEWEST_SPEAKERS` speakers."""
    return number >= FEWEST_SPEAKERS


def why_no_interval(*numbers: int) -> str:
    """Why a figure has no interval.

    Args:
        numbers: How many speakers there are; of a difference between groups, in each of them.
    """
    if all(map(enough_speakers, numbers)):
        return "no interval: the speakers do not differ"
    return f"no interval below {FEWEST_SPEAKERS} speakers{' of each gender' if len(numbers) > 1 else ''}"


def interval_text(bounds: list[float] | None, *numbers: int, sign: str = "") -> str:
    """An interval in per cent, or why there is none.

    Args:
        bounds: The interval of a share or of a difference of shares.
        numbers: As for `why_no_interval`.
        sign: "+" for a difference.
    """
    if bounds is None:
        return why_no_interval(*numbers)
    return " to ".join(f"{100 * bound:{sign}.1f}" for bound in bounds)


def jackknifed(pooled: float, without: np.ndarray) -> Estimate:
    """An estimate whose error comes from leaving out each speaker in turn.

    Args:
        pooled: The figure of all speakers.
        without: The figure without each speaker, `(speakers,)`.
    """
    number = len(without)
    spread = np.round(without - without.mean(), 12)  # sums in another order differ by 1e-17: that is no spread
    return Estimate(float(pooled), float(np.sqrt((number - 1) / number * (spread**2).sum())), number - 1)


def estimate(counts: np.ndarray, figure: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A figure of pooled answers, seeds averaged, and its standard error over speakers.

    Args:
        counts: Confusion counts of each speaker, `(seeds, speakers, labels, labels)`.
        figure: `uar_of` or `war_of`.
    """
    return jackknifed(figure(counts.sum(1)).mean(), leaving_out(counts, figure))


def leaving_out(counts: np.ndarray, figure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A figure of pooled answers without each speaker, seeds averaged, `(speakers,)`; `counts` as in `estimate`."""
    return figure(counts.sum(1, keepdims=True) - counts).mean(0)


def intervals(runs: list[Judged]) -> dict:
    """Intervals of the pooled UAR and WAR over *speakers*, seeds averaged; None below `FEWEST_SPEAKERS` speakers."""
    speakers = np.unique(runs[0].speakers)
    if not enough_speakers(len(speakers)):
        return {"uar": None, "war": None, "method": None}
    counts = speaker_counts(runs, speakers)
    found = {name: estimate(counts, figure) for name, figure in (("uar", uar_of), ("war", war_of))}
    return {name: one.share_interval() for name, one in found.items()} | {"method": METHOD}


def fairness(runs: list[Judged]) -> dict | None:
    """UAR for women and for men, their gap (women minus men) and its interval; None if only one gender occurs.

    A mean is over the emotions that occur in each gender. The gap has an interval where each gender has
    `FEWEST_SPEAKERS` speakers.
    """
    genders = dict(sorted(zip(runs[0].speakers, runs[0].genders, strict=True)))  # "" comes before "female"
    groups = [sorted(speaker for speaker in genders if genders[speaker] == gender) for gender in ("female", "male")]
    if not all(groups):
        return None
    counts = [speaker_counts(runs, np.array(group)) for group in groups]
    values = [float(uar_of(part.sum(1)).mean()) for part in counts]
    found = None
    if all(enough_speakers(len(group)) for group in groups):
        women, men = (estimate(part, uar_of) for part in counts)
        found = women.minus(men).interval()
    return {
        "uar_female": values[0],
        "uar_male": values[1],
        "gap": values[0] - values[1],
        "gap_interval": found,
        "method": found and METHOD,
        "num_female": len(groups[0]),
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
