"""Statistics compared with scikit-learn, SciPy and results computed by hand."""

import json
from itertools import product

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from simulated_speakers import CASES

from modeling_gemoclap.evaluation.comparison import as_text, compare, signed_rank_p
from modeling_gemoclap.evaluation.statistics import (
    Predictions,
    calibration,
    estimate,
    fairness,
    intervals,
    jackknifed,
    leaving_out,
    mean_scores,
    over_folds,
    recorded_counts,
    scores_of,
    speaker_confusions,
    speaker_counts,
    uar_of,
    war_of,
)
from modeling_gemoclap.intervals import interval_text
from modeling_gemoclap.runs.calibration import temperature_of

LABELS = ["angry", "happy", "sad"]


def predictions_of(truth, predicted, speakers, genders=None, confidence=None, folds=None, labels=LABELS):
    """Predictions with a given highest score; the other labels share the rest."""
    truth, predicted = np.array(truth), np.array(predicted)
    confidence = np.full(len(truth), 0.6) if confidence is None else np.array(confidence)
    scores = np.repeat((1 - confidence)[:, None] / (len(labels) - 1), len(labels), 1)
    scores[np.arange(len(truth)), predicted] = confidence
    genders = np.array([""] * len(truth) if genders is None else genders)
    files = np.array([f"{number}.wav" for number in range(len(truth))])
    return Predictions(
        labels,
        files,
        np.array(list(speakers)),
        genders,
        np.array([0] * len(truth) if folds is None else folds),
        truth,
        scores,
    )


def random_run(seed, clips=240, speakers=8, skill=0.5):
    generator = np.random.default_rng(seed)
    own = np.repeat(np.arange(speakers), clips // speakers)
    truth = np.random.default_rng(1).integers(0, 3, clips)
    predicted = np.where(generator.random(clips) < skill, truth, generator.integers(0, 3, clips))
    return predictions_of(
        truth, predicted, [f"{s:02}" for s in own], np.where(own % 2, "male", "female"), folds=own // 2
    )


def test_scores_equal_scikit_learns():
    run = random_run(0)
    found = scores_of(run)
    assert found["uar"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(run.truth, run.predicted))
    assert found["war"] == pytest.approx(sklearn.metrics.accuracy_score(run.truth, run.predicted))
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(run.truth, run.predicted, average="macro"))
    counts = speaker_counts([run], np.unique(run.speakers))[0].sum(0)
    assert uar_of(counts) == pytest.approx(found["uar"]) and war_of(counts) == pytest.approx(found["war"])
    means = mean_scores([run, random_run(5)])
    assert means["uar"] == pytest.approx((found["uar"] + scores_of(random_run(5))["uar"]) / 2)


def test_an_emotion_that_does_not_occur_is_no_zero():
    run = predictions_of([0, 0, 1, 1], [0, 1, 1, 2], "aabb")
    assert scores_of(run)["uar"] == pytest.approx(0.5) and set(scores_of(run)["recall"]) == {"angry", "happy"}
    assert uar_of(run.confusion()) == pytest.approx(0.5)


def test_folds_by_hand():
    run = predictions_of([0, 1, 0, 1], [0, 1, 0, 0], "aabb", folds=[0, 0, 1, 1])
    assert over_folds([run])["uar"] == {"mean": pytest.approx(0.75), "std": pytest.approx(np.std([1, 0.5], ddof=1))}
    assert over_folds([run])["war"]["mean"] == pytest.approx(0.75)


def test_the_standard_error_equals_the_slow_jackknife():
    runs = [random_run(0), random_run(7)]
    speakers = np.unique(runs[0].speakers)
    slow = [mean_scores([run.where(run.speakers != speaker) for run in runs]) for speaker in speakers]
    counts = speaker_counts(runs, speakers)
    for name, figure in (("uar", uar_of), ("war", war_of)):
        found, without = estimate(counts, figure), np.array([one[name] for one in slow])
        assert found.value == pytest.approx(mean_scores(runs)[name])
        assert found.error == pytest.approx(np.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum()))
        assert found.freedom == 7
        reach = scipy.stats.t.ppf(0.975, 7) * found.error / (found.value * (1 - found.value))
        logit = np.log(found.value / (1 - found.value))
        bounds = [1 / (1 + np.exp(-logit + reach)), 1 / (1 + np.exp(-logit - reach))]
        assert intervals(runs)[name] == pytest.approx(bounds) and bounds[0] < found.value < bounds[1]


