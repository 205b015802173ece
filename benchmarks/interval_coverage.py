"""Measure the coverage of 95 % intervals over speakers: several methods on simulated speakers, into RESULTS.md.

    python benchmarks/interval_coverage.py [--simulations 2000]

The package uses `t, logit` for shares and `t` for differences.
"""

from __future__ import annotations

import numpy as np
import scipy.stats
from documents import render, write_blocks, write_section
from evidence_intervals import widening
from harness import ROOT, parser_of
from simulated_speakers import CASES, Case, uar

from modeling_gemoclap.evaluation.statistics import Estimate, jackknifed

COMMAND = "python benchmarks/interval_coverage.py"
DOCUMENT = ROOT / "docs" / "evaluation.md"
SUMMARISED = ("percentile bootstrap", "BCa bootstrap", "t, logit")
SPEAKERS = (5, 8, 10, 24)
GROUPS = ((5, 5), (12, 12), (5, 8))  # women and men
SAMPLES = 999
TAILS = np.array([0.025, 0.975])


def jackknife(right: np.ndarray, clips: np.ndarray) -> Estimate:
    """UAR and its standard error, from right answers and clips `(speakers, emotions)`."""
    return jackknifed(uar(right.sum(0), clips.sum(0)), uar(right.sum(0) - right, clips.sum(0) - clips))


def intervals(right: np.ndarray, clips: np.ndarray, draws: np.ndarray) -> dict[str, list[float]]:
    """The interval of each method for one simulated corpus.

    Args:
        right: Right answers, `(speakers, emotions)`.
        clips: Clips, `(speakers, emotions)`.
        draws: How often each speaker is drawn in each bootstrap sample, `(samples, speakers)`.
    """
    number, pooled = len(right), uar(right.sum(0), clips.sum(0))
    without = uar(right.sum(0) - right, clips.sum(0) - clips)
    estimate, of_speakers = jackknife(right, clips), uar(right, clips)
    mean = Estimate(of_speakers.mean(), of_speakers.std(ddof=1) / number**0.5, number - 1)
    samples = uar(draws @ right, draws @ clips)
    percentile = np.quantile(samples, TAILS)
    return {
        "percentile bootstrap": list(percentile),
        "BCa bootstrap": list(np.quantile(samples, _bca_tails(samples, pooled, without))),
        "percentile, widened": list(widening(number) * (percentile - pooled) + pooled),
        "t of speakers' own UAR": mean.interval() or [pooled] * 2,
        "t": estimate.interval() or [pooled] * 2,
        "t, logit": estimate.share_interval() or [pooled] * 2,
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
    """For each method, the share of intervals that contain the true UAR, and their mean width."""
    generator, truth = np.random.default_rng(0), case.truth
    right, clips = case.draw(generator, simulations, speakers)
    draws = generator.multinomial(speakers, np.full(speakers, 1 / speakers), size=SAMPLES).astype(float)
    bounds = [intervals(*corpus, draws) for corpus in zip(right, clips, strict=True)]
    coverages = {}
    for method in bounds[0]:
        low, high = np.array([corpus[method] for corpus in bounds]).T
        coverages[method] = (float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean()))
    return coverages


def gap_coverage(case: Case, women: int, men: int, simulations: int) -> float:
    """The share of intervals of women's UAR minus men's that contain 0, with both drawn from one distribution."""
    generator, count = np.random.default_rng(1), 0
    groups = [case.draw(generator, simulations, number) for number in (women, men)]
    for index in range(simulations):
        estimates = [jackknife(right[index], clips[index]) for right, clips in groups]
        low, high = estimates[0].minus(estimates[1]).interval()
        count += low <= 0 <= high
    return count / simulations


def summary(rows: list[list[str]], methods: list[str]) -> str:
    """The table of docs/evaluation.md: for some methods the smallest and the largest coverage over all cases.

    Args:
        rows: Rows of the table in RESULTS.md: case, true UAR, speakers, a cell for each method.
        methods: The names of all methods.
    """
    lines = []
    for speakers in sorted({int(row[2]) for row in rows}):
        cells = [row[3:] for row in rows if int(row[2]) == speakers]
        shares = [[float(row[methods.index(method)].split()[0]) for row in cells] for method in SUMMARISED]
        lines.append([str(speakers), *(f"{min(share):.1f} to {max(share):.1f}" for share in shares)])
    return render("coverage_summary", methods=SUMMARISED, rows=lines)


def main() -> None:
    """Simulate, and write the section of RESULTS.md and the summary in docs/evaluation.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--simulations", type=int, default=2000, help="simulated corpora for each row")
    simulations = parser.parse_args().simulations
    rows, gaps, methods = [], [], []
    for title, case in CASES.items():
        for speakers in SPEAKERS:
            coverages = coverage(case, speakers, simulations)
            methods = list(coverages)
            cells = [f"{100 * share:.1f} ({100 * width:.0f})" for share, width in coverages.values()]
            rows.append([title, f"{100 * case.truth:.1f}", str(speakers), *cells])
        gaps.append([title, *(f"{100 * gap_coverage(case, *group, simulations):.1f}" for group in GROUPS)])
    values = {"simulations": simulations, "methods": methods, "rows": rows, "groups": GROUPS, "gaps": gaps}
    write_section(COMMAND, render("interval_coverage", **values))
    content = summary(rows, methods)
    write_blocks(DOCUMENT, lambda name: content if name == "coverage" else None)


if __name__ == "__main__":
    main()
