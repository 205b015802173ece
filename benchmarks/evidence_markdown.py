"""What the tables of the evidence are written with."""

from __future__ import annotations

import json
import sys

import scipy.stats
from evidence_runs import ROOT

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.evaluation.statistics import enough_speakers, interval_text  # noqa: E402

FOUND = ROOT / "docs" / "evidence"
DEVELOPED = ROOT / "configs" / "folds" / "emodb_development.json"  # speakers that settings were chosen on


def load(name: str) -> dict | None:
    """A JSON file of the evidence, or None where that part was not run."""
    path = FOUND / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def percent(value: float | None) -> str:
    """A share as per cent."""
    return "–" if value is None else f"{100 * value:.1f}"


def widening(speakers: int, freedom: float | None = None) -> float:
    """By what a percentile bootstrap over speakers is too narrow: its error lacks `n / (n - 1)`, its tails are normal.

    Args:
        speakers: How many were drawn.
        freedom: Degrees of freedom, where they are not `speakers - 1`.
    """
    student = scipy.stats.t.ppf(0.975, freedom or speakers - 1) / scipy.stats.norm.ppf(0.975)
    return float(student * (speakers / (speakers - 1)) ** 0.5)


def recorded(bounds: list[float] | None, middle: float, speakers: int, method: str | None) -> list[float] | None:
    """An interval of a record as documents give it: none below five speakers, percentile bootstraps widened.

    Args:
        bounds: The interval.
        middle: The figure that it is of.
        speakers: How many speakers it is over.
        method: How it was made; None in records of percentile bootstraps, from before the method was written down.
    """
    if bounds is None or not enough_speakers(speakers):
        return None
    return bounds if method else [middle + widening(speakers) * (bound - middle) for bound in bounds]


def uar_interval(record: dict) -> list[float] | None:
    """The interval of a record's UAR."""
    found = record["intervals"]
    return recorded(found["uar"], record["uar"], record["speakers"], found.get("method"))


def gap_interval(fair: dict) -> list[float] | None:
    """The interval of women minus men, as `recorded`; a percentile bootstrap has both genders' degrees of freedom."""
    bounds, numbers = fair["gap_interval"], (fair["num_female"], fair["num_male"])
    if bounds is None or not all(map(enough_speakers, numbers)):
        return None
    if fair.get("method"):
        return bounds
    return [fair["gap"] + widening(min(numbers), sum(numbers) - 2) * (bound - fair["gap"]) for bound in bounds]


def span(pair: list[float] | None, *numbers: int, sign: str = "") -> str:
    """An interval of shares as per cent, or why there is none; `numbers` of speakers as for `why_no_interval`."""
    return interval_text(pair, *numbers, sign=sign)


def change(less: dict | None) -> str:
    """A paired difference with its interval, in points; nothing where there is none."""
    if not less:
        return ""
    bounds = recorded(less["interval"], less["difference"], less["speakers"], less.get("method"))
    return f"{100 * less['difference']:+.1f}" + (f" ({span(bounds, sign='+')})" if bounds else "")


def markdown(head: str, rows: list[list[str]]) -> str:
    """A table; `head` has its columns between bars."""
    lines = [columns := head.split("|"), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tuned_on(apart: dict) -> str:
    """Which of the judged speakers the settings were chosen on, and the figures of the others."""
    tuned = sorted(speaker for fold in json.loads(DEVELOPED.read_text(encoding="utf-8")) for speaker in fold)
    figures = f"UAR {percent(apart['uar'])}, WAR {percent(apart['war'])}"
    return (
        f"The settings had been chosen on {len(tuned)} of these ten ({', '.join(tuned)}); of the others alone: "
        f"{figures}."
    )
