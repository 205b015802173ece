"""`gemoclap predict --report`: a page on recordings without labels."""

import io
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from test_cli import predict, rows_of, run

from modeling_gemoclap.fingerprint import TRAINING_CLIPS
from modeling_gemoclap.inference import report as module
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.predictions import PredictionOptions, predict_with_embeddings
from modeling_gemoclap.inference.report import RecordingReport, training_clips_for

RATE = 8000
MARKUP = "<script>alert(1)<_script>&\"'.wav"


class Page(HTMLParser):
    """The tags of a page, its cells, and what could be loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "onclick")]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "recordings"
    place.mkdir()
    for index, name in enumerate(["a.wav", "b.wav", MARKUP]):
        wave = 0.005 * np.sin(2 * np.pi * (150 + 80 * index) * np.arange(RATE) / RATE)
        with open(place / name, "wb") as file:
            soundfile.write(file, wave, RATE, format="WAV")
    (place / "broken.wav").write_bytes(b"no audio")
    return place


def test_the_page_escapes_everything_and_needs_no_other_file(folder, tmp_path, capsys):
    place = tmp_path / "new" / "page.html"
    labels = "<b>glad</b>,<img src=x onerror=alert(1)>"
    assert predict(folder, "--labels", labels, "--report", place, "--reject-below", 0.99) == 1, "one is broken"
    page = Page(place.read_text(encoding="utf-8"))
    assert not {"script", "b", "img", "iframe", "link"} & {*page.tags} and not page.links
    assert "&lt;script&gt;alert(1)&lt;_script&gt;&amp;&#34;&#39;.wav" in page.text
    assert "&lt;b&gt;glad&lt;/b&gt;" in page.text and "url(" not in page.text
    printed = capsys.readouterr().err
    assert f"report: {place}" in printed and "3 of 3 recordings are quieter than 95 % of the training clips" in printed
    assert "have no sound above 4,000 Hz, as on the telephone (3 at 8,000 Hz)" in printed
    assert "1 of 4 recordings cannot be used." in printed and "broken.wav" in page.text
    assert "calibrated for other labels or templates" in printed
    unusable = page.text.partition("Recordings that cannot be used")[2]
    assert f"{folder}.</p>" in unusable and "<dt>broken.wav</dt><dd>not audio that can be read" in unusable
    assert page.text.count("broken.wav") == 1 and "best label" in page.text and "8,000</td>" in page.text
    for sentence in re.findall(r"^  (\d+ of .*)$", printed, re.M):
        assert sentence.split(":")[0].split("<")[0].split("'")[0] in page.text


def test_answers_are_those_without_a_report(folder, tmp_path):
    files = [tmp_path / "with.csv", tmp_path / "without.csv"]
    predict(folder, "--output", files[0], "--report", tmp_path / "page.html")
    predict(folder, "--output", files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_continued_file_has_its_recordings_on_the_page_and_each_row_once(folder, tmp_path, capsys):
    output = ("--output", tmp_path / "out.csv")
    predict(folder, *output)
    before = rows_of(tmp_path / "out.csv")
    soundfile.write(folder / "new.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    capsys.readouterr()
    predict(folder, *output, "--report", tmp_path / "page.html", "--quiet")
    assert "report:" not in capsys.readouterr().err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>5 recordings" in page and "new.wav" in page and "a.wav" in page
    assert len(rows_of(tmp_path / "out.csv")) == len(before) + 1 == 5


def test_wrong_places_are_refused_before_anything_is_loaded(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modeling_gemoclap.inference.loading.load_pipeline", None)
    assert predict(folder, "--report", tmp_path / "page.pdf") == 2
    assert "give a name that ends in .html" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert predict(folder, "--report", tmp_path / "file" / "page.html") == 2
    assert "--report" in capsys.readouterr().err


def test_standard_input(folder, tmp_path, monkeypatch):
    data = io.TextIOWrapper(io.BytesIO((folder / "a.wav").read_bytes()))
    monkeypatch.setattr(sys, "stdin", data)
    assert predict("-", "--report", tmp_path / "page.html", "--quiet") == 0
    assert "<h1>1 recording," in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_without_a_sample_or_with_that_of_other_weights_the_distance_is_unknown(folder, tmp_path, capsys):
    copy = shutil.copytree(ROOT / "checkpoints/gemoclap-compact", tmp_path / "copy", symlinks=False)
    (copy / TRAINING_CLIPS).unlink()
    words = ("predict", folder / "a.wav", "--model", copy, "--report", tmp_path / "page.html")
    unknown = "unknown: the checkpoint holds no embeddings of its training clips"
    assert run(*words) == 0 and unknown in capsys.readouterr().err
    assert unknown in (tmp_path / "page.html").read_text(encoding="utf-8")
    shutil.copyfile(ROOT / "checkpoints/gemoclap-base" / TRAINING_CLIPS, copy / TRAINING_CLIPS)
    assert run(*words) == 0 and "were made with other weights" in capsys.readouterr().err
    (copy / TRAINING_CLIPS).write_bytes(b"no tensors")
    assert run(*words) == 2 and "cannot be read" in capsys.readouterr().err


def test_a_training_clip_is_near_itself(corpora, tmp_path):
    pipe, options = load_pipeline("compact"), PredictionOptions()
    training = training_clips_for(pipe, "compact")
    clips = [corpora / "emodb/audio/03a01Fa.flac"]
    page = RecordingReport(str(tmp_path / "page.html"), pipe, options, training, "compact")
    [(answer, embedding)] = predict_with_embeddings(pipe, iter(clips), options)
    assert list(page.predict(["clip"], iter(clips))) == [answer]
    assert page.rows[0].distance == pytest.approx(0, abs=2e-3) and page.rows[0].percentile <= 5
    assert training.distance(-embedding) > 0.3 and training.percentile(training.distance(-embedding)) == 100


def test_a_long_list_is_cut_and_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    predict(folder, "--report", tmp_path / "page.html", "--quiet")
    assert "the first 2 of 3 recordings" in (tmp_path / "page.html").read_text(encoding="utf-8")
