"""Statistics compared with scikit-learn, SciPy and results computed by hand."""

import json
from itertools import product

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from simulated_speakers import CASES
from transformers import EvalPrediction

from modeling_gemoclap.evaluation.comparison import as_text, compare, signed_rank_p
from modeling_gemoclap.evaluation.metrics import war_uar, war_uar_of_scores
from modeling_gemoclap.evaluation.statistics import (
    BINS,
    LEVEL,
    Estimate,
    Predictions,
    calibration,
    estimate,
    fairness,
    intervals,
    jackknifed,
    leaving_out,
    mean_scores,
    over_folds,
    recall_intervals,
    recorded_counts,
    scores_of,
    speaker_confusions,
    speaker_counts,
    uar_of,
    war_of,
)
from modeling_gemoclap.intervals import FEWEST_SPEAKERS, enough_speakers, interval_text, why_no_interval
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


# ---- by hand --------------------------------------------------------------------------------------------------------
def test_metrics_by_hand():
    found = war_uar(["sad", "sad", "calm", "sad"], ["sad", "sad", "sad", "happy"])
    assert found == {"war": 0.5, "uar": pytest.approx(1 / 3), "recall": {"happy": 0.0, "sad": pytest.approx(2 / 3)}}
    assert list(found["recall"]) == ["happy", "sad"], "sorted, and only classes that occur"
    found = war_uar([2, 0, 0], [2, 0, 1])
    assert found == {"war": pytest.approx(2 / 3), "uar": pytest.approx(2 / 3), "recall": {0: 1.0, 1: 0.0, 2: 1.0}}
    assert all(type(found[name]) is float for name in ("war", "uar")) and type(found["recall"][0]) is float
    with pytest.raises(ValueError):
        war_uar(["sad"], [0])


def test_metrics_for_a_trainer():
    scores = np.array([[3.0, 1, 2], [0, 2, 1], [0, 1, 5], [9, 0, 0], [0, 4, 3]])
    found = war_uar_of_scores(EvalPrediction(scores, np.array([0, 0, 2, -100, 2])))
    # known clips 0, 1, 2 and 4: predicted 0, 1, 2 and 1; recalls 1/2 and 1/2
    assert found == {"war": 0.5, "uar": 0.5}
    found = war_uar_of_scores(EvalPrediction(scores, np.array([0, 1, -1, 1, 1])))
    assert found == {"war": 0.75, "uar": pytest.approx((1 + 2 / 3) / 2)}


def test_the_metric_describes_itself():
    """The fields that `evaluate` shows."""
    from conftest import ROOT

    import evaluate

    info = evaluate.load(str(ROOT / "modeling_gemoclap/evaluation/war_uar"))
    assert info.description.strip().startswith("Weighted average recall (WAR) is accuracy. Unweighted")
    assert info.citation.strip().startswith("@inproceedings{schuller2009interspeech")
    assert "predictions: Predicted classes" in info.inputs_description
    kinds = [{name: value.dtype for name, value in features.items()} for features in info.features]
    assert kinds == [{"predictions": kind, "references": kind} for kind in ("string", "int64")]


def test_selections_keep_all_columns():
    run = predictions_of([0, 1, 2], [0, 2, 2], "abc", ["female", "male", ""], [0.5, 0.6, 0.7], [4, 5, 6])
    for selection in (np.array([False, True, True]), [1, 2], slice(1, None)):
        part = run.where(selection)
        assert part.labels is run.labels and len(part) == 2
        assert part.files.tolist() == ["1.wav", "2.wav"] and part.speakers.tolist() == ["b", "c"]
        assert part.genders.tolist() == ["male", ""] and part.folds.tolist() == [5, 6]
        assert part.truth.tolist() == [1, 2] and part.predicted.tolist() == [2, 2]
        assert part.scores.tolist() == run.scores[1:].tolist()
    assert run.confusion().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]], "rows are true emotions"
    assert run.confusion().dtype == int


