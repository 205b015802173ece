"""The pages on classification run as they are written: command.md, python.md, predict.md, search.md."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, TONES
from pages import Commands, block, run_python


@pytest.fixture
def folder(tones, tmp_path, monkeypatch):
    """A folder as the pages assume it: recordings, and the checkpoints of the repository."""
    clips = sorted(tones.glob("audio/*.wav"))
    (tmp_path / "recordings").mkdir()
    for name, clip in zip(("clip.wav", "a.flac", "b.wav", "recordings/c.wav"), clips, strict=False):
        soundfile.write(tmp_path / name, *soundfile.read(clip))
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_command(folder):
    answer = json.loads(Commands(folder).run(block("command.md", "Predict")))
    assert answer["file"] == "-" and answer["label"] == max(answer["scores"], key=answer["scores"].get)
    [row] = csv.DictReader((folder / "emotions.csv").open(newline=""))
    [line] = map(json.loads, (folder / "emotions.jsonl").read_text().splitlines())
    assert row["file"] == line["file"] == "recordings/c.wav" and line["gender"] in ("female", "male")


def test_python(folder, tones):
    names = run_python(block("python.md", "Python"))
    assert names["audio"].shape == (2, 256) and names["text"].shape == (2, 256)
    table = pd.read_csv(tones / "metadata.csv", dtype=str)
    table["path"] = [str(tones / name) for name in table.file_name]
    train, test = table[table.speaker_id != "04"], table[table.speaker_id == "04"]
    given = {"files": train.path, "emotions": train.emotion, "speakers": train.speaker_id, "genders": train.gender}
    given |= {"test_files": test.path, "test_emotions": test.emotion, "test_speakers": test.speaker_id}
    names = run_python(block("python.md", "Fit and evaluate"), **given)
    assert 0 < names["report"].uar <= 1 and "<html" in (folder / "report.html").read_text()
    assert json.loads((folder / "my-model/config.json").read_text())["emotions"] == sorted(TONES)


@pytest.mark.slow
def test_scikit_learn(folder, tones, capsys):
    table = pd.read_csv(tones / "metadata.csv", dtype=str)
    files = np.array([str(tones / name) for name in table.file_name])
    run_python(block("python.md", "scikit-learn"), files=files, emotions=table.emotion, speakers=table.speaker_id)
    assert len(capsys.readouterr().out.strip().splitlines()[-1].split()) == 2


def test_predict(folder):
    first = run_python(block("predict.md", "Pipeline"))
    assert first["pipe"]("clip.wav")[0]["label"] in first["pipe"].model.config.emotions
    run_python(block("predict.md", "Classify a folder"))
    names = run_python(block("predict.md", "Embeddings"))
    assert names["audio"].shape == (2, 256)
    names = run_python(block("predict.md", "Pipelines of transformers"))
    assert set(names["labels"]) == set(names["pipe"].model.config.prompt_words)


def test_none_of_these_and_a_report(folder):
    Commands(folder).run(block("predict.md", "None of these"))
    [row] = csv.DictReader((folder / "emotions.csv").open(newline=""))
    assert row["label"] == (row["best_label"] if float(row["score"]) >= 0.7 else "none of these")
    names = run_python(block("predict.md", "None of these", 1))
    assert names["answer"].rejected == (names["answer"].score < 0.7)
    Commands(folder).run(block("predict.md", "Report on recordings"))
    assert "<html" in (folder / "report.html").read_text()


def test_index_and_search(folder, tones):
    pytest.importorskip("pyarrow")
    for number, clip in enumerate(sorted(tones.glob("audio/*.wav"))[:3]):
        soundfile.write(folder / f"recordings/{number}.wav", *soundfile.read(clip))
    Commands(folder).run(block("search.md", "Index and search"))
    rows = list(csv.DictReader((folder / "hits.csv").open(newline="")))
    assert len(rows) == 4 and [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    names = run_python(block("search.md", "Index and search", 1))
    assert len(names["hits"]) == len(names["index"]) == 4 and {hit.state for hit in names["hits"]} == {"unchanged"}


def test_search(folder):
    pytest.importorskip("sentence_transformers")
    soundfile.write(folder / "b.flac", *soundfile.read(folder / "b.wav"))
    (folder / "a.wav").symlink_to("clip.wav")
    names = {}
    for code in (
        block("search.md", "Embeddings"),
        block("search.md", "Search"),
        block("search.md", "Smaller embeddings"),
        block("search.md", "Smaller embeddings", 1),
    ):
        names |= run_python(code, **names)
    assert names["small"].shape == names["recordings"].shape == (1, 256) and names["tiny"].shape == (1, 32)
    assert abs(names["restored"] - names["recordings"]).max() < 0.01
