"""Whether one run is better than another, paired by speaker.

    python -m modeling_gemoclap.evaluation.comparison RUN_A RUN_B

Seeds are averaged first. The difference of the pooled UAR has a bootstrap interval, the same speakers being drawn for
both; Wilcoxon's signed-rank test on the speakers' own UAR is added from six speakers on whose UAR differs, with the
smallest p that so many pairs can give.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.failures import run_main, tell_failures

if __name__ == "__main__":
    tell_failures("comparison")  # those of the imports below too

import numpy as np
import scipy.stats

from ..command_line.parser import OneSentence, expanded
from .statistics import Judged, interval, resampled, speaker_counts, uar_of
from .stored import load_judged, protocols_of

FEWEST_PAIRS = 6


def compare(first: list[Judged], second: list[Judged]) -> dict:
    """Compare two runs on the same clips.

    Args:
        first: One run, a `Judged` for each seed.
        second: The other.

    Returns:
        A dict with `uar` (of both), `difference` (second minus first), its `interval`, `speakers`, and `wilcoxon`:
        `p` and its floor `2 / 2**pairs`, or None where fewer than six speakers differ.

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
    weights = resampled([np.arange(len(speakers))])
    drawn = [uar_of(np.einsum("bs,rsij->brij", weights, part)).mean(1) for part in counts]
    pooled = [float(uar_of(part.sum(1)).mean()) for part in counts]
    own = [uar_of(part).mean(0) for part in counts]
    return {
        "uar": pooled,
        "difference": _rounded(pooled[1] - pooled[0]),
        "interval": interval(_rounded(drawn[1] - drawn[0])),
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
        ValueError: As `compare`, or if they were judged by different protocols.
    """
    judged = [load_judged(run) for run in (first, second)]
    protocols = [protocols_of(run) for run in (first, second)]
    both = set(protocols[0]) & set(protocols[1])
    if not both or any(protocols[0][seed] != protocols[1][seed] for seed in both):
        raise ValueError(f"{first} and {second} were judged by different protocols or folds: they cannot be paired")
    return compare(*judged)


def _wilcoxon(differences: np.ndarray) -> dict | None:
    pairs = int(np.count_nonzero(differences))
    if pairs < FEWEST_PAIRS:
        return None
    return {"p": float(scipy.stats.wilcoxon(differences).pvalue), "floor": 2 / 2**pairs, "pairs": pairs}


def as_text(found: dict, names: tuple[str, str]) -> str:
    """A comparison in words."""
    low, high = (100 * value for value in found["interval"])
    verdict = "they cannot be told apart" if low <= 0 <= high else "the interval does not hold 0"
    lines = [
        f"UAR {100 * found['uar'][0]:.1f} ({names[0]}), {100 * found['uar'][1]:.1f} ({names[1]})",
        f"difference {100 * found['difference']:+.1f}, 95 % interval over {found['speakers']} speakers "
        f"[{low:+.1f}, {high:+.1f}]: {verdict}",
    ]
    test = found["wilcoxon"]
    if test:
        lines.append(
            f"Wilcoxon p = {test['p']:.3g} ({test['pairs']} pairs; the least possible is {test['floor']:.2g})"
        )
    else:
        lines.append(f"Wilcoxon: not with fewer than {FEWEST_PAIRS} pairs that differ")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Compare two evaluated runs."""
    parser = OneSentence(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=expanded, metavar="RUN", help="folder that evaluate.py has judged")
    runs = parser.parse_args(argv).runs
    print(as_text(compare_runs(*runs), tuple(runs)))


if __name__ == "__main__":
    run_main("comparison", main)