def test_scores_by_hand():
    # angry: 1 of 2, happy: 2 of 2; one angry clip was taken for sad, which does not occur
    run = predictions_of([0, 0, 1, 1], [0, 2, 1, 1], "aabb")
    found = scores_of(run)
    assert found == {
        "war": 0.75,
        "uar": 0.75,
        "recall": {"angry": 0.5, "happy": 1.0},
        "macro_f1": pytest.approx(5 / 6),
    }
    assert type(found["macro_f1"]) is float
    other = predictions_of([0, 0, 1, 1], [0, 0, 2, 2], "aabb")  # F1 of happy is 0
    assert scores_of(other)["macro_f1"] == 0.5
    assert mean_scores([run, other]) == {
        "uar": 0.625,
        "war": 0.625,
        "macro_f1": pytest.approx((5 / 6 + 1 / 2) / 2),
        "recall": {"angry": 0.75, "happy": 0.5},
    }
    single = mean_scores([run])
    assert single == scores_of(run) and type(single["recall"]["angry"]) is float


def test_folds_of_several_seeds_by_hand():
    first = predictions_of([0, 1, 0, 1], [0, 1, 0, 0], "aabb", folds=[3, 3, 7, 7])  # 1 and 0.5
    second = predictions_of([0, 1, 0, 1], [0, 2, 1, 0], "aabb", folds=[3, 3, 7, 7])  # 0.5 and 0
    figures = {"mean": 0.5, "std": pytest.approx(np.std([1, 0.5, 0.5, 0], ddof=1))}
    assert over_folds([first, second]) == {"uar": figures, "war": figures}
    single = predictions_of([0, 0, 0, 1], [0, 0, 0, 0], "aabb")
    assert over_folds([single]) == {"uar": {"mean": 0.5, "std": 0.0}, "war": {"mean": 0.75, "std": 0.0}}
    assert type(over_folds([single])["uar"]["mean"]) is float


def test_counts_of_speakers_by_hand():
    first = predictions_of([0, 1, 0, 2], [0, 1, 1, 2], ["b", "a", "b", "a"])
    second = predictions_of([0, 1, 0, 2], [2, 1, 0, 2], ["b", "a", "b", "a"])
    kept = speaker_confusions([first, second])
    assert kept == {
        "a": [["0 0 0", "0 1 0", "0 0 1"]] * 2,
        "b": [["1 1 0", "0 0 0", "0 0 0"], ["1 0 1", "0 0 0", "0 0 0"]],
    }
    assert all(type(speaker) is str for speaker in kept)
    assert speaker_confusions([first]) == {speaker: seeds[:1] for speaker, seeds in kept.items()}
    with pytest.raises(ValueError):
        recorded_counts(kept | {"b": kept["b"][:1]})  # a record in which a seed lacks a speaker
    counts = recorded_counts(kept)
    assert counts.shape == (2, 2, 3, 3) and counts.dtype == int
    assert counts[1, 1].tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]], "the second seed of b"
    assert counts.tolist() == speaker_counts([first, second], np.array(["a", "b"])).tolist()
    assert uar_of(counts[:, 0]).tolist() == [1, 1] and uar_of(counts[:, 1]).tolist() == [0.5, 0.5]
    assert war_of(counts.sum(1)).tolist() == [0.75, 0.75]
    uneven = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    with np.errstate(all="raise"):  # an emotion that does not occur is no division by zero
        assert uar_of(uneven) == pytest.approx((3 / 4 + 1 / 2) / 2) and war_of(uneven) == pytest.approx(4 / 6)


def test_estimates_by_hand():
    first, second = Estimate(0.7, 0.3, 4), Estimate(0.4, 0.4, 9)
    difference = first.minus(second)
    assert (difference.value, difference.error) == (pytest.approx(0.3), pytest.approx(0.5))
    # Welch and Satterthwaite: (0.09 + 0.16)^2 / (0.09^2 / 4 + 0.16^2 / 9)
    assert difference.freedom == pytest.approx(0.0625 / (0.0081 / 4 + 0.0256 / 9))
    assert Estimate(0.7, 0.0, 4).minus(Estimate(0.4, 0.0, 9)).freedom == 13
    assert Estimate(0.7, 0.3, 4).minus(Estimate(0.4, 0.0, 9)).freedom == pytest.approx(4)
    reach = scipy.stats.t.ppf(0.975, 4) * 0.3
    assert LEVEL == 0.95 and first.interval() == pytest.approx([0.7 - reach, 0.7 + reach])
    assert all(type(bound) is float for bound in first.interval() + first.share_interval())
    assert Estimate(0.7, 0.0, 4).interval() is None and Estimate(0.7, 0.0, 4).share_interval() is None
    assert Estimate(1.0, 0.1, 4).share_interval() is None and Estimate(0.0, 0.1, 4).share_interval() is None
    odds, reach = np.log(0.7 / 0.3), scipy.stats.t.ppf(0.975, 4) * 0.3 / (0.7 * 0.3)
    bounds = [1 / (1 + np.exp(-bound)) for bound in (odds - reach, odds + reach)]
    assert first.share_interval() == pytest.approx(bounds)


