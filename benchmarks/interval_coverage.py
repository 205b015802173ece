"""How often a 95 % interval over speakers holds the true UAR: candidates on simulated speakers, into RESULTS.md.

    python benchmarks/interval_coverage.py [--simulations 2000]

The package uses `t, logit` for shares and `t` for differences.
"""

from __future__ import annotations

import argparse
import re
import sys

import numpy as np
import results
import scipy.stats
from evidence_markdown import markdown, widening
from evidence_runs import ROOT
from simulated_speakers import CASES, Case, uar

sys.path.insert(0, str(ROOT))

from modeling_gemoclap.evaluation.statistics import Estimate, jackknifed  # noqa: E402

COMMAND = "python benchmarks/interval_coverage.py"
DOCUMENT = ROOT / "docs" / "evaluation.md"
BLOCK = re.compile(r"(<!-- coverage -->\n).*?(<!-- /coverage -->)", re.DOTALL)
SUMMARISED = ("percentile bootstrap", "BCa bootstrap", "t, logit")
SPEAKERS = (5, 8, 10, 24)
SAMPLES = 999
TAILS = np.array([0.025, 0.975])


def candidates(right: np.ndarray, clips: np.ndarray, drawn: np.ndarray) -> dict[str, list[float]]:
    """The interval of each method for one simulated corpus.

    Args:
        right: Right answers, `(speakers, emotions)`.
        clips: Clips, `(speakers, emotions)`.
        drawn: How often each speaker is drawn in each bootstrap sample, `(samples, speakers)`.
    """
    number, pooled = len(right), uar(right.sum(0), clips.sum(0))
    without = uar(right.sum(0) - right, clips.sum(0) - clips)
    found = jackknifed(pooled, without)
    own = uar(right, clips)
    of_own = Estimate(own.mean(), own.std(ddof=1) / number**0.5, number - 1)
    samples = uar(drawn @ right, drawn @ clips)
    percentile = np.quantile(samples, TAILS)
    wider = widening(number) * (percentile - pooled) + pooled
    return {
        "percentile bootstrap": list(percentile),
        "BCa bootstrap": list(np.quantile(samples, _bca_tails(samples, pooled, without))),
        "percentile, widened": list(wider),
        "t of speakers' own UAR": of_own.interval() or [pooled] * 2,
        "t": found.interval() or [pooled] * 2,
        "t, logit": found.share_interval() or [pooled] * 2,
    }


def _bca_tails(samples: np.ndarray, pooled: float, without: np.ndarray) -> np.ndarray:
    """The quantiles that a bias-corrected and accelerated bootstrap takes."""
    below = ((samples < pooled).mean() + (samples <= pooled).mean()) / 2
    bias = scipy.stats.norm.ppf(np.clip(below, 1 / len(samples), 1 - 1 / len(samples)))
    spread = without.mean() - without
    acceleration = (spread**3).sum() / max(6 * (spread**2).sum() ** 1.5, 1e-12)
    reach = bias + scipy.stats.norm.ppf(TAILS)
    return scipy.stats.norm.cdf(bias + reach / (1 - acceleration * reach))


def coverage(case: Case, speakers: int, simulations: int) -> dict[str, tuple[float, float]]:
    """Of each method the share of intervals that hold the truth, and their mean width."""
    generator, truth = np.random.default_rng(0), case.truth
    right, clips = case.draw(generator, simulations, speakers)
    drawn = generator.multinomial(speakers, np.full(speakers, 1 / speakers), size=SAMPLES).astype(float)
    bounds = [candidates(*one, drawn) for one in zip(right, clips, strict=True)]
    found = {}
    for name in bounds[0]:
        low, high = np.array([one[name] for one in bounds]).T
        found[name] = (float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean()))
    return found


def gap_coverage(case: Case, women: int, men: int, simulations: int) -> float:
    """The share of intervals of women minus men that hold 0, both being drawn alike."""
    generator, held = np.random.default_rng(1), 0
    groups = [case.draw(generator, simulations, number) for number in (women, men)]
    for index in range(simulations):
        parts = [(right[index], clips[index]) for right, clips in groups]
        found = [
            jackknifed(uar(right.sum(0), clips.sum(0)), uar(right.sum(0) - right, clips.sum(0) - clips))
            for right, clips in parts
        ]
        low, high = found[0].minus(found[1]).interval()
        held += low <= 0 <= high
    return held / simulations


def summary(lines: list[list[str]], names: list[str]) -> str:
    """The table of docs/evaluation.md: of some methods the smallest and the largest coverage over all cases.

    Args:
        lines: Rows of the whole table: case, true UAR, speakers, a cell for each method.
        names: The methods.
    """
    rows = []
    for speakers in sorted({int(line[2]) for line in lines}):
        found = [line[3:] for line in lines if int(line[2]) == speakers]
        shares = [[float(cells[names.index(name)].split()[0]) for cells in found] for name in SUMMARISED]
        rows.append([str(speakers), *(f"{min(one):.1f} to {max(one):.1f}" for one in shares)])
    return markdown("|".join(["speakers", *SUMMARISED]), rows)


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    number = parser.parse_args().simulations
    lines, gaps, names = [], [], None
    for title, case in CASES.items():
        for speakers in SPEAKERS:
            found = coverage(case, speakers, number)
            names = list(found)
            cells = [f"{100 * share:.1f} ({100 * width:.0f})" for share, width in found.values()]
            lines.append([title, f"{100 * case.truth:.1f}", str(speakers), *cells])
        held = [f"{100 * gap_coverage(case, *groups, number):.1f}" for groups in ((5, 5), (12, 12), (5, 8))]
        gaps.append([title, *held])
    text = (
        f"{number} simulated corpora a line: the share of nominal 95 % intervals that hold the true UAR, in per cent, "
        "and in brackets their mean width in points. The package gives `t, logit`; "
        "[docs/evaluation.md](../docs/evaluation.md) says why.\n\n"
        + markdown("|".join(["speakers like", "true UAR", "speakers", *names]), lines)
        + "\n\nThe same for the gap between women and men (`t`, degrees of freedom by Welch and Satterthwaite):\n\n"
        + markdown("speakers like|5 women, 5 men|12 women, 12 men|5 women, 8 men", gaps)
    )
    results.write(COMMAND, text)
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(BLOCK.sub(rf"\1\n{summary(lines, names)}\n\n\2", document), encoding="utf-8")


if __name__ == "__main__":
    main()
