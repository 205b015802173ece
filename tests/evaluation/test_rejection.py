"""The risk-coverage curve, against numbers worked out by hand."""

import json

import numpy as np
import pytest

from modeling_gemoclap.evaluation.rejection import COVERAGES, THRESHOLDS, rejection, risk_coverage
from modeling_gemoclap.evaluation.statistics import Predictions

# Highest scores 0.9, 0.8, 0.8, 0.6 of label 0, 0, 1, 1; the second and the last are wrong.
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.4, 0.6]])
TRUTH = np.array([0, 1, 1, 0])


def predictions(scores, truth, speakers):
    number = len(truth)
    names = np.array([f"{index}.wav" for index in range(number)])
    genders, folds = np.array([""] * number), np.zeros(number, int)
    return Predictions(["angry", "sad"], names, np.array(speakers), genders, folds, np.array(truth), np.array(scores))


def test_the_curve_of_four_clips():
    order = [3, 1, 0, 2]
    curve = risk_coverage(SCORES[order], TRUTH[order])
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.6] and curve.kept.tolist() == [1, 3, 4]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.accuracy == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve.uar == pytest.approx([1, (1 + 1 / 2) / 2, (1 / 2 + 1 / 2) / 2])
    assert curve.aurc == pytest.approx((1 * 0 + 2 * (1 / 3) + 1 * (1 / 2)) / 4)


def test_the_area_does_not_depend_on_the_order_of_equal_scores_and_rewards_a_score_that_tells():
    same = np.full((10, 2), 0.5)
    assert risk_coverage(same, np.arange(10) % 2).aurc == 0.5
    rising = np.stack([np.linspace(0.55, 0.95, 10), 1 - np.linspace(0.55, 0.95, 10)], 1)
    told, misled = np.array([1] * 5 + [0] * 5), np.array([0] * 5 + [1] * 5)
    assert risk_coverage(rising, told).aurc < 0.5 < risk_coverage(rising, misled).aurc


def test_rows_have_what_is_kept_and_none_where_nothing_is():
    run = predictions(SCORES, TRUTH, ["1", "1", "2", "2"])
    found = rejection([run])
    assert [row["threshold"] for row in found["thresholds"]] == list(THRESHOLDS)
    by_threshold = {row["threshold"]: row for row in found["thresholds"]}
    at = {"threshold": 0.9, "coverage": 0.25, "n": 1, "accuracy": 1.0, "uar": 1.0, "emotions": 1}
    assert by_threshold[0.9] == at | {"intervals": {"accuracy": None, "uar": None}}, "two speakers have no interval"
    assert by_threshold[0.8]["n"] == 3 and by_threshold[0.5]["coverage"] == 1
    kept = [row["coverage"] for row in found["coverages"]]
    assert all(row >= share for row, share in zip(kept, COVERAGES, strict=True)) and kept[-1] == 0.75
    assert found["aurc_of_random_order"] == 0.5
    nothing = rejection([predictions([[0.45, 0.45]] * 4, TRUTH, ["1", "1", "2", "2"])])["thresholds"][0]
    assert nothing["n"] == 0 and nothing["accuracy"] is None and nothing["uar"] is None
    json.dumps(found, allow_nan=False)


def test_seeds_are_pooled_and_intervals_lie_around_their_figure():
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(2):
        best = generator.uniform(0.5, 1, 240)
        truth = generator.integers(0, 2, 240)
        right = generator.random(240) < best
        label = np.where(right, truth, 1 - truth)
        scores = np.where(label[:, None] == np.arange(2), best[:, None], 1 - best[:, None])
        runs.append(predictions(scores, truth, [str(index % 8) for index in range(240)]))
    rows = rejection(runs)["thresholds"]
    assert rows[0]["n"] == 480 and rows[0]["accuracy"] < rows[-1]["accuracy"]
    for row in rows:
        low, high = row["intervals"]["accuracy"]
        assert low < row["accuracy"] < high
        assert row["intervals"]["uar"][0] < row["uar"] < row["intervals"]["uar"][1]


def test_a_threshold_that_only_one_speaker_passes_has_no_interval():
    scores = [[0.95, 0.05]] * 2 + [[0.6, 0.4]] * 8
    row = rejection([predictions(scores, [0, 1] * 5, ["0", "0", *(str(1 + index // 2) for index in range(8))])])
    assert row["thresholds"][-1]["n"] == 2 and row["thresholds"][-1]["intervals"]["accuracy"] is None