def test_the_jackknife_by_hand():
    found = jackknifed(np.float64(0.6), np.array([0.5, 0.7, 0.6]))
    assert (found.value, found.freedom) == (0.6, 2) and found.error == pytest.approx(np.sqrt(2 / 3 * 0.02))
    assert type(found.value) is float and type(found.error) is float
    assert jackknifed(0.6, np.array([0.5, 0.5 + 4e-13])).error == 0, "a difference by rounding is none"
    assert jackknifed(0.6, np.array([0.5, 0.5 + 4e-12])).error > 0
    # two seeds, two speakers, two labels; without the first speaker, WAR is 1/2 and 1, without the second 1 and 1/2
    counts = np.array([[[[1, 0], [0, 1]], [[1, 0], [1, 0]]], [[[0, 1], [0, 1]], [[1, 0], [0, 1]]]])
    assert leaving_out(counts, war_of).tolist() == [0.75, 0.75]
    counts = np.array([[[[4, 0], [0, 0]], [[1, 1], [0, 0]], [[0, 2], [0, 0]]]])
    assert leaving_out(counts, war_of).tolist() == [1 / 4, 4 / 6, 5 / 6]
    found = estimate(counts, war_of)
    assert found.value == 5 / 8 and found.error == pytest.approx(np.sqrt(2 * np.var([1 / 4, 4 / 6, 5 / 6])))
    assert estimate(np.concatenate([counts, counts[..., ::-1]]), war_of).value == 0.5, "the mean over seeds"


def test_intervals_name_their_method():
    enough, few = random_run(0, speakers=5), random_run(0, clips=40, speakers=4)
    assert intervals([few]) == {"uar": None, "war": None, "method": None}
    found = intervals([enough])
    assert set(found) == {"uar", "war", "method"} and found["method"] == "t over speakers"
    assert found["uar"] != found["war"]


def test_intervals_of_recalls():
    """Six speakers have angry, five happy, four sad; label calm does not occur. Speaker f has one clip."""
    rows = [(0, s) for s in "abcdefabcde"] + [(1, s) for s in "abcde" * 2] + [(2, s) for s in "abcd" * 2]
    truth, speakers = zip(*rows, strict=True)
    labels = ["angry", "happy", "sad", "calm"]
    generator = np.random.default_rng(3)
    runs = []
    for _ in range(2):
        predicted = np.where(generator.random(len(rows)) < 0.6, truth, 3)
        runs.append(predictions_of(truth, predicted, speakers, labels=labels))
    found = recall_intervals(runs)
    assert {label: entry["speakers"] for label, entry in found.items()} == {"angry": 6, "happy": 5, "sad": 4}
    assert found["sad"]["interval"] is None
    for index, label in enumerate(["angry", "happy"]):
        without = []
        names = sorted({speaker for truth, speaker in rows if truth == index})
        for left_out in names:
            parts = [run.where((run.truth == index) & (run.speakers != left_out)) for run in runs]
            without.append(np.mean([(part.predicted == index).mean() for part in parts]))
        pooled = np.mean([(run.predicted == index)[run.truth == index].mean() for run in runs])
        expected = jackknifed(pooled, np.array(without)).share_interval()
        assert found[label]["interval"] == pytest.approx(expected)
    assert recall_intervals(runs[:1])["angry"]["interval"] == pytest.approx(
        intervals([runs[0].where(runs[0].truth == 0)])["uar"]
    ), "a single seed, and the recall of the only emotion is its UAR"


