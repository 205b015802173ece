"""Statistics of predictions: accuracies, confidence intervals over speakers, fairness and calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

from ..intervals import enough_speakers
from .metrics import war_uar

LEVEL = 0.95
METHOD = "t over speakers"
BINS = 15


@dataclass
class Predictions:
    """Predictions for clips, pooled over the folds of a protocol. Each clip occurs once.

    Args:
        labels: Candidate emotions.
        files: File name of each clip, `(clips,)`.
        speakers: Speaker of each clip, `(clips,)`.
        genders: Gender of each clip, `(clips,)`; "" if unknown.
        folds: Fold of each clip, `(clips,)`.
        truth: Index of the true emotion in `labels`, `(clips,)`.
        scores: Scores that sum to 1 over the labels, `(clips, labels)`.
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
        """Index of the label with the highest score, `(clips,)`."""
        return self.scores.argmax(1)

    def where(self, selection: np.ndarray | slice) -> Predictions:
        """Select clips.

        Args:
            selection: Boolean mask, indices or a slice.
        """
        columns = (self.files, self.speakers, self.genders, self.folds, self.truth, self.scores)
        return Predictions(self.labels, *(column[selection] for column in columns))

    def confusion(self) -> np.ndarray:
        """Confusion counts, `(labels, labels)`. Rows are true emotions."""
        counts = np.zeros((len(self.labels), len(self.labels)), int)
        np.add.at(counts, (self.truth, self.predicted), 1)  # sklearn's function refuses a speaker without clips
        return counts


def scores_of(predictions: Predictions) -> dict:
    """WAR, UAR, macro F1 and the recall of each emotion. Means are over the emotions that occur."""
    names = np.array(predictions.labels)
    result = war_uar(names[predictions.predicted].tolist(), names[predictions.truth].tolist())
    present = np.unique(predictions.truth)
    f1 = sklearn.metrics.f1_score(
        predictions.truth, predictions.predicted, labels=present, average="macro", zero_division=0.0
    )
    return {**result, "macro_f1": float(f1)}


def mean_scores(runs: list[Predictions]) -> dict:
    """`scores_of`, averaged over seeds."""
    scores = [scores_of(run) for run in runs]
    result = {name: float(np.mean([seed[name] for seed in scores])) for name in ("uar", "war", "macro_f1")}
    recall = {label: float(np.mean([seed["recall"][label] for seed in scores])) for label in scores[0]["recall"]}
    return result | {"recall": recall}


def over_folds(runs: list[Predictions]) -> dict:
    """Mean and standard deviation of the UAR and WAR of single folds, over all folds and seeds."""
    folds = [scores_of(run.where(run.folds == fold)) for run in runs for fold in np.unique(run.folds)]

    def summary(values: list[float]) -> dict[str, float]:
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return {"mean": float(np.mean(values)), "std": deviation}

    return {name: summary([fold[name] for fold in folds]) for name in ("uar", "war")}


def speaker_counts(runs: list[Predictions], speakers: np.ndarray) -> np.ndarray:
    """Confusion counts of each speaker, `(seeds, speakers, labels, labels)`."""
    return np.stack([[run.where(run.speakers == speaker).confusion() for speaker in speakers] for run in runs])


def speaker_confusions(runs: list[Predictions]) -> dict[str, list[list[str]]]:
    """Confusion counts of each speaker in a form for JSON. Intervals can be recomputed from them.

    Returns:
        For each speaker and seed the rows of the confusion matrix. The counts of a row are separated by spaces.
    """
    speakers = np.unique(runs[0].speakers)
    counts = speaker_counts(runs, speakers).swapaxes(0, 1)
    return {
        str(speaker): [[" ".join(map(str, row)) for row in matrix] for matrix in seeds]
        for speaker, seeds in zip(speakers, counts, strict=True)
    }


def recorded_counts(confusions: dict[str, list[list[str]]]) -> np.ndarray:
    """Parse the output of `speaker_confusions`.

    Returns:
        Counts, `(seeds, speakers, labels, labels)`, with speakers in the order of the dict.
    """
    seeds = zip(*confusions.values(), strict=True)
    return np.array([[[row.split() for row in matrix] for matrix in speakers] for speakers in seeds], dtype=int)


def uar_of(counts: np.ndarray) -> np.ndarray:
    """UAR from confusion counts `(..., labels, labels)`, over the emotions that occur, `(...)`."""
    total = counts.sum(-1)
    recall = np.diagonal(counts, axis1=-2, axis2=-1) / np.where(total == 0, np.nan, total)
    return np.nanmean(recall, -1)


def war_of(counts: np.ndarray) -> np.ndarray:
    """WAR from confusion counts `(..., labels, labels)`, `(...)`."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


@dataclass(frozen=True)
class Estimate:
    """A statistic with its standard error over speakers.

    Args:
        value: The statistic.
        error: Its standard error.
        freedom: Degrees of freedom of the standard error.
    """

    value: float
    error: float
    freedom: float

    def minus(self, other: Estimate) -> Estimate:
        """Difference from an independent estimate, with the degrees of freedom of Welch and Satterthwaite."""
        variances = [self.error**2, other.error**2]
        weights = sum(
            variance**2 / freedom for variance, freedom in zip(variances, (self.freedom, other.freedom), strict=True)
        )
        freedom = sum(variances) ** 2 / weights if weights else self.freedom + other.freedom
        return Estimate(self.value - other.value, sum(variances) ** 0.5, freedom)

    def interval(self) -> list[float] | None:
        """Student's t interval of a difference at `LEVEL`; None if the standard error is 0."""
        if self.error == 0:
            return None
        reach = scipy.stats.t.ppf((1 + LEVEL) / 2, self.freedom) * self.error
        return [float(self.value - reach), float(self.value + reach)]

    def share_interval(self) -> list[float] | None:
        """Student's t interval of a share at `LEVEL`, on the logit scale so that it lies between 0 and 1.

        Returns:
            The bounds; None if the standard error is 0 or the share is 0 or 1.
        """
        if self.error == 0 or not 0 < self.value < 1:
            return None
        odds = self.value / (1 - self.value)
        on_logits = Estimate(float(np.log(odds)), self.error / (self.value * (1 - self.value)), self.freedom)
        return [float(scipy.special.expit(bound)) for bound in on_logits.interval()]


