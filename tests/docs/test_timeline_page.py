"""docs/timeline.md: its commands and code, run as they are written."""

import numpy as np
import pytest
import soundfile
from conftest import ROOT, tone
from pages import Commands, block, run_python

RATE = 16_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    wave = np.concatenate([np.zeros(RATE), tone("angry", 0, 2.0), np.zeros(RATE), tone("sad", 1, 1.0)])
    soundfile.write(tmp_path / "meeting.wav", wave, RATE)
    (tmp_path / "samples.raw").write_bytes((wave * 2**15).astype("<i2").tobytes())
    (tmp_path / "meeting.rttm").write_text("SPEAKER meeting 1 1.0 2.0 <NA> <NA> eva <NA> <NA>\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_commands(folder):
    commands = Commands(folder)
    printed = commands.run(block("timeline.md", "A recording"))
    assert printed.splitlines()[0] == "start,end,label,best_label,score,speaker,score_angry,score_neutral"
    assert (folder / "meeting.vtt").read_text().startswith("WEBVTT") and (folder / "meeting.TextGrid").is_file()
    commands.run(block("timeline.md", "Speakers"))
    assert (folder / "meeting.csv").read_text().splitlines()[1].split(",")[5] == "eva"
    commands.run(block("timeline.md", "Live audio", 2))


def test_code(folder):
    names = run_python(block("timeline.md", "A recording", 1))
    assert list(names["table"].columns)[:3] == ["start", "end", "label"]
    names = run_python(block("timeline.md", "Speakers", 1), model=names["model"])
    assert [segment.speaker for segment in names["segments"]] == ["eva"]
    run_python(block("timeline.md", "Live audio"), model=names["model"], chunks=np.split(tone("angry", 0, 2.0), 10))