def test_fairness_by_hand():
    """Two women and one man: no intervals. The UAR of a gender is over the emotions that occur for it."""
    run = predictions_of([0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 2], "aabbcc", ["female"] * 4 + ["male"] * 2)
    assert fairness([run]) == {
        "uar_female": 0.75,
        "uar_male": 0.5,
        "interval_female": None,
        "interval_male": None,
        "gap": 0.25,
        "gap_interval": None,
        "method": None,
        "num_female": 2,
        "num_male": 1,
    }
    other = predictions_of([0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], "aabbcc", run.genders)
    both = fairness([run, other])
    assert (both["uar_female"], both["uar_male"], both["gap"]) == (0.875, 0.75, 0.125)
    assert fairness([run.where(run.genders == "female")]) is None
    assert fairness([run.where(run.genders == "male")]) is None


def test_fairness_equals_separate_evaluations():
    run = random_run(4, clips=480, speakers=12)
    found = fairness([run])
    women, men = (run.where(run.genders == gender) for gender in ("female", "male"))
    assert (found["num_female"], found["num_male"], found["method"]) == (6, 6, "t over speakers")
    for name, part in (("female", women), ("male", men)):
        assert found[f"uar_{name}"] == pytest.approx(scores_of(part)["uar"])
        assert found[f"interval_{name}"] == pytest.approx(intervals([part])["uar"])
    run.genders = np.where(np.isin(run.speakers, ["00", "01", "02", "03"]), "male", "female")
    few = fairness([run])
    assert few["interval_male"] is None and few["interval_female"] and few["method"] is few["gap_interval"] is None
    run.genders = np.where(np.isin(run.speakers, ["00", "01", "02", "03"]), "female", "male")
    few = fairness([run])
    assert few["interval_female"] is None and few["interval_male"] and few["gap_interval"] is None


def test_the_bins_of_calibration():
    """15 bins, each with its upper bound; scores of 0 and 1 are in the first and the last bin."""
    assert BINS == 15
    confidence = [1.0, 14 / 15, 14 / 15 + 1e-9, 0.5, 0.5 + 1 / 30 + 1e-9, 0.34]
    run = predictions_of([0] * 6, [0, 0, 1, 0, 0, 1], "aaaaaa", confidence=confidence)
    found = calibration([run])
    assert set(found) == {"ece", "confidence", "accuracy", "bins"}
    assert [(one["n"], one["accuracy"]) for one in found["bins"]] == [(1, 0.0), (1, 1.0), (1, 1.0), (1, 1.0), (2, 0.5)]
    assert [one["confidence"] for one in found["bins"]] == pytest.approx(
        [0.34, 0.5, 0.5 + 1 / 30, 14 / 15, (1 + 14 / 15) / 2], abs=1e-8
    )
    gaps = [0.34, 0.5, 0.5 - 1 / 30, 1 / 15, 2 * ((1 + 14 / 15) / 2 - 0.5)]
    assert found["ece"] == pytest.approx(sum(gaps) / 6, abs=1e-8)
    assert found["confidence"] == pytest.approx(np.mean(confidence)) and found["accuracy"] == pytest.approx(4 / 6)
    assert all(type(found[name]) is float for name in ("ece", "confidence", "accuracy"))
    assert all(type(value) in (int, float) for one in found["bins"] for value in one.values())
    both = calibration([run, predictions_of([0, 1], [0, 0], "aa", confidence=[0.9, 0.9])])
    assert sum(one["n"] for one in both["bins"]) == 8 and both["accuracy"] == pytest.approx(5 / 8), "all seeds"
    odd = run.where([0] * 5)
    odd.scores = np.array([0, 0.06, 0.07, 0.95, 1 + 1e-7])[:, None] * [1, 0, 0]  # by rounding, a score can exceed 1
    assert [one["n"] for one in calibration([odd])["bins"]] == [2, 1, 2]
    assert calibration([odd.where([0])])["bins"] == [{"n": 1, "confidence": 0.0, "accuracy": 1.0}]


def test_texts_of_intervals():
    assert FEWEST_SPEAKERS == 5 and enough_speakers(5) and not enough_speakers(4)
    assert interval_text([0.1234, 0.5], 9) == "12.3 to 50.0"
    assert interval_text([-0.01, 0.5], 9, 9, sign="+") == "-1.0 to +50.0"
    assert interval_text(None, 4) == why_no_interval(4) == "no interval below 5 speakers"
    assert why_no_interval(5, 4) == why_no_interval(4, 5) == "no interval below 5 speakers of each gender"
    assert why_no_interval(5) == why_no_interval(5, 6) == "no interval: the speakers do not differ"