def test_the_jackknife_of_equal_groups_is_the_t_interval_of_a_mean():
    """If every speaker has equally many clips, the pooled WAR is the mean over speakers, whose t interval is known."""
    run = random_run(3, clips=240, speakers=8)
    own = np.array([scores_of(run.where(run.speakers == speaker))["war"] for speaker in np.unique(run.speakers)])
    found = estimate(speaker_counts([run], np.unique(run.speakers)), war_of)
    expected = scipy.stats.t.interval(0.95, 7, loc=own.mean(), scale=scipy.stats.sem(own))
    assert found.interval() == pytest.approx(expected)


@pytest.mark.parametrize("speakers", range(1, 9))
def test_no_interval_below_five_speakers(speakers):
    """Evaluation and comparison use the same rule; fairness applies it to each gender."""
    first, second = (random_run(seed, clips=840, speakers=speakers) for seed in (0, 2))
    allowed = speakers >= 5
    assert [bool(intervals([first])[name]) for name in ("uar", "war")] == [allowed] * 2
    words = interval_text(intervals([first])["uar"], speakers)
    assert (words == "no interval below 5 speakers") is not allowed
    if speakers > 1:
        found = compare([first], [second])
        assert bool(found["interval"]) is allowed and found["difference"]
        words = as_text(found, ("a", "b"))
        assert ("no interval below 5 speakers" in words and "no verdict" in words) is not allowed


def test_the_gap_s_interval_needs_five_speakers_of_each_gender():
    def run_of(men):
        run = random_run(0, clips=360, speakers=12)
        own = np.array([int(speaker) for speaker in run.speakers])
        run.genders = np.where(own < men, "male", "female")
        return fairness([run])

    few, enough = run_of(4), run_of(5)
    assert few["gap_interval"] is None and (few["num_male"], few["num_female"]) == (4, 8)
    assert enough["gap_interval"][0] < enough["gap"] < enough["gap_interval"][1]
    assert interval_text(few["gap_interval"], 4, 8, sign="+") == "no interval below 5 speakers of each gender"


def test_the_gap_s_interval_is_welch_s():
    """If all clips have one emotion and every speaker has equally many, UAR is a mean and the interval is Welch's."""
    generator = np.random.default_rng(0)
    right = generator.random((12, 20)) < np.linspace(0.3, 0.9, 12)[:, None]
    women = np.arange(12) < 5
    speakers = np.repeat([f"{number:02}" for number in range(12)], 20)
    genders = np.repeat(np.where(women, "female", "male"), 20)
    found = fairness([predictions_of(np.zeros(240, int), np.where(right.ravel(), 0, 1), speakers, genders)])
    own = right.mean(1)
    expected = scipy.stats.ttest_ind(own[women], own[~women], equal_var=False).confidence_interval(0.95)
    assert found["gap_interval"] == pytest.approx([expected.low, expected.high])
    assert found["gap"] == pytest.approx(own[women].mean() - own[~women].mean())


def test_no_interval_without_variation():
    truth = [0, 1, 2] * 6
    speakers = np.repeat(list("abcdef"), 3)
    perfect, same = predictions_of(truth, truth, speakers), predictions_of(truth, [0, 1, 1] * 6, speakers)
    for run in (perfect, same):
        assert intervals([run])["uar"] is None
    assert interval_text(None, 6) == "no interval: the speakers do not differ"
    found = compare([same], [perfect])
    assert found["interval"] is None and found["difference"] == pytest.approx(1 / 3)
    assert "the runs cannot be distinguished" in as_text(compare([same], [same]), ("a", "b"))


def test_intervals_can_be_recomputed_from_a_record():
    runs = [random_run(0), random_run(7)]
    kept = json.loads(json.dumps(speaker_confusions(runs)))
    counts = recorded_counts(kept)
    np.testing.assert_array_equal(counts, speaker_counts(runs, np.array(list(kept))))
    assert estimate(counts, uar_of).share_interval() == intervals(runs)["uar"]
    assert estimate(counts, war_of).share_interval() == intervals(runs)["war"]


