"""`reject_below`: from the option to the rows, and what is refused."""

import csv
import json
from dataclasses import asdict

import numpy as np
import pytest
import soundfile
from test_cli import predict, rows_of

from modeling_gemoclap.estimators.model import GEmoClap
from modeling_gemoclap.inference import predictions as module
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.predictions import (
    NONE_OF_THESE,
    Prediction,
    PredictionOptions,
    identity_of_predictions,
    why_only_ranks,
)

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("recordings")
    for index in range(6):
        wave = 0.3 * np.sin(2 * np.pi * (150 + 180 * index) * np.arange(RATE) / RATE)
        soundfile.write(place / f"{index}.wav", wave, RATE)
    return place


@pytest.fixture(scope="module")
def model():
    return GEmoClap.from_pretrained("compact")


@pytest.fixture(scope="module")
def threshold(folder, model):
    """A threshold that some of the recordings reach."""
    return float(np.median([answer.score for answer in model.predict(sorted(folder.glob("*.wav")))]))


@pytest.fixture
def warnings(monkeypatch):
    told = []
    monkeypatch.setattr(module.logger, "warning_once", told.append)
    return told


def test_rows_keep_the_scores_and_name_the_best_label(folder, threshold, tmp_path, capsys):
    for suffix in ("csv", "jsonl"):
        path = tmp_path / f"out.{suffix}"
        assert predict(folder, "--output", path, "--reject-below", threshold) == 0
        assert f"6 predicted, of which 3 'none of these' (score below {threshold:g})" in capsys.readouterr().err
    plain = tmp_path / "plain.csv"
    assert predict(folder, "--output", plain) == 0 and "none of these" not in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert list(rows_of(plain)[0])[:3] == ["file", "label", "score"] and "best_label" not in rows_of(plain)[0]
    for row, line, before in zip(rows_of(tmp_path / "out.csv"), lines, rows_of(plain), strict=True):
        rejected = float(row["score"]) < threshold
        assert row["label"] == line["label"] == (NONE_OF_THESE if rejected else before["label"])
        assert row["best_label"] == line["best_label"] == before["label"]
        assert {name: row[name] for name in before if name != "label"} == {
            name: before[name] for name in before if name != "label"
        }
    assert sum(line["label"] == NONE_OF_THESE for line in lines) == 3


def test_the_table_has_both_labels_and_quiet_does_not_hide_rejections(folder, threshold, capsys):
    assert predict(folder, "--quiet", "--reject-below", threshold) == 0
    printed = capsys.readouterr()
    assert printed.out.count("none of these") == 3 and "best label" in printed.out.splitlines()[0]
    assert "of which 3 'none of these'" in printed.err
    assert predict(folder, "--quiet", "--reject-below", 0.001) == 0
    assert capsys.readouterr().err == ""


def test_a_file_with_another_threshold_is_not_continued(folder, threshold, tmp_path, capsys):
    output = ("--output", tmp_path / "out.csv")
    assert predict(folder, *output) == predict(folder, *output) == 0, "files without a threshold are continued"
    assert "6 already in" in capsys.readouterr().err
    assert predict(folder, *output, "--reject-below", threshold) == 2
    assert "has predictions made otherwise (reject_below" in capsys.readouterr().err
    assert predict(folder, *output, "--reject-below", threshold, "--restart") == 0
    assert predict(folder, *output, "--reject-below", threshold) == 0 and predict(folder, *output) == 2
    with open(tmp_path / "out.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 7


def test_the_threshold_is_in_the_identity_only_if_there_is_one(model):
    without, with_one = (identity_of_predictions(model.pipe, PredictionOptions(reject_below=x)) for x in (None, 0.5))
    assert "reject_below" not in without and with_one == without | {"reject_below": 0.5}


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, float("nan"), float("inf"), True, np.True_, "0.5"])
def test_wrong_thresholds_name_the_option(value):
    with pytest.raises(ValueError, match="^reject_below .*: give a number above 0 and below 1"):
        PredictionOptions(reject_below=value)


@pytest.mark.parametrize("value", ["0", "1", "nan", "-3"])
def test_wrong_thresholds_on_the_command_line(value, folder, capsys):
    assert predict(folder, "--reject-below", value) == 2
    assert f"--reject-below {float(value)!r}: give a number above 0 and below 1" in capsys.readouterr().err


def test_a_label_with_the_name_of_the_answer_is_refused(folder, model, capsys):
    labels = f"angry,{NONE_OF_THESE.title()}"
    assert predict(folder, "--labels", labels, "--reject-below", 0.5) == 2
    assert "--reject-below answers 'none of these', which is also one of the labels" in capsys.readouterr().err
    with pytest.raises(ValueError, match="one of the labels"):
        model.predict([], labels=["angry", NONE_OF_THESE], reject_below=0.5)
    assert model.predict([], labels=["angry", NONE_OF_THESE]) == []


def test_python(folder, model, threshold, warnings):
    recordings = sorted(folder.glob("*.wav"))
    plain, answers = model.predict(recordings), model.predict(recordings, reject_below=threshold)
    assert [answer.rejected for answer in answers] == [answer.score < threshold for answer in plain]
    assert [answer.best_label for answer in answers] == [answer.label for answer in plain]
    assert not any(answer.rejected for answer in plain) and not warnings
    assert [answer.scores for answer in answers] == [answer.scores for answer in plain]
    assert {"label", "best_label", "score"} <= asdict(answers[0]).keys(), "columns of pandas.DataFrame(answers)"
    assert Prediction("sad", 0.9, {"sad": 0.9}).best_label == "sad"


def test_a_warning_tells_that_scores_only_rank(folder, model, warnings):
    own = model.classes_.tolist()
    for changed in ({"labels": ["furious", "gloomy"]}, {"templates": "a {} voice"}, {"labels": own[:3]}):
        model.predict(sorted(folder.glob("*.wav"))[:1], **changed)
        assert not warnings, "without a threshold there is nothing to warn of"
        model.predict([], reject_below=0.5, **changed)
        assert "reject_below 0.5: the checkpoint is calibrated for other labels" in warnings.pop()
    model.predict([], reject_below=0.5, labels=own[::-1])
    model.predict([], reject_below=0.5)
    assert not warnings
    pipe = load_pipeline("compact")
    pipe.model.config.calibration_temperature = None
    assert why_only_ranks(pipe, PredictionOptions()) == "the checkpoint is not calibrated"
    list(module.predict(pipe, [], PredictionOptions(reject_below=0.5)))
    assert "not calibrated, so scores only rank" in warnings.pop()