def jackknifed(pooled: float, without: np.ndarray) -> Estimate:
    """Jackknife estimate over speakers.

    Args:
        pooled: The statistic of all speakers.
        without: The statistic with each speaker left out in turn, `(speakers,)`.
    """
    number = len(without)
    # Rounding removes differences of 1e-17 between sums in another order, which are no variation.
    deviations = np.round(without - without.mean(), 12)
    return Estimate(float(pooled), float(np.sqrt((number - 1) / number * (deviations**2).sum())), number - 1)


def estimate(counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A statistic of pooled predictions, averaged over seeds, with its standard error over speakers.

    Args:
        counts: Confusion counts of each speaker, `(seeds, speakers, labels, labels)`.
        statistic: `uar_of` or `war_of`.
    """
    return jackknifed(statistic(counts.sum(1)).mean(), leaving_out(counts, statistic))


def leaving_out(counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A statistic of pooled predictions with each speaker left out in turn, averaged over seeds.

    Args:
        counts: See `estimate`.
        statistic: See `estimate`.

    Returns:
        `(speakers,)`.
    """
    return statistic(counts.sum(1, keepdims=True) - counts).mean(0)


def intervals(runs: list[Predictions]) -> dict:
    """Intervals over speakers of the pooled UAR and WAR, seeds averaged; None below `FEWEST_SPEAKERS` speakers."""
    speakers = np.unique(runs[0].speakers)
    if not enough_speakers(len(speakers)):
        return {"uar": None, "war": None, "method": None}
    counts = speaker_counts(runs, speakers)
    bounds = {name: estimate(counts, of).share_interval() for name, of in (("uar", uar_of), ("war", war_of))}
    return bounds | {"method": METHOD}


def recall_intervals(runs: list[Predictions]) -> dict[str, dict]:
    """Intervals over speakers of the recall of each emotion that occurs, seeds averaged.

    Returns:
        For each emotion `interval`, None below `FEWEST_SPEAKERS` speakers of the emotion, and their number `speakers`.
    """
    counts = speaker_counts(runs, np.unique(runs[0].speakers))
    found = {}
    for index, label in enumerate(runs[0].labels):
        with_emotion = counts[:, counts[0, :, index].sum(-1) > 0, index : index + 1]
        number = with_emotion.shape[1]
        if number:
            bounds = None
            if enough_speakers(number):
                recall = estimate(with_emotion, lambda rows, index=index: rows[..., 0, index] / rows.sum((-2, -1)))
                bounds = recall.share_interval()
            found[label] = {"interval": bounds, "speakers": number}
    return found


def fairness(runs: list[Predictions]) -> dict | None:
    """UAR for women and for men with their intervals, and the gap (women minus men) with its interval.

    The UAR of a gender is over the emotions that occur for it.

    Returns:
        The figures. `interval_female` and `interval_male` are None if that gender has fewer than `FEWEST_SPEAKERS`
        speakers, `gap_interval` if either has. None if only one gender occurs.
    """
    genders = dict(sorted(zip(runs[0].speakers, runs[0].genders, strict=True)))  # "" sorts before "female"
    groups = [sorted(speaker for speaker in genders if genders[speaker] == gender) for gender in ("female", "male")]
    if not all(groups):
        return None
    counts = [speaker_counts(runs, np.array(group)) for group in groups]
    uar_female, uar_male = (float(uar_of(group.sum(1)).mean()) for group in counts)
    enough = [enough_speakers(len(group)) for group in groups]
    women, men = (estimate(group, uar_of) if many else None for group, many in zip(counts, enough, strict=True))
    gap_interval = women.minus(men).interval() if all(enough) else None
    return {
        "uar_female": uar_female,
        "uar_male": uar_male,
        "interval_female": women and women.share_interval(),
        "interval_male": men and men.share_interval(),
        "gap": uar_female - uar_male,
        "gap_interval": gap_interval,
        "method": gap_interval and METHOD,
        "num_female": len(groups[0]),
        "num_male": len(groups[1]),
    }


def calibration(runs: list[Predictions]) -> dict:
    """Expected calibration error of the highest score, in `BINS` bins of equal width, over all seeds together.

    `ECE = Σ_b n_b / n |accuracy_b - confidence_b|`.

    Returns:
        A dict with `ece`, `confidence` (mean highest score), `accuracy` and `bins`: for each non-empty bin its number
        of predictions `n`, mean `confidence` and `accuracy`.
    """
    best = np.concatenate([run.scores.max(1) for run in runs])
    right = np.concatenate([run.predicted == run.truth for run in runs])
    bin_numbers = np.clip(np.ceil(best * BINS).astype(int) - 1, 0, BINS - 1)
    bins = [
        {
            "n": int((bin_numbers == number).sum()),
            "confidence": float(best[bin_numbers == number].mean()),
            "accuracy": float(right[bin_numbers == number].mean()),
        }
        for number in np.unique(bin_numbers)
    ]
    error = sum(entry["n"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins) / len(best)
    return {"ece": float(error), "confidence": float(best.mean()), "accuracy": float(right.mean()), "bins": bins}