def as_counts(right, number):
    """Confusion counts `(1, speakers, labels, labels)`; errors are predictions of the next label."""
    labels = right.shape[-1]
    counts = right[..., None] * np.eye(labels, dtype=int)
    return (counts + (number - right)[..., None] * np.roll(np.eye(labels, dtype=int), 1, 1))[None]


@pytest.mark.parametrize(("speakers", "least"), [(5, 0.9), (10, 0.9), (24, 0.92)])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_intervals_cover_the_truth(case, speakers, least):
    """Coverage over 400 simulated corpora. A percentile bootstrap of five speakers covers 82 to 84 %."""
    drawn = case.draw(np.random.default_rng(1), 400, speakers)
    found = [estimate(as_counts(*one), uar_of).share_interval() for one in zip(*drawn, strict=True)]
    truth = case.truth
    covered = np.mean([low <= truth <= high for low, high in filter(None, found)])
    assert least <= covered <= 0.985 and sum(one is None for one in found) <= 8


def test_intervals_of_differences_cover_the_truth():
    """Two equally good runs on the same ten speakers."""
    first, number = next(iter(CASES.values())).draw(np.random.default_rng(2), 400, 10)
    generator = np.random.default_rng(3)
    second = generator.binomial(number, np.clip((first + 0.5) / (number + 1), 0, 1))
    truth = uar_of(as_counts(second, number)[0].sum((0, 1))) - uar_of(as_counts(first, number)[0].sum((0, 1)))
    covered = 0
    for one, other, clips in zip(first, second, number, strict=True):
        counts = [as_counts(right, clips) for right in (one, other)]
        without = [leaving_out(part, uar_of) for part in counts]
        pooled = [uar_of(part.sum(1)).mean() for part in counts]
        low, high = jackknifed(pooled[1] - pooled[0], without[1] - without[0]).interval()
        covered += low <= truth <= high
    assert 0.9 <= covered / 400 <= 0.985


def test_calibration_by_hand():
    run = predictions_of([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], "aaaaa", confidence=[0.9, 0.9, 0.9, 0.9, 0.62])
    found = calibration([run])  # four predictions with score 0.9, three of them correct, and a correct one with 0.62
    assert found["ece"] == pytest.approx(0.8 * abs(0.75 - 0.9) + 0.2 * abs(1 - 0.62))
    assert [(one["n"], one["accuracy"]) for one in found["bins"]] == [(1, 1.0), (4, 0.75)]
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.4, 1, 40_000)
    right = generator.random(40_000) < confidence
    run = predictions_of(np.where(right, 0, 1), np.zeros(40_000, int), ["a"] * 40_000, confidence=confidence)
    assert calibration([run])["ece"] < 0.02, "calibrated scores"


def test_temperature_is_found_again():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(-1), 1, generator=generator).ravel()
    assert temperature_of(logits, labels) == pytest.approx(2.5, rel=0.03)
    labels[:15_000] = -1
    assert temperature_of(logits, labels) == pytest.approx(2.5, rel=0.06), "unknown emotions are left out"
    assert temperature_of(logits, logits.argmax(-1)) is None, (
        "all predictions are correct: no finite temperature is optimal"
    )
    assert temperature_of(logits, logits.argmin(-1)) is None
    with pytest.raises(ValueError, match="no development clip has an emotion"):
        temperature_of(logits, torch.full((20_000,), -1))


def test_comparison_is_paired_by_speaker():
    weak, strong = random_run(0, skill=0.4), random_run(0, skill=0.8)
    found = compare([weak], [strong])
    assert found["difference"] == pytest.approx(scores_of(strong)["uar"] - scores_of(weak)["uar"])
    assert found["interval"][0] > 0 and "the interval excludes 0" in as_text(found, ("weak", "strong"))
    assert found["interval"][0] < found["difference"] < found["interval"][1] and found["method"] == "t over speakers"
    own = [
        [
            sklearn.metrics.balanced_accuracy_score(p.truth, p.predicted)
            for p in (r.where(r.speakers == s) for s in np.unique(r.speakers))
        ]
        for r in (weak, strong)
    ]
    assert found["wilcoxon"]["p"] == pytest.approx(scipy.stats.wilcoxon(np.array(own[1]) - np.array(own[0])).pvalue)
    assert found["wilcoxon"]["floor"] == 2 / 2**8 and "the smallest possible is 0.0078" in as_text(found, ("a", "b"))
    same = compare([weak], [weak])
    assert same["difference"] == 0 and same["wilcoxon"] is None
    assert "cannot be distinguished" in as_text(same, ("a", "b")) and "not computed with fewer than 6" in as_text(
        same, ("a", "b")
    )


