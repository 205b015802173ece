"""Figures against scikit-learn, SciPy and numbers worked out by hand."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch

from modeling_gemoclap.evaluation.comparison import as_text, compare
from modeling_gemoclap.evaluation.statistics import (
    Judged,
    calibration,
    fairness,
    interval,
    intervals,
    mean_scores,
    over_folds,
    resampled,
    scores_of,
    speaker_counts,
    uar_of,
    war_of,
)
from modeling_gemoclap.training.calibration import temperature_of

LABELS = ["angry", "happy", "sad"]


def judged(truth, predicted, speakers, genders=None, confidence=None, folds=None, labels=LABELS):
    """Answers with a given best score; the rest is shared out."""
    truth, predicted = np.array(truth), np.array(predicted)
    confidence = np.full(len(truth), 0.6) if confidence is None else np.array(confidence)
    scores = np.repeat((1 - confidence)[:, None] / (len(labels) - 1), len(labels), 1)
    scores[np.arange(len(truth)), predicted] = confidence
    genders = np.array([""] * len(truth) if genders is None else genders)
    files = np.array([f"{number}.wav" for number in range(len(truth))])
    return Judged(
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
    return judged(truth, predicted, [f"{s:02}" for s in own], np.where(own % 2, "male", "female"), folds=own // 2)


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
    run = judged([0, 0, 1, 1], [0, 1, 1, 2], "aabb")
    assert scores_of(run)["uar"] == pytest.approx(0.5) and set(scores_of(run)["recall"]) == {"angry", "happy"}
    assert uar_of(run.confusion()) == pytest.approx(0.5)


def test_folds_by_hand():
    run = judged([0, 1, 0, 1], [0, 1, 0, 0], "aabb", folds=[0, 0, 1, 1])
    assert over_folds([run])["uar"] == {"mean": pytest.approx(0.75), "std": pytest.approx(np.std([1, 0.5], ddof=1))}
    assert over_folds([run])["war"]["mean"] == pytest.approx(0.75)


def test_bootstrap_over_speakers_equals_the_slow_way():
    runs = [random_run(0), random_run(7)]
    speakers = np.unique(runs[0].speakers)
    weights = resampled([np.arange(len(speakers))])
    assert (weights.sum(1) == len(speakers)).all()
    slow = []
    for row in weights[:200]:
        values = []
        for run in runs:
            parts = [run.where(run.speakers == s) for s, n in zip(speakers, row, strict=True) for _ in range(int(n))]
            truth, answers = (np.concatenate([getattr(p, name) for p in parts]) for name in ("truth", "predicted"))
            values.append(sklearn.metrics.balanced_accuracy_score(truth, answers))
        slow.append(np.mean(values))
    drawn = np.einsum("bs,rsij->brij", weights[:200], speaker_counts(runs, speakers))
    np.testing.assert_allclose(uar_of(drawn).mean(1), slow)
    low, high = intervals(runs)["uar"]
    assert low < mean_scores(runs)["uar"] < high


def test_bootstrap_of_two_speakers_by_hand():
    """Of speakers that are all right and all wrong, a quarter of the samples is 0, a half 1/2, a quarter 1."""
    run = judged([0, 1, 0, 1], [0, 1, 1, 0], "aabb")
    drawn = np.einsum("bs,rsij->brij", resampled([np.arange(2)]), speaker_counts([run], np.array(["a", "b"])))
    shares = [(uar_of(drawn)[:, 0] == value).mean() for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.04)
    assert intervals([run])["uar"] == [0.0, 1.0]
    assert intervals([judged([0, 1], [0, 1], "aa")]) == {"uar": None, "war": None}
    assert interval(np.arange(101)) == pytest.approx([2.5, 97.5])


def test_fairness_by_hand():
    truth, predicted = [0, 1, 0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0]
    run = judged(truth, predicted, "aabbccdd", ["female"] * 4 + ["male"] * 4)
    found = fairness([run])
    assert found["uar_female"] == pytest.approx(0.75) and found["uar_male"] == pytest.approx(0.5)
    assert found["gap"] == pytest.approx(0.25) and (found["num_female"], found["num_male"]) == (2, 2)
    assert found["gap_interval"] == pytest.approx([0.0, 0.5]), "women score 1/2, 3/4 or 1, men always 1/2"
    assert fairness([judged(truth, predicted, "aabbccdd", ["female"] * 8)]) is None


def test_calibration_by_hand():
    run = judged([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], "aaaaa", confidence=[0.9, 0.9, 0.9, 0.9, 0.62])
    found = calibration([run])  # four answers of 0.9, three of them right, and one of 0.62, right
    assert found["ece"] == pytest.approx(0.8 * abs(0.75 - 0.9) + 0.2 * abs(1 - 0.62))
    assert [(one["n"], one["accuracy"]) for one in found["bins"]] == [(1, 1.0), (4, 0.75)]
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.4, 1, 40_000)
    right = generator.random(40_000) < confidence
    run = judged(np.where(right, 0, 1), np.zeros(40_000, int), ["a"] * 40_000, confidence=confidence)
    assert calibration([run])["ece"] < 0.02, "scores that mean what they say"


def test_temperature_is_found_again():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(-1), 1, generator=generator).ravel()
    assert temperature_of(logits, labels) == pytest.approx(2.5, rel=0.03)
    labels[:15_000] = -1
    assert temperature_of(logits, labels) == pytest.approx(2.5, rel=0.06), "unknown emotions are left out"
    assert temperature_of(logits, logits.argmax(-1)) is None, "all right: no temperature is the best"
    assert temperature_of(logits, logits.argmin(-1)) is None
    with pytest.raises(ValueError, match="no development clip has an emotion"):
        temperature_of(logits, torch.full((20_000,), -1))


def test_comparison_is_paired_by_speaker():
    weak, strong = random_run(0, skill=0.4), random_run(0, skill=0.8)
    found = compare([weak], [strong])
    assert found["difference"] == pytest.approx(scores_of(strong)["uar"] - scores_of(weak)["uar"])
    assert found["interval"][0] > 0 and "the interval does not hold 0" in as_text(found, ("weak", "strong"))
    own = [
        [
            sklearn.metrics.balanced_accuracy_score(p.truth, p.predicted)
            for p in (r.where(r.speakers == s) for s in np.unique(r.speakers))
        ]
        for r in (weak, strong)
    ]
    assert found["wilcoxon"]["p"] == pytest.approx(scipy.stats.wilcoxon(np.array(own[1]) - np.array(own[0])).pvalue)
    assert found["wilcoxon"]["floor"] == 2 / 2**8 and "the least possible is 0.0078" in as_text(found, ("a", "b"))
    same = compare([weak], [weak])
    assert same["difference"] == 0 and same["wilcoxon"] is None
    assert "cannot be told apart" in as_text(same, ("a", "b")) and "not with fewer than 6" in as_text(same, ("a", "b"))


def test_seeds_are_averaged_first():
    first, second = [random_run(0), random_run(1)], [random_run(2), random_run(3)]
    found = compare(first, second)
    assert found["uar"] == pytest.approx([mean_scores(first)["uar"], mean_scores(second)["uar"]])
    five = random_run(0, speakers=5)
    assert compare([five], [random_run(2, speakers=5)])["wilcoxon"] is None, "five pairs are too few"


def test_the_order_of_seeds_is_no_difference():
    """Sums of the same figures differ by 1e-17."""
    seeds = [random_run(seed, skill=0.95) for seed in range(3)]
    found = compare(seeds, [seeds[1], seeds[2], seeds[0]])
    assert found["interval"] == [0, 0] and found["wilcoxon"] is None
    assert "cannot be told apart" in as_text(found, ("a", "b"))


def test_a_clip_of_unknown_gender_does_not_hide_its_speaker():
    run = random_run(0)
    run.genders[-1] = ""
    assert fairness([run])["num_male"] == 4


def test_what_cannot_be_paired():
    run = random_run(0)
    other = run.where(slice(None))
    other.truth = 2 - run.truth
    with pytest.raises(ValueError, match="other labels to be right"):
        compare([run], [other])
    with pytest.raises(ValueError, match="different clips"):
        compare([run], [run.where(np.arange(len(run)) > 3)])
    alone = run.where(run.speakers == "00")
    with pytest.raises(ValueError, match="one speaker"):
        compare([alone], [alone])
