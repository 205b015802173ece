"""Intervals of the records in docs/evidence as documents give them.

Records from before the method was written down hold percentile bootstraps over speakers. These are too narrow and are
widened here. No interval is given below five speakers.
"""

from __future__ import annotations

import harness  # noqa: F401  (puts the project on the import path)
import scipy.stats

from modeling_gemoclap.evaluation.comparison import difference_of
from modeling_gemoclap.evaluation.statistics import recorded_counts
from modeling_gemoclap.intervals import enough_speakers


def widening(speakers: int, freedom: float | None = None) -> float:
    """Factor by which a percentile bootstrap over speakers is too narrow.

    Its standard error lacks the factor `n / (n - 1)`, and its quantiles are those of a normal distribution.

    Args:
        speakers: Number of speakers that were drawn.
        freedom: Degrees of freedom, if they are not `speakers - 1`.
    """
    student = scipy.stats.t.ppf(0.975, freedom or speakers - 1) / scipy.stats.norm.ppf(0.975)
    return float(student * (speakers / (speakers - 1)) ** 0.5)


def _widened(bounds: list[float], estimate: float, factor: float) -> list[float]:
    return [estimate + factor * (bound - estimate) for bound in bounds]


def uar_interval(record: dict, speakers: int | None = None, metric: str = "uar") -> list[float] | None:
    """The interval of a record's UAR, or None where there is none.

    Args:
        record: A record with `uar` and `intervals`.
        speakers: Number of speakers, if the record does not hold it.
        metric: `war` gives the interval of WAR.
    """
    intervals, speakers = record["intervals"], speakers or record["speakers"]
    if intervals[metric] is None or not enough_speakers(speakers):
        return None
    if intervals.get("method"):
        return intervals[metric]
    return _widened(intervals[metric], record[metric], widening(speakers))


def difference_interval(comparison: dict) -> list[float] | None:
    """The interval of a paired difference of UAR, or None where there is none."""
    interval = {"uar": comparison["interval"], "method": comparison.get("method")}
    return uar_interval({"uar": comparison["difference"], "intervals": interval}, comparison["speakers"])


def paired_difference(record: dict, other: dict) -> dict | None:
    """The UAR of a record minus that of another on the same clips, paired by speaker; None if speakers differ.

    Args:
        record: A record with `speaker_confusions`.
        other: The record that is subtracted.
    """
    confusions = [each["speaker_confusions"] for each in (other, record)]
    if list(confusions[0]) != list(confusions[1]):
        return None
    counts = [recorded_counts(each) for each in confusions]
    if (counts[0][0].sum(-1) != counts[1][0].sum(-1)).any():
        return None
    return difference_of(*counts)


def gap_interval(fairness: dict) -> list[float] | None:
    """The interval of women's UAR minus men's, or None where there is none.

    A percentile bootstrap is widened with the degrees of freedom of both groups.
    """
    bounds, groups = fairness["gap_interval"], (fairness["num_female"], fairness["num_male"])
    if bounds is None or not all(map(enough_speakers, groups)):
        return None
    if fairness.get("method"):
        return bounds
    return _widened(bounds, fairness["gap"], widening(min(groups), sum(groups) - 2))
