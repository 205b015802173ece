"""Whether one run is better than another, paired by speaker.

    python -m modeling_gemoclap.evaluation.comparison RUN_A RUN_B

Seeds are averaged first. The difference of the pooled UAR has a 95 % interval from five speakers on, by leaving out
each speaker of both runs in turn. Wilcoxon's signed-rank test on the speakers' own UAR is exact; it needs six speakers
whose UAR differs, and stands beside the smallest p that so many pairs can give.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.failures import report_uncaught_errors, run_main

if __name__ == "__main__":
    report_uncaught_errors("comparison")  # those of the imports below too

import numpy as np
import scipy.stats

from ..command_line.parser import RaisingParser, expanded
from .statistics import (
    METHOD,
    Judged,
    enough_speakers,
    interval_text,
    jackknifed,
    leaving_out,
    speaker_counts,
    uar_of,
)
from .stored import heard_of, load_judged, protocols_of

FEWEST_PAIRS = 6


def compare(first: list[Judged], second: list[Judged]) -> dict:
    """Compare two runs on the same clips.

    Args:
        first: One run, a `Judged` for each seed.
        second: The other.

    Returns:
        A dict with `uar` (of both), `difference` (second minus first), its `interval` (None below five speakers, or
        where the difference is the same whichever speaker is left out), `method`, `speakers`, and `wilcoxon`: `p`,
        its floor `2 / 2**pairs` and `pairs`, or None where fewer than six speakers differ.

    Raises:
        ValueError: If they are not about the same clips or labels.
    """
    if set(first[0].files) != set(second[0].files) or first[0].labels != second[0].labels:
        raise ValueError(
            "the runs were judged on different clips or labels, so they cannot be paired: compare runs of the same "
            "protocol and corpus"
        )
    truths = [dict(zip(run.files, run.truth, strict=True)) for run in (*first, *second)]
    if any(truth != truths[0] for truth in truths):
        raise ValueError("the runs hold other labels to be right, or other clips in some seed: they cannot be paired")
    speakers = np.unique(first[0].speakers)
    if len(speakers) < 2:
        raise ValueError("the runs were judged on one speaker: that says nothing of others")
    counts = [speaker_counts(runs, speakers) for runs in (first, second)]
    pooled = [float(uar_of(part.sum(1)).mean()) for part in counts]
    own = [uar_of(part).mean(0) for part in counts]
    found = None
    if enough_speakers(len(speakers)):
        without = [leaving_out(part, uar_of) for part in counts]
        found = jackknifed(pooled[1] - pooled[0], without[1] - without[0]).interval()
    return {
        "uar": pooled,
        "difference": float(_rounded(pooled[1] - pooled[0])),
        "interval": found,
        "method": found and METHOD,
        "speakers": len(speakers),
        "wilcoxon": _wilcoxon(_rounded(own[1] - own[0])),
    }


def _rounded(difference):
    """Means of the same figures in another order differ by 1e-17: that is no difference."""
    return np.round(difference, 12) + 0.0


def compare_runs(first: str | Path, second: str | Path) -> dict:
    """`compare` two runs that `evaluate.py` has judged.

    Args:
        first: One run's folder.
        second: The other's.

    Raises:
        ValueError: As `compare`, if they were judged by different protocols, or one had heard the judged speakers.
    """
    judged = [load_judged(run) for run in (first, second)]
    protocols = [protocols_of(run) for run in (first, second)]
    both = set(protocols[0]) & set(protocols[1])
    if not both or any(protocols[0][seed] != protocols[1][seed] for seed in both):
        raise ValueError(f"{first} and {second} were judged by different protocols or folds: they cannot be paired")
    heard = [heard_of(run) for run in (first, second)]
    if heard[0] != heard[1]:
        raise ValueError(
            f"{first} and {second} differ in what their weights had heard of the judged speakers, {heard[0]} and "
            f"{heard[1]}: their difference would be of that too, so they cannot be compared"
        )
    return compare(*judged)


def _wilcoxon(differences: np.ndarray) -> dict | None:
    """Wilcoxon's signed-rank test of speakers that differ, or None where they are too few."""
    differing = differences[differences != 0]
    pairs = len(differing)
    if pairs < FEWEST_PAIRS:
        return None
    return {"p": signed_rank_p(differing), "floor": 2 / 2**pairs, "pairs": pairs}


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact with ties as well; never below `2 / 2**pairs`.

    SciPy's exact method takes the ranks to be 1, 2, 3, ... and its approximation may fall below the least p that is
    possible. Here the ranks are as they are, ties sharing their mean, and all assignments of signs are counted.

    Args:
        differences: Differences of the pairs, none of them zero, `(pairs,)`.

    Returns:
        The probability, if signs were tossed, of a sum of ranks as far from its middle as this one, or further.
    """
    doubled = np.rint(2 * scipy.stats.rankdata(np.abs(differences))).astype(int)  # a shared rank is a half at most
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
        ways /= 2
    positive = doubled[differences > 0].sum()
    tail = ways[: min(positive, doubled.sum() - positive) + 1].sum()
    return float(min(1.0, 2 * tail))


def as_text(found: dict, names: tuple[str, str]) -> str:
    """A comparison in words."""
    figures = f"UAR {100 * found['uar'][0]:.1f} ({names[0]}), {100 * found['uar'][1]:.1f} ({names[1]})"
    bounds = found["interval"]
    if found["difference"] == 0 or (bounds and bounds[0] <= 0 <= bounds[1]):
        verdict = "they cannot be told apart"
    else:
        verdict = "the interval does not hold 0" if bounds else "no verdict"
    lines = [figures, f"difference {difference_text(found)}, over {found['speakers']} speakers: {verdict}"]
    test = found["wilcoxon"]
    if test:
        lines.append(
            f"Wilcoxon p = {test['p']:.3g} ({test['pairs']} pairs; the least possible is {test['floor']:.2g})"
        )
    else:
        lines.append(f"Wilcoxon: not with fewer than {FEWEST_PAIRS} pairs that differ")
    return "\n".join(lines)


def difference_text(found: dict) -> str:
    """A difference of UAR in points with its 95 % interval, or why it has none."""
    return f"{100 * found['difference']:+.1f} ({interval_text(found['interval'], found['speakers'], sign='+')})"


def main(argv: list[str]) -> None:
    """Compare two evaluated runs."""
    parser = RaisingParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=expanded, metavar="RUN", help="folder that evaluate.py has judged")
    runs = parser.parse_args(argv).runs
    print(as_text(compare_runs(*runs), tuple(runs)))


if __name__ == "__main__":
    run_main("comparison", main)
