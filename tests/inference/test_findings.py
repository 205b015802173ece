"""What stands out: sentences, and the numbers in them."""

import numpy as np
import pytest

from modeling_gemoclap.inference.findings import Background, ReportRow, findings
from modeling_gemoclap.inference.predictions import NONE_OF_THESE, Prediction
from modeling_gemoclap.inference.signals import Signal
from modeling_gemoclap.training_clips import MEASURES, training_clips_of

NORMAL = {"level_db": -20.0, "snr_db": 30.0, "seconds": 3.0, "bandwidth_hz": 8000.0}


def training():
    spread = np.linspace(-1, 1, 41)
    measures = {name: [NORMAL[name] * (1 + 0.1 * each) for each in spread] for name in MEASURES}
    embeddings = np.random.default_rng(0).standard_normal((41, 4))
    return training_clips_of(embeddings, [str(number % 3) for number in range(41)], measures, "0" * 64)


def row(label="sad", score=0.8, percentile=50, rejected=False, rate=16000, clipped=0.0, **signal):
    answer = Prediction(NONE_OF_THESE if rejected else label, score, {label: score}, best_label=label)
    return ReportRow("a.wav", answer, Signal(sampling_rate=rate, clipped=clipped, **NORMAL | signal), 0.1, percentile)


def told(rows, **background):
    return " ".join(findings(rows, Background(background.pop("training", None) or training(), **background)))


def test_what_a_user_asks_for():
    rows = [row(level_db=-45.0)] * 38 + [row("angry")] * 2
    text = told(rows)
    assert "38 of 40 recordings are sad, with a mean score of 0.80." in text
    assert (
        "38 of 40 recordings are quieter than 95 % of the training clips: the median level is -45.0 dBFS, that of "
        in text
    )
    assert "the training clips -20.0 dBFS." in text and "same level" not in text
    assert "the level itself does not change its answers" in told(rows, sets_level=True)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"snr_db": 5.0}, "4 of 4 recordings are noisier than 95 % of the training clips"),
        ({"snr_db": 60.0}, "are less noisy than"),
        ({"seconds": 0.5}, "are shorter than"),
        ({"seconds": 60.0}, "the median length is 60.0 s"),
        ({"level_db": -3.0}, "are louder than"),
        ({"rate": 8000, "bandwidth_hz": 3900.0}, "have no sound above 4,000 Hz, as on the telephone (4 at 8,000 Hz)"),
        ({"bandwidth_hz": 3400.0}, "(4 at 16,000 Hz); the median bandwidth of the training clips is 8,000 Hz"),
        ({"clipped": 0.02}, "4 of 4 recordings are clipped: more than 0.1 % of the samples"),
        ({"percentile": 99}, "4 of 4 recordings are farther from the nearest training clip than 95 %"),
    ],
)
def test_each_difference_is_told(changes, expected):
    assert expected in told([row(**changes)] * 4)
    assert expected not in told([row()] * 4)


def test_nothing_stands_out_below_a_quarter():
    text = told([row(level_db=-45.0)] * 2 + [row()] * 8)
    assert "quieter" not in text and "fewer than a quarter of the recordings are outside" in text
    assert "0 of 10 recordings are farther" in text


def test_unknown_is_told_as_unknown():
    text = told([row(level_db=-90.0, percentile=None)], training="the checkpoint holds none")
    assert "The distance to the training clips is unknown: the checkpoint holds none." in text
    assert "1 of 1 recording is sad" in text and "quieter" not in text and "range of the training clips" not in text


def test_rejections_errors_and_scores_that_only_rank():
    rows = [row(score=0.4, rejected=True), row(), row(), ReportRow("b.wav", "b.wav: too short", None)]
    text = told(rows, reject_below=0.5, only_ranks="the checkpoint is not calibrated")
    assert "3 of 3 recordings are sad" in text and "1 of 4 recordings cannot be used." in text
    assert "1 of 3 recordings, with a score below 0.5, is answered 'none of these'." in text
    assert "Scores only rank the labels and are no probabilities: the checkpoint is not calibrated." in text
    assert findings(rows[-1:], Background(training())) == ["None of the 1 recording can be used."]
