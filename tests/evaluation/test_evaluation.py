"""The metric, and evaluations and errors of `evaluate.py`."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
from conftest import RATE, ROOT, TONES, load_script, run_script, write_corpus
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from trees import ravdess_tree

import evaluate
from modeling_gemoclap import GEmoClapConfig
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation import mteb
from modeling_gemoclap.evaluation.statistics import recorded_counts

METRIC = str(ROOT / "modeling_gemoclap/evaluation/war_uar")


@pytest.fixture(scope="module")
def judge():
    script = load_script("evaluate")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


def test_metric_by_hand():
    metric = evaluate.load(METRIC)
    result = metric.compute(predictions=["sad"] * 4, references=["sad", "sad", "sad", "happy"])
    assert result == {"war": 0.75, "uar": 0.5, "recall": {"happy": 0.0, "sad": 1.0}}
    # a class that is predicted but never true has no recall
    assert metric.compute(predictions=[2, 1, 1], references=[1, 1, 1])["uar"] == pytest.approx(2 / 3)


def test_metric_equals_scikit_learn():
    rng = np.random.default_rng(0)
    references, predictions = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    result = evaluate.load(METRIC).compute(predictions=predictions, references=references)
    assert result["uar"] == pytest.approx(balanced_accuracy_score(references, predictions))
    assert result["war"] == pytest.approx((references == predictions).mean())


def test_the_files_of_an_evaluation(judge, trained, tones, tmp_path, capsys):
    judge("--model", trained, "--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path / "out")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {"war", "uar", "recall", "n", "protocol"} <= set(results)
    assert results["n"] == 12 and results["uar"] > 0.9 and set(results["recall"]) == set(TONES)
    assert "speaker-independent" in results["protocol"] and results["speakers"] == ["04"]
    rows = list(csv.DictReader(open(tmp_path / "out/predictions.csv")))
    scores = [f"score_{label}" for label in results["labels"]]
    assert list(rows[0]) == ["file_name", "emotion", "predicted", *scores, "speaker_id", "gender"]
    truth, predicted = ([row[name] for row in rows] for name in ("emotion", "predicted"))
    assert results["confusion"] == confusion_matrix(truth, predicted, labels=results["labels"]).tolist()
    for row in rows:
        scores = {label: float(row[f"score_{label}"]) for label in results["labels"]}
        assert row["predicted"] == max(scores, key=scores.get) and sum(scores.values()) == pytest.approx(1, abs=1e-5)
    image = (tmp_path / "out/confusion_matrix.png").read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert "| WAR | UAR |" in capsys.readouterr().out


def test_a_pair_of_speakers_has_no_interval(judge, trained, tones, tmp_path, capsys):
    """The bounds of a bootstrap would be the UARs of the two speakers. Every report states why it has no interval."""
    options = ("--model", trained, "--data_dir", tones, "--speakers", "03", "04", "--allow_seen_speakers")
    judge(*options, "--output_dir", tmp_path / "out")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["intervals"] == {"uar": None, "war": None, "method": None}
    assert results["fairness"]["gap_interval"] is None and results["fairness"]["num_male"] == 1
    page, table = ((tmp_path / "out" / name).read_text() for name in ("report.html", "results.md"))
    for text in (page, table, capsys.readouterr().out):
        assert text.count("no interval below 5 speakers") >= 2 and "nan to" not in text
        assert "no interval below 5 speakers of each gender" in text
    assert "Intervals are 95 % intervals over speakers: Student's t" in page
    counts = recorded_counts(results["speaker_confusions"])
    assert list(results["speaker_confusions"]) == ["03", "04"] and counts.shape == (1, 2, 3, 3)
    assert counts.sum((0, 1)).tolist() == results["confusion"]


def test_seen_speakers_are_refused_unless_allowed_and_then_reported(judge, trained, tones, tmp_path):
    options = ("--model", trained, "--data_dir", tones, "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match="trained or developed on its speakers 01, 02, 03.*--speakers 04"):
        judge(*options)
    with pytest.raises(ValueError, match="developed on its speakers 01, 02, 03"):
        judge(*options, "--corpus_name", "renamed")
    assert not (tmp_path / "out").exists()
    judge(*options, "--allow_seen_speakers")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["protocol"].count("NOT speaker-independent") == 1 and results["seen_speakers"] == ["01", "02", "03"]


def test_unusable_clips(judge, trained, tmp_path):
    corpus = write_corpus(tmp_path / "others")
    soundfile.write(corpus / "audio/01_sad_0.wav", np.zeros(RATE), RATE)
    (corpus / "audio/02_sad_0.wav").unlink()
    options = ("--model", trained, "--data_dir", corpus, "--corpus_name", "others", "--allow_seen_speakers")
    with pytest.raises(ValueError, match="2 of 48 clips") as error:
        judge(*options, "--output_dir", tmp_path / "out")
    assert "01_sad_0.wav: silent" in str(error.value) and "02_sad_0.wav: no such file" in str(error.value)
    assert not (tmp_path / "out").exists()
    judge(*options, "--output_dir", tmp_path / "out", "--on_bad_audio", "skip")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["n"] == 46 and len(results["skipped"]) == 2


def test_corpora_that_do_not_fit_the_checkpoint(judge, trained, tmp_path):
    corpus = write_corpus(tmp_path / "one", clips=1, salt="n")
    rows = list(csv.reader(open(corpus / "metadata.csv")))

    def rewrite(change):
        changed = [rows[0], *(change(list(row)) for row in rows[1:])]
        csv.writer(open(corpus / "metadata.csv", "w", newline="")).writerows(changed)

    options = ("--model", trained, "--data_dir", corpus, "--output_dir", tmp_path / "out")
    rewrite(lambda row: [row[0], "sad", "", "x"])
    with pytest.raises(ValueError, match="all clips are sad"):
        judge(*options)
    rewrite(lambda row: [row[0], "fear" if row[1] == "sad" else row[1], "", "x"])
    with pytest.raises(ValueError, match="'fear': 4"):
        judge(*options)
    judge(*options, "--drop_other_emotions")
    notes = json.loads((tmp_path / "out/results.json").read_text())["notes"]
    assert any(note.startswith("no clip is sad: these predictions are wrong") for note in notes)
    rewrite(lambda row: [row[0] if row[1] == "sad" else f"gone/{row[0]}", row[1], "", "x"])
    with pytest.raises(ValueError, match="without the 8 unusable clips fewer than two"):
        judge(*options, "--on_bad_audio", "skip", "--overwrite_output")
    rewrite(lambda row: [row[0], "", "", "x"])
    with pytest.raises(ValueError, match="all clips are without an emotion"):
        judge(*options)
    rewrite(lambda row: [row[0], "" if row[1] == "sad" else row[1], "", "x"])
    judge(*options, "--overwrite_output")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["n"] == 8 and "4 clips have no emotion label and were not evaluated" in results["notes"]
    with pytest.raises(ValueError, match="no config.json"):
        judge("--model", tmp_path, "--data_dir", corpus)
    with pytest.raises(ValueError, match="absent: no such folder, and no such model"):
        judge("--model", tmp_path / "absent", "--data_dir", corpus)
    with pytest.raises(ValueError, match="--seeds is for a protocol's run"):
        judge(*options, "--seeds", "0")


@pytest.mark.slow
def test_from_the_command_line_and_beside_the_library(trained, tones, tmp_path):
    """`evaluate.py` runs from the root, where its name shadows the library that it uses."""
    options = ("--model", trained, "--data_dir", tones, "--output_dir", tmp_path / "out", "--speakers")
    done = run_script("evaluate.py", *options, "04")
    assert "| WAR | UAR |" in done.stdout
    done = run_script("evaluate.py", *options, "01", "--output_dir", tmp_path / "other", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("evaluate.py: tones: the checkpoint was trained or developed on")
    )
    code = "import evaluate; print(evaluate.load, evaluate.__version__)"
    done = run_script("-c", code, env={"PYTHONPATH": str(ROOT)})
    assert "function load" in done.stdout


def test_other_emotions_as_prompts(judge, trained, tones, tmp_path):
    """A corpus with emotions that were not in training, and labels given by the user."""
    shutil.copytree(tones, tmp_path / "others")
    path = tmp_path / "others/metadata.csv"
    path.write_text(path.read_text().replace(",happy,", ",surprise,"))
    options = ("--model", trained, "--data_dir", tmp_path / "others", "--speakers", "04")
    with pytest.raises(ValueError, match="'surprise': 4"):
        judge(*options, "--output_dir", tmp_path / "out")
    judge(*options, "--labels", "corpus", "--output_dir", tmp_path / "corpus")
    results = json.loads((tmp_path / "corpus/results.json").read_text())
    assert results["labels"] == ["angry", "sad", "surprise"] and results["recall"]["angry"] == 1
    judge(*options, "--labels", "angry", "sad", "calm", "surprise", "--output_dir", tmp_path / "words")
    assert json.loads((tmp_path / "words/results.json").read_text())["labels"] == ["angry", "sad", "calm", "surprise"]


def test_ravdess_zeroshot_is_the_task_of_mteb(judge, trained, tones, tmp_path, monkeypatch):
    folder = ravdess_tree(tmp_path / "ravdess")
    options = ("--model", trained, "--protocol", "ravdess-zeroshot")
    with pytest.raises(ValueError, match="all 1440 speech clips of RAVDESS; tones has 48"):
        judge(*options, "--data_dir", tones, "--allow_seen_speakers", "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match="ravdess has 192"):
        judge(*options, "--data_dir", folder, "--output_dir", tmp_path / "out")
    corpus = load_corpus(folder)
    monkeypatch.setattr(mteb, "CLIPS", len(corpus))
    candidates = mteb.ravdess_zeroshot(corpus)
    prompts = GEmoClapConfig.from_pretrained(trained).class_prompts(candidates.words, candidates.template)
    named = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert prompts == [[f"this person is feeling {word}"] for word in named]
    judge(*options, "--data_dir", folder, "--output_dir", tmp_path / "out")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["protocol"].startswith("ravdess-zeroshot (accuracy is WAR)") and results["n"] == 192
    assert results["labels"] == list(mteb.WORDS) and set(results["recall"]) == set(mteb.WORDS)


def test_results_of_another_run_are_not_overwritten(judge, trained, tones, tmp_path):
    options = ("--model", trained, "--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path / "out")
    judge(*options)
    judge(*options)
    with pytest.raises(ValueError, match="holds the results of another run, with another corpus: "):
        judge(*options, "--corpus_name", "renamed")
    judge(*options, "--corpus_name", "renamed", "--overwrite_output")
