"""Comparison of two evaluated runs, paired by speaker.

    python -m modeling_gemoclap.evaluation.comparison RUN_A RUN_B

Seeds are averaged first. With at least five speakers, the difference of the pooled UAR has a 95 % interval, with the
standard error from leaving out each speaker of both runs in turn. If the UAR of at least six speakers differs,
Wilcoxon's exact signed-rank test over speakers is added, with the smallest p value that this number of pairs can give.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.failures import report_uncaught_errors, run_main

if __name__ == "__main__":
    report_uncaught_errors("comparison")  # reports errors of the imports below too

import numpy as np
import scipy.stats

from ..command_line.parser import RaisingParser, expanded
from ..intervals import enough_speakers, interval_text
from .prediction_files import heard_of, load_predictions, protocols_of
from .statistics import (
    METHOD,
    Predictions,
    jackknifed,
    leaving_out,
    speaker_counts,
    uar_of,
)

FEWEST_PAIRS = 6


def compare(first: list[Predictions], second: list[Predictions]) -> dict:
    """Compare two runs on the same clips.

    Args:
        first: Predictions of each seed of one run.
        second: Predictions of each seed of the other run.

    Returns:
        A dict with `uar` (of both runs), `difference` (second minus first), `interval` (None below five speakers, or
        if the difference does not vary between speakers), `method`, `speakers` and `wilcoxon`: a dict with `p`, the
        smallest possible p `floor` (`2 / 2**pairs`) and `pairs`, or None if fewer than six speakers differ.

    Raises:
        ValueError: If the runs have different clips or labels, or only one speaker.
    """
    _refuse_unpaired(first, second)
    speakers = np.unique(first[0].speakers)
    if len(speakers) < 2:
        raise ValueError("the runs were evaluated on one speaker: a comparison needs at least two speakers")
    counts = [speaker_counts(runs, speakers) for runs in (first, second)]
    by_speaker = [uar_of(run).mean(0) for run in counts]
    return difference_of(*counts) | {"wilcoxon": _wilcoxon(_rounded(by_speaker[1] - by_speaker[0]))}


def difference_of(first: np.ndarray, second: np.ndarray) -> dict:
    """The difference of the pooled UAR of two runs, paired by speaker.

    Args:
        first: Confusion counts of one run, `(seeds, speakers, labels, labels)`.
        second: Those of the other run, with the same speakers in the same order; it may have another number of seeds.

    Returns:
        `compare`'s dict without `wilcoxon`.
    """
    pooled = [float(uar_of(run.sum(1)).mean()) for run in (first, second)]
    interval, speakers = None, first.shape[1]
    if enough_speakers(speakers):
        without = [leaving_out(run, uar_of) for run in (first, second)]
        interval = jackknifed(pooled[1] - pooled[0], without[1] - without[0]).interval()
    return {
        "uar": pooled,
        "difference": float(_rounded(pooled[1] - pooled[0])),
        "interval": interval,
        "method": interval and METHOD,
        "speakers": speakers,
    }


def _refuse_unpaired(first: list[Predictions], second: list[Predictions]) -> None:
    if set(first[0].files) != set(second[0].files) or first[0].labels != second[0].labels:
        raise ValueError(
            "the runs were evaluated on different clips or labels, so they cannot be paired: compare runs with the "
            "same protocol and corpus"
        )
    truths = [dict(zip(run.files, run.truth, strict=True)) for run in (*first, *second)]
    if any(truth != truths[0] for truth in truths):
        raise ValueError(
            "the runs have different true labels, or a seed has different clips, so they cannot be paired: compare "
            "runs with the same protocol and corpus"
        )


def _rounded(difference):
    """Remove differences of 1e-17 between means of the same figures in another order."""
    return np.round(difference, 12) + 0.0


def compare_runs(first: str | Path, second: str | Path) -> dict:
    """`compare` two runs that `evaluate.py` has evaluated.

    Args:
        first: Folder of one run.
        second: Folder of the other run.

    Raises:
        ValueError: See `compare`; also if the runs have different protocols, or only one was trained on test speakers.
    """
    protocols = [protocols_of(run) for run in (first, second)]
    seeds = set(protocols[0]) & set(protocols[1])
    if not seeds or any(protocols[0][seed] != protocols[1][seed] for seed in seeds):
        raise ValueError(f"{first} and {second} have different protocols or folds, so they cannot be paired")
    heard = [heard_of(run) for run in (first, second)]
    if heard[0] != heard[1]:
        raise ValueError(
            f"{first} and {second} differ in whether the test speakers were heard in training ({heard[0]} and "
            f"{heard[1]}), which would contribute to the difference, so they cannot be compared"
        )
    return compare(load_predictions(first), load_predictions(second))


def _wilcoxon(differences: np.ndarray) -> dict | None:
    """Wilcoxon's signed-rank test on the speakers that differ; None if there are fewer than `FEWEST_PAIRS`."""
    differing = differences[differences != 0]
    pairs = len(differing)
    if pairs < FEWEST_PAIRS:
        return None
    return {"p": signed_rank_p(differing), "floor": 2 / 2**pairs, "pairs": pairs}


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test, exact with ties too.

    The exact method of SciPy assumes the ranks 1, 2, 3, ..., and its approximation can be below the smallest possible
    p value, `2 / 2**pairs`. This function uses mean ranks for ties and counts all assignments of signs.

    Args:
        differences: Differences of the pairs, without zeros, `(pairs,)`.

    Returns:
        The probability, with random signs, of a sum of ranks at least as far from its mean as the observed one.
    """
    doubled = np.rint(2 * scipy.stats.rankdata(np.abs(differences))).astype(int)  # mean ranks are multiples of 1/2
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
        ways /= 2
    positive = doubled[differences > 0].sum()
    tail = ways[: min(positive, doubled.sum() - positive) + 1].sum()
    return float(min(1.0, 2 * tail))


def as_text(comparison: dict, names: tuple[str, str]) -> str:
    """Describe a comparison.

    Args:
        comparison: Result of `compare`.
        names: Names of the two runs.
    """
    bounds, test = comparison["interval"], comparison["wilcoxon"]
    if comparison["difference"] == 0 or (bounds and bounds[0] <= 0 <= bounds[1]):
        verdict = "the runs cannot be distinguished"
    else:
        verdict = "the interval excludes 0" if bounds else "no verdict"
    wilcoxon = f"Wilcoxon: not computed with fewer than {FEWEST_PAIRS} pairs that differ"
    if test:
        wilcoxon = (
            f"Wilcoxon p = {test['p']:.3g} ({test['pairs']} pairs; the smallest possible is {test['floor']:.2g})"
        )
    uar = [100 * value for value in comparison["uar"]]
    return (
        f"UAR {uar[0]:.1f} ({names[0]}), {uar[1]:.1f} ({names[1]})\n"
        f"difference {difference_text(comparison)}, {comparison['speakers']} speakers: {verdict}\n{wilcoxon}"
    )


def difference_text(comparison: dict) -> str:
    """Format the difference of UAR in points with its 95 % interval, or explain why there is none.

    Args:
        comparison: Result of `compare`.
    """
    interval = interval_text(comparison["interval"], comparison["speakers"], sign="+")
    return f"{100 * comparison['difference']:+.1f} ({interval})"


def main(argv: list[str]) -> None:
    """Compare two evaluated runs.

    Args:
        argv: Command line without the name of the program.
    """
    parser = RaisingParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=expanded, metavar="RUN", help="folder evaluated by evaluate.py")
    runs = parser.parse_args(argv).runs
    print(as_text(compare_runs(*runs), tuple(runs)))


if __name__ == "__main__":
    run_main("comparison", main)
