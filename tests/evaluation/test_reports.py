"""Statements in the files of an evaluation, and the files that it overwrites."""

import json
import shutil

import pytest
from conftest import load_script, write_corpus

from modeling_gemoclap import GEmoClapForXVector
from modeling_gemoclap.evaluation import report
from modeling_gemoclap.evaluation.comparison import compare_runs
from modeling_gemoclap.evaluation.layers import starting_point


@pytest.fixture(scope="module")
def judge():
    script = load_script("evaluate")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


def changed_record(checkpoint, folder, *more, **changes):
    """Copy a checkpoint with changes to its first training record and with further records."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["training_data"] = [config["training_data"][0] | changes, *more]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_training_data_of_the_starting_point_are_checked_too(judge, trained, tones, tmp_path, capsys):
    heard = changed_record(trained, tmp_path / "heard", speakers=["01", "04"])
    options = ("--model", trained, "--data_dir", tones, "--layer_similarity", "--speakers", "04")
    options += ("--output_dir", tmp_path / "out", "--overwrite_output")
    judge(*options, "--before", trained)
    assert "; speaker-independent: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="tones: --before .*heard was trained or developed on its speakers 04"):
        judge(*options, "--before", heard)
    judge(*options, "--before", heard, "--allow_seen_speakers")
    assert "NOT speaker-independent: trained on speakers 04" in capsys.readouterr().out
    unknown = changed_record(trained, tmp_path / "unknown", {"unknown": "it was trained on something"})
    judge(*options, "--before", unknown)
    assert "UNKNOWN whether speaker-independent" in capsys.readouterr().out


def test_a_pretrained_encoder_before_is_named(make_model, tmp_path):
    model = make_model("wavlm-base", model_class=GEmoClapForXVector)
    model.audio_model.save_pretrained(tmp_path / "encoder")
    assert starting_point(model.config, str(tmp_path / "encoder")).training_data == [{"encoder": "encoder"}]
    assert starting_point(make_model().config, None).training_data == []


def test_a_control_is_reported_but_not_a_model_that_starts_from_it(judge, trained, tones, tmp_path, capsys):
    control = changed_record(trained, tmp_path / "control", labels_shuffled=True)
    options = ("--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path / "out", "--overwrite_output")
    for more in ((), ("--layer_similarity", "--before", trained)):
        judge("--model", control, *options, *more)
        assert "A CONTROL, trained on shuffled labels" in capsys.readouterr().out
    [last] = json.loads((trained / "config.json").read_text())["training_data"]
    later = changed_record(trained, tmp_path / "later", last, labels_shuffled=True, stage="GEmo-CLAP")
    judge("--model", later, *options)
    assert "A CONTROL" not in capsys.readouterr().out


def test_runs_that_differ_in_speaker_independence_are_not_compared(judge, trained, tones, tmp_path):
    """A speaker-independent run is not compared with one of unknown independence."""
    for name, answer in (("one", "not heard"), ("two", "unknown"), ("three", "not heard")):
        folder = tmp_path / name
        if name == "one":
            judge("--model", trained, "--data_dir", tones, "--allow_seen_speakers", "--output_dir", folder)
            (folder / "predictions.csv").rename(folder / "predictions_seed_0.csv")
        else:
            shutil.copytree(tmp_path / "one", folder)
        record = json.loads((folder / "results.json").read_text())
        record |= {"seeds": [0], "protocols": {"0": {"name": "2-folds-by-speaker", "folds": [["01"], ["02"]]}}}
        record["heard"]["answer"] = answer
        (folder / "results.json").write_text(json.dumps(record))
    assert compare_runs(tmp_path / "one", tmp_path / "three")["difference"] == 0
    with pytest.raises(ValueError, match="two differ in whether the test speakers were heard.*not heard and unknown"):
        compare_runs(tmp_path / "one", tmp_path / "two")


def test_an_interrupted_report_leaves_no_old_results(judge, trained, tones, tmp_path, monkeypatch):
    options = ("--model", trained, "--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path)
    judge(*options)
    mine = tmp_path / "predictions_of_annotators.csv"
    mine.write_text("mine")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "as_markdown", interrupt)
        with pytest.raises(KeyboardInterrupt):
            judge(*options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", mine.name]
    judge(*options)
    assert mine.read_text() == "mine" and (tmp_path / "results.json").is_file()


NASTY = "# h <script>\n```\n| x ![i](y)"


def test_names_and_labels_are_text_in_results(judge, trained, tones, tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    corpus = write_corpus(tmp_path / "corpus", clips=1, salt="n")
    labels = ["angry", "happy", "sad", "calm|<img src=x>"]
    options = ("--model", trained, "--data_dir", corpus, "--corpus_name", NASTY, "--labels", *labels)
    judge(*options, "--allow_seen_speakers", "--output_dir", tmp_path / "out")
    record = json.loads((tmp_path / "out/results.json").read_text())
    assert record["labels"][3] == labels[3]
    text = report.as_markdown(record | {"recall": {label: 0.5 for label in labels}})
    html = markdown_it.MarkdownIt().enable("table").render(text)
    assert html.count("<h1") == html.count("<pre") == html.count("<table") == 1
    assert "<script" not in html and "<img" not in html
    assert html.count("<th") - html.count("<thead") == 9, "five columns of figures and names, four of emotions"


def test_labels_in_another_order_are_the_same_labels(judge, trained, tones, tmp_path):
    options = ("--model", trained, "--data_dir", tones, "--speakers", "04")
    chosen = {"same": ["sad", "happy", "angry"], "more": ["sad", "angry", "happy", "calm"]}
    for name, labels in chosen.items():
        judge(*options, "--labels", *labels, "--output_dir", tmp_path / name)
        record = json.loads((tmp_path / name / "results.json").read_text())
        assert record["temperature_of_other_labels"] is (name == "more")
