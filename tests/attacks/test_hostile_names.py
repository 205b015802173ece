"""Control characters and markup in labels, names of files and words of checkpoints."""

import ast
import json
import logging
import shutil

import numpy as np
import pytest
import soundfile
from conftest import ROOT, TONES

from modeling_gemoclap import GEmoClapConfig, cli
from modeling_gemoclap.command_line.failures import _report
from modeling_gemoclap.command_line.terminal import printable, without_control
from modeling_gemoclap.corpora.tables import ManifestError
from modeling_gemoclap.inference.segments import Segment
from modeling_gemoclap.inference.timeline_files import TimelineFacts, render_timeline
from modeling_gemoclap.markdown import as_text
from modeling_gemoclap.publishing.push import load_snippet
from modeling_gemoclap.recordings_gemoclap import AudioError, name_of, read_audio
from modeling_gemoclap.service.uploads import display_name

ESCAPE = "a\x1b[2J\x1b]0;title\x07b\x9b31m"


@pytest.mark.parametrize("word", [ESCAPE, "a\0b", "a\u202eb", "a\u2066b", "a\ud800b", "a\x7fb"])
def test_a_label_has_no_control_characters(word):
    for values in ({"emotions": ["angry", word]}, {"genders": [word, "male"]}, {"emotion_templates": [word + " {}"]}):
        with pytest.raises(ValueError, match="contains a control character: remove it"):
            GEmoClapConfig(**values)


def test_joiners_and_scripts_are_allowed_in_a_label():
    words = ["angry", "می\u200cخواهم", "क्\u200dष", "怒り", "\U0001f468\u200d\U0001f469"]
    assert GEmoClapConfig(emotions=words).emotions == words


@pytest.mark.parametrize(
    "text", ["a\xa0b", "18\u202f00.wav", "می\u200cخواهم", "a\u3000b", "\U0001f468\u200d\U0001f469"]
)
def test_joiners_and_spaces_of_other_widths_are_shown(text):
    assert printable(text) == without_control(text) == name_of(text) == display_name(text) == text


@pytest.mark.parametrize("letter", "\0\n\r\x0b\x0c\x1b\x7f\x85\x9b\u2028\u2029\u202a\u202e\u2066\u2069")
def test_every_text_for_people_has_the_same_control_characters(letter):
    text = f"a{letter}b"
    assert printable(text) == without_control(text) == name_of(text) == "a\N{REPLACEMENT CHARACTER}b"
    assert display_name(text) == "ab"
    assert printable("a\udcffb") == "a\N{REPLACEMENT CHARACTER}b" and without_control("a\udcffb") == "a\udcffb"


def test_names_of_files_reach_no_terminal_and_no_log(tmp_path, capsys, caplog):
    name = f"{ESCAPE}\u202e.wav"
    (tmp_path / name).write_text("no audio")
    soundfile.write(tmp_path / "good.wav", 0.1 * np.sin(np.arange(16000) / 5), 16000)
    shutil.copy(tmp_path / "good.wav", tmp_path / f"x{name}")
    with open(tmp_path / f"x{name}", "r+b") as file:
        file.seek(40)
        file.write(b"\xff\xff\xff\x0f")  # a size that is logged as wrong
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as end:
        cli.main(["predict", str(tmp_path), "--model", "compact", "--output", str(tmp_path / "x.csv")])
    printed = capsys.readouterr().err + caplog.text
    assert end.value.code == 1 and "1 could not be used" in printed and "its header specifies" in printed
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)
    with pytest.raises(AudioError, match="a\N{REPLACEMENT CHARACTER}\\[2J"):
        read_audio(tmp_path / name)
    assert name_of("a\nb.wav") == "a\N{REPLACEMENT CHARACTER}b.wav"


def test_an_error_of_a_command_shows_no_control_characters(capsys):
    assert _report("train.py", ManifestError(f"{ESCAPE}: wrong\n\tsecond line")) == 1
    lines = capsys.readouterr().err.split("\n")
    assert "\x1b" not in lines[0] and lines[1] == "\tsecond line"


def test_words_of_a_checkpoint_reach_no_terminal(tmp_path, capsys):
    content = json.loads((ROOT / "checkpoints/gemoclap-compact/config.json").read_text())
    content |= {"calibrated_on": ESCAPE, "training_data": [{"unknown": f"{ESCAPE}\nweights: 1 MB"}]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        cli.main(["info", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert not any("\x1b" in line for line in lines) and sum(line.startswith("weights:") for line in lines) == 1


@pytest.mark.parametrize("kind", ["rttm", "vtt", "srt", "textgrid"])
def test_names_of_speakers_begin_no_rows_and_cues(kind):
    def written(speaker):
        segment = Segment(0.0, 1.0, "angry", 0.9, {"angry": 0.9}, speaker)
        return render_timeline([segment], TimelineFacts(f"{speaker}.wav", 1.0, ["angry"]), kind)

    for speaker in (ESCAPE, "a --", "--", 'a" \n text = "b', "a\u2028b\x85c", "00:00.000 --> 00:01.000"):
        text = written(speaker)
        assert len(text.splitlines()) == len(written("a").splitlines())
        assert not {"\x1b", "\u2028", "\x85"} & set(text)
        assert kind not in ("vtt", "srt") or text.count("-->") == 1


def test_underscores_and_entities_are_no_markup():
    assert as_text("__import__ _a_ a_b &lt;b&gt; ~~x~~") == r"\_\_import\_\_ \_a\_ a_b \&lt;b\&gt; \~~x\~~"


def test_a_name_of_a_repository_stays_a_text():
    code = load_snippet('a/b", __import__("os").system("true"), "', "0" * 40)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert len(calls) == 2 and calls[0].args[0].value.startswith('a/b"')


def test_csv_keeps_names_exactly(tmp_path):
    """Formulas of spreadsheets are not changed: a row must name the file that it is about (docs/command.md)."""
    from modeling_gemoclap.inference.output import Rows
    from modeling_gemoclap.inference.predictions import Prediction

    rows = Rows("csv", list(TONES), False)
    line = rows.line("=cmd|' /C calc'!A0.wav", Prediction("sad", 1.0, dict.fromkeys(TONES, 0.5)))
    [(name, _, _)] = rows.read(rows.header + line)
    assert name == "=cmd|' /C calc'!A0.wav"