def test_wilcoxon_drops_zeros_first():
    """Six equal differences and ten zeros: the approximation of SciPy gives 0.0143, below the smallest possible p."""
    truth = np.tile([0, 1], 32)
    speakers = np.repeat([f"{number:02}" for number in range(16)], 4)
    worse = np.where((np.repeat(np.arange(16), 4) < 6) & (np.arange(64) % 4 == 0), 1 - truth, truth)
    found = compare([predictions_of(truth, worse, speakers)], [predictions_of(truth, truth, speakers)])
    assert found["wilcoxon"] == {"p": 0.03125, "floor": 0.03125, "pairs": 6}
    assert scipy.stats.wilcoxon([0.25] * 6 + [0.0] * 10, method="asymptotic").pvalue < 0.02


def test_the_signed_rank_p_is_exact():
    """Compared with SciPy without ties, and with all assignments of signs with ties."""
    generator = np.random.default_rng(0)
    for number in (6, 7, 10, 24, 40):
        differences = generator.standard_normal(number) + 0.3
        expected = scipy.stats.wilcoxon(differences, method="exact").pvalue
        assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)
    for _ in range(20):
        differences = generator.choice([-3, -2, -1, 1, 2, 3, 4], size=8)
        ranks = scipy.stats.rankdata(np.abs(differences))
        sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=8)])
        distance = abs(ranks[differences > 0].sum() - ranks.sum() / 2)
        expected = (np.abs(sums - ranks.sum() / 2) >= distance - 1e-9).mean()
        assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)


def test_the_signed_rank_p_is_never_below_its_floor_and_falls_with_agreement():
    generator = np.random.default_rng(1)
    for _ in range(200):
        number = int(generator.integers(1, 92))
        sizes = generator.choice([0.1, 0.2, 0.3, 0.4], size=number)
        signs = generator.choice([-1, 1], size=number)
        p = signed_rank_p(sizes * signs)
        assert 2 / 2**number <= p <= 1 or number == 1
        assert p == pytest.approx(signed_rank_p(-sizes * signs)), "the test is two-sided"
        ranks = scipy.stats.rankdata(sizes)
        if ranks[signs > 0].sum() >= ranks.sum() / 2:
            for index in np.flatnonzero(signs < 0)[:3]:
                agreeing = np.where(np.arange(number) == index, 1, signs)
                assert signed_rank_p(sizes * agreeing) <= p, "one more speaker agrees with the majority"
    assert signed_rank_p(np.full(6, 0.1)) == 2 / 2**6


def test_seeds_are_averaged_first():
    first, second = [random_run(0), random_run(1)], [random_run(2), random_run(3)]
    found = compare(first, second)
    assert found["uar"] == pytest.approx([mean_scores(first)["uar"], mean_scores(second)["uar"]])
    five = random_run(0, speakers=5)
    assert compare([five], [random_run(2, speakers=5)])["wilcoxon"] is None, "five pairs are too few"


def test_the_order_of_seeds_is_no_difference():
    """Sums of the same figures in another order differ by 1e-17."""
    seeds = [random_run(seed, skill=0.95) for seed in range(3)]
    found = compare(seeds, [seeds[1], seeds[2], seeds[0]])
    assert found["difference"] == 0 and found["interval"] is None and found["wilcoxon"] is None
    assert "cannot be distinguished" in as_text(found, ("a", "b"))


def test_a_clip_of_unknown_gender_does_not_hide_its_speaker():
    run = random_run(0)
    run.genders[-1] = ""
    assert fairness([run])["num_male"] == 4


def test_unpaired_runs_are_refused():
    run = random_run(0)
    other = run.where(slice(None))
    other.truth = 2 - run.truth
    with pytest.raises(ValueError, match="different true labels"):
        compare([run], [other])
    with pytest.raises(ValueError, match="different clips"):
        compare([run], [run.where(np.arange(len(run)) > 3)])
    alone = run.where(run.speakers == "00")
    with pytest.raises(ValueError, match="one speaker"):
        compare([alone], [alone])
