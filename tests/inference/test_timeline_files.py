"""Formats of timelines, diarisations, and the commands timeline and listen."""

import csv
import inspect
import io
import json
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from conftest import ROOT, tone

from modeling_gemoclap import AudioError, Segment, TimelineOptions, cli
from modeling_gemoclap.inference import timeline_run
from modeling_gemoclap.inference.listening import MicrophoneError, listen, microphone_chunks, pipe_chunks
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.stream import EmotionStream
from modeling_gemoclap.inference.timeline import timeline
from modeling_gemoclap.inference.timeline_files import COLUMNS as COLUMNS_OF_TABLES
from modeling_gemoclap.inference.timeline_files import (
    WRITERS,
    TimelineFacts,
    as_dataframe,
    as_dicts,
    format_of_timeline,
    render_timeline,
)
from modeling_gemoclap.inference.timeline_picture import COLUMNS, Envelope, draw_timeline
from modeling_gemoclap.inference.timeline_run import clock
from modeling_gemoclap.inference.turns import Turn, read_rttm

RATE = 16_000
SEGMENTS = [
    Segment(0.5, 2.0, "sad", 0.75, {"sad": 0.75, '<b>&"angry"': 0.25}),
    Segment(3661.0004, 3662.9996, '<b>&"angry"', 0.6, {'<b>&"angry"': 0.6, "sad": 0.4}, "Eva\nx --> y"),
]
FACTS = TimelineFacts("a folder/<i>clip</i>.wav", 3700.0, ["sad", '<b>&"angry"'], "compact")
QUICK = ("--model", "compact", "--vad", "level", "--window", "1", "--step", "0.5")


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("compact")


@pytest.fixture
def recording(tmp_path):
    silence = np.zeros(RATE, np.float32)
    parts = [silence, tone("angry", 0, 2.0), silence, tone("sad", 1, 1.0), silence]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), RATE)
    return tmp_path / "a.wav"


def run(*words) -> int:
    """Run a command in this process; its exit status."""
    with pytest.raises(SystemExit) as exit:
        cli.main([*map(str, words)])
    return exit.value.code


# ---- formats --------------------------------------------------------------------------------------------------------
def test_csv_json_and_tables():
    [first, second] = csv.DictReader(io.StringIO(render_timeline(SEGMENTS, FACTS, "csv"), newline=""))
    assert (first["start"], first["speaker"], first["score_sad"]) == ("0.500", "", "0.75")
    assert second["label"] == SEGMENTS[1].label and second["speaker"] == SEGMENTS[1].speaker
    values = json.loads(render_timeline(SEGMENTS, FACTS, "json"))
    assert values["segments"] == as_dicts(SEGMENTS) and values["seconds"] == 3700.0
    lines = render_timeline(SEGMENTS, FACTS, "jsonl").splitlines()
    assert [json.loads(line)["file"] for line in lines] == [FACTS.recording] * 2
    frame = as_dataframe(SEGMENTS)
    assert list(frame["label"]) == ["sad", SEGMENTS[1].label] and frame["score_sad"].tolist() == [0.75, 0.4]
    assert list(as_dataframe([]).columns) == list(COLUMNS_OF_TABLES)


def test_subtitles_have_no_markup_of_labels_and_names():
    vtt, srt = (render_timeline(SEGMENTS, FACTS, kind) for kind in ("vtt", "srt"))
    assert vtt.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nsad (0.75)\n\n01:01:01.000 --> 01:01:03.000\n")
    assert srt.startswith("1\n00:00:00,500 --> 00:00:02,000\nsad (0.75)\n\n2\n01:01:01,000 --> 01:01:03,000\n")
    assert '&lt;b&gt;&amp;"angry" (0.60)' in vtt and "Eva x --&gt; y" in vtt
    assert '‹b›&"angry" (0.60)' in srt and "Eva x --› y" in srt
    for text in (vtt, srt):
        assert "<b>" not in text
        assert len(re.findall(r"^\d\d:.* --> \d\d:\d\d:\d\d[.,]\d{3}$", text, re.M)) == text.count("-->") == 2


def test_rttm_is_read_again(tmp_path):
    (tmp_path / "a.rttm").write_text(render_timeline(SEGMENTS, FACTS, "rttm"))
    turns = read_rttm(tmp_path / "a.rttm", "clip.wav")
    assert [turn.start for turn in turns] == [0.5, 3661.0] and turns[0].speaker == "sad"
    assert turns[1].speaker == 'Eva_x_-->_y/<b>&"angry"' and turns[1].end == pytest.approx(3663.0)


def test_textgrid_tiles_the_time():
    overlapping = [Segment(0.0, 1.0, "a", 1.0, {"a": 1.0}), Segment(0.5, 2.0, 'say "x"', 1.0, {})]
    text = render_timeline(overlapping, TimelineFacts("x", 3.0, ["a"]), "textgrid")
    values = re.findall(r"intervals \[\d+\]:\s+xmin = (\S+)\s+xmax = (\S+)\s+text = (.*)", text)
    borders = [(float(start), float(end)) for start, end, _ in values]
    assert borders == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)] and [word for *_, word in values] == [
        '"a"',
        '"say ""x"""',
        '""',
    ]
    assert "intervals: size = 3" in text and text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n')
    empty = render_timeline([], TimelineFacts("x", 3.0, ["a"]), "textgrid")
    assert "size = 1" in empty and "intervals: size = 1" in empty
    by_speaker = [Segment(0, 1, "a", 1.0, {}, "eva"), Segment(0, 2, "b", 1.0, {}, "max")]
    assert re.findall(r"name = (.*)", render_timeline(by_speaker, FACTS, "textgrid")) == ['"eva"', '"max"']


@pytest.mark.parametrize("kind", WRITERS)
def test_an_empty_timeline_is_written(kind):
    text = render_timeline([], FACTS, kind)
    assert text or kind in ("jsonl", "rttm", "srt")


def test_formats_by_suffix():
    assert format_of_timeline("x/A.TextGrid") == "textgrid" and format_of_timeline("a.txt", "srt") == "srt"
    with pytest.raises(ValueError, match=r"a.txt: give a name that ends in one of .csv, .json"):
        format_of_timeline("a.txt")
    assert (clock(59.96), clock(3599.96), clock(7261.25)) == ("01:00.0", "1:00:00.0", "2:01:01.2")


# ---- turns ----------------------------------------------------------------------------------------------------------
def rttm(tmp_path, *lines):
    (tmp_path / "t.rttm").write_text("\n".join(lines) + "\n")
    return tmp_path / "t.rttm"


def test_each_turn_is_one_segment_with_its_speaker(pipe, recording, tmp_path):
    path = rttm(
        tmp_path,
        ";; a comment",
        "SPKR-INFO a 1 <NA> <NA> <NA> unknown eva <NA>",
        "SPEAKER a 1 3.9 1.1 <NA> <NA> max <NA> <NA>",
        "SPEAKER a 1 1.0 2.0 <NA> <NA> eva <NA> <NA>",
        "SPEAKER a 1 1.5 3.0 <NA> <NA> max <NA> <NA>",
    )
    turns = read_rttm(path, recording)
    for size in (1, 16):
        segments = list(timeline(pipe, recording, TimelineOptions(batch_size=size), turns))
        found = [(segment.start, segment.end, segment.speaker) for segment in segments]
        assert found == [(1.0, 3.0, "eva"), (1.5, 4.5, "max"), (3.9, 5.0, "max")]
    wave = soundfile.read(recording, dtype="float32")[0]
    [alone] = pipe([{"array": wave[16_000:48_000], "sampling_rate": RATE}])
    assert segments[0].label == alone[0]["label"] and segments[0].score == pytest.approx(alone[0]["score"], abs=1e-5)


def test_a_long_turn_is_classified_in_parts(pipe):
    wave = np.concatenate([tone("angry", number, 35.0) for number in range(2)])
    [segment] = timeline(pipe, (wave, RATE), segments=[Turn(0.0, 70.0, "eva")])
    thirds = np.split(wave[: len(wave) // 3 * 3], 3)
    expected = [{item["label"]: item["score"] for item in pipe((third, RATE))} for third in thirds]
    mean = {label: np.mean([scores[label] for scores in expected]) for label in expected[0]}
    assert segment.scores == pytest.approx(mean, abs=1e-3)


def test_turns_that_do_not_fit(pipe, recording, caplog):
    [long] = timeline(pipe, recording, segments=[Turn(1.0, 99.0, "eva")])
    assert (long.start, long.end) == (1.0, 6.0) and "the turn of eva at 1 s is cut" in caplog.text
    caplog.clear()
    found = []
    with pytest.raises(
        AudioError, match="1 of 2 turns begin after the end of the recording, 6.00 s, the first that of"
    ):
        for segment in timeline(pipe, recording, segments=[Turn(1.0, 2.0, "eva"), Turn(90.0, 191.0, "max")]):
            found.append(segment)
    assert [(segment.start, segment.end) for segment in found] == [(1.0, 2.0)]
    segments = list(timeline(pipe, recording, segments=[Turn(1.0, 9.0, "eva"), Turn(0.1, 0.6, "max")]))
    assert [(segment.speaker, segment.end) for segment in segments] == [("eva", 6.0)]
    assert "the turn of eva at 1 s is cut" in caplog.text and "the turn of max at 0.1 s cannot be used" in caplog.text


@pytest.mark.parametrize(
    "lines, message",
    [
        (["SPEAKER a 1 0.0"], r"t.rttm, line 1: not SPEAKER FILE"),
        (["", "SPEAKER a 1 0.0 x <NA> <NA> eva"], r"line 2: not SPEAKER"),
        (["SPEAKER a 1 0.0 -1 <NA> <NA> eva"], r"line 1: start 0.0 and duration -1"),
        (["SPEAKER a 1 nan 1 <NA> <NA> eva"], r"line 1: start nan"),
        (["nothing"], r"t.rttm: no line that begins with SPEAKER"),
        ([f"SPEAKER {name} 1 0 1 <NA> <NA> eva" for name in "bc"], r"turns of 2 recordings \(b, c\), but none of a"),
    ],
)
def test_invalid_diarisations(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_rttm(rttm(tmp_path, *lines), "folder/a.wav")


def test_a_diarisation_that_is_no_text(tmp_path):
    (tmp_path / "t.rttm").write_bytes(b"\xff\xfe\x00SPEAKER")
    with pytest.raises(ValueError, match="t.rttm: not a text file in UTF-8"):
        read_rttm(tmp_path / "t.rttm")


# ---- commands -------------------------------------------------------------------------------------------------------
def test_the_command_writes_files(recording, tmp_path, capfd):
    outputs = [word for name in ("new/t.vtt", "t.TextGrid", "t.json") for word in ("--output", str(tmp_path / name))]
    assert run("timeline", recording, *QUICK, *outputs) == 0
    output, errors = capfd.readouterr()
    assert output == "" and re.search(r"\d+ segments, 3\.\d s of speech in 6\.0 s", errors)
    segments = json.loads((tmp_path / "t.json").read_text())["segments"]
    assert (tmp_path / "new/t.vtt").read_text().count("-->") == len(segments) > 1 and "written: " in errors


def test_the_command_prints(recording, tmp_path, capfd):
    assert run("timeline", recording, *QUICK) == 0
    output, errors = capfd.readouterr()
    assert output.splitlines()[0].split() == ["start", "end", "label", "score", "speaker"]
    assert output.splitlines()[1].split()[0] == "00:00.9" and "Next: gemoclap timeline" in errors
    turns = rttm(tmp_path, "SPEAKER a 1 1.0 2.0 <NA> <NA> eva <NA> <NA>")
    assert run("timeline", recording, *QUICK, "--segments", turns, "--format", "csv", "--quiet") == 0
    output, errors = capfd.readouterr()
    assert output.splitlines()[1].split(",")[5] == "eva" and errors == ""


def test_the_envelope_is_bounded_and_exact():
    rng, envelope = np.random.default_rng(0), Envelope(RATE)
    wave = rng.standard_normal(600 * RATE, np.float32)
    for part in np.array_split(wave, 97):
        envelope.add(part)
    times, lowest, highest = envelope.columns()
    assert COLUMNS <= len(times) < 2 * COLUMNS
    width = round((times[1] - times[0]) * RATE)
    blocks = wave[: len(times) * width].reshape(-1, width)
    np.testing.assert_array_equal(lowest, blocks.min(1))
    np.testing.assert_array_equal(highest, blocks.max(1))


@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures(recording, tmp_path, suffix, start):
    picture = tmp_path / f"a $x$ <b>.{suffix}"
    assert run("timeline", recording, *QUICK, "--quiet", "--picture", picture) == 0
    assert picture.read_bytes().startswith(start)
    draw_timeline([], Envelope(RATE), picture, ["a"], "$x <b>")
    draw_timeline(SEGMENTS, Envelope(RATE), picture, [], "")
    assert b"<b>" not in picture.read_bytes() or suffix != "svg"


def test_rejected_segments_are_told(recording, capfd):
    assert run("timeline", recording, *QUICK, "--reject-below", 0.999, "--format", "jsonl") == 0
    output, errors = capfd.readouterr()
    segments = [json.loads(line) for line in output.splitlines()]
    assert {segment["label"] for segment in segments} == {"none of these"}
    assert all(segment["best_label"] in segment["scores"] for segment in segments)
    assert f"{len(segments)} of them have a score below 0.999: none of these" in errors


def test_no_speech_is_told(tmp_path, capfd):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    assert run("timeline", tmp_path / "a.wav", *QUICK) == 0
    output, errors = capfd.readouterr()
    assert len(output.splitlines()) == 1 and "a.wav: no speech found in 1.0 s" in errors and "--threshold" in errors


def test_a_damaged_recording_keeps_what_was_found(recording, tmp_path, capfd):
    soundfile.write(tmp_path / "a.flac", np.concatenate([soundfile.read(recording)[0]] * 4), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: 2 * len(content) // 3])
    assert run("timeline", tmp_path / "a.flac", *QUICK, "--batch-size", 1, "-o", tmp_path / "t.csv") == 1
    assert "a.flac: truncated" in capfd.readouterr().err
    assert len((tmp_path / "t.csv").read_text().splitlines()) > 2


@pytest.mark.parametrize(
    "words, message",
    [
        (("--threshold", "2"), "--threshold=2.0 must be a number above 0 and below 1"),
        (("--step", "9", "--window", "1"), "--step=9.0 must be a number from 0.01 to 1"),
        (("--output", "a.txt"), "a.txt: give a name that ends in one of .csv"),
        (("--output", "/proc/none/a.vtt"), "--output /proc/none: cannot be written"),
        (("--labels", "calm"), "--labels"),
        (("--output", "a.csv", "--format", "vtt"), "--format is of the standard output"),
        (("--picture", "a.gif"), "--picture a.gif: give a name that ends in .png"),
        (("--segments", "missing.rttm"), "--segments missing.rttm: No such file"),
    ],
)
def test_wrong_options(recording, words, message, capfd):
    assert run("timeline", recording, "--model", "compact", *words) == 2
    assert message in capfd.readouterr().err


def test_nothing_is_overwritten_by_mistake(recording, capfd):
    content = recording.read_bytes()
    link = recording.with_name("link.csv")
    link.symlink_to(recording)
    assert run("timeline", recording, *QUICK, "--output", link) == 2
    assert "the same file as FILE" in capfd.readouterr().err
    assert (
        run("timeline", recording, *QUICK, "-o", recording.with_name("t.csv"), "-o", recording.with_name("t.csv")) == 2
    )
    assert run("predict", recording, "--model", "compact", "--output", recording, "--format", "csv", "--restart") == 2
    report = recording.with_name("r.html")
    assert run("predict", recording, "-m", "compact", "--report", report, "-o", report, "--format", "csv") == 2
    assert recording.read_bytes() == content and not report.exists()
    assert run("timeline", recording.parent, *QUICK) == 2
    assert "a folder; give one recording" in capfd.readouterr().err


def test_an_interrupt_keeps_what_was_found(recording, monkeypatch, capfd):
    def interrupted(*arguments):
        yield Segment(0.5, 2.0, "sad", 0.75, {"sad": 0.75, "angry": 0.25})
        raise KeyboardInterrupt

    monkeypatch.setattr(timeline_run, "timeline", interrupted)
    output = recording.with_name("t.csv")
    assert run("timeline", recording, *QUICK, "--output", output) == 130
    assert len(output.read_text().splitlines()) == 2 and "interrupted at 00:00.0" in capfd.readouterr().err


def test_a_name_that_is_no_text(recording, capfdbinary):
    name = os.fsdecode(os.fsencode(recording.parent) + b"/\xff.wav")
    os.rename(recording, name)
    assert run("timeline", name, *QUICK, "--format", "jsonl", "--quiet") == 0
    assert run("timeline", name, *QUICK, "--format", "rttm", "--quiet") == 0
    assert b"SPEAKER \xff 1" in capfdbinary.readouterr().out


def test_defaults_of_the_commands_are_those_of_the_options():
    for command in (cli.timeline, cli.listen):
        for name, parameter in inspect.signature(command).parameters.items():
            if name in TimelineOptions.__dataclass_fields__ and name != "vad":
                assert parameter.default == TimelineOptions.__dataclass_fields__[name].default, name


def test_listen_to_a_pipe(recording, monkeypatch, capfd):
    """As `arecord -t raw | gemoclap listen --raw`: the segments are those of the timeline."""
    samples = soundfile.read(recording, dtype="int16")[0].tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(samples))))
        assert run("listen", "--raw", RATE, *QUICK, "--format", "jsonl") == 0
    output, errors = capfd.readouterr()
    assert "6.0 s heard, speech found by level" in errors
    assert run("timeline", recording, *QUICK, "--format", "json", "--quiet") == 0
    found, expected = map(json.loads, output.splitlines()), json.loads(capfd.readouterr().out)["segments"]
    for one, other in zip(found, expected, strict=True):
        assert (one["start"], one["end"], one["label"]) == (other["start"], other["end"], other["label"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_pipe_of_another_format(recording):
    with pytest.raises(ValueError, match="--raw: the input is an audio file"), open(recording, "rb") as file:
        list(pipe_chunks(file, RATE))
    for start in (b"\x1aE\xdf\xa3", b"\0\0\0\x20ftypM4A "):
        with pytest.raises(ValueError, match="--raw: the input is an audio file"):
            list(pipe_chunks(io.BufferedReader(io.BytesIO(start + bytes(100))), RATE))
    odd = io.BufferedReader(io.BytesIO(b"\x01\x00\x02"))
    assert [chunk.tolist() for chunk, _ in pipe_chunks(odd, RATE)] == [[1]]
    limited = io.BufferedReader(io.BytesIO(bytes(10 * RATE)))
    assert sum(len(chunk) for chunk, _ in pipe_chunks(limited, RATE, seconds=2.0)) == 2 * RATE


def test_an_idle_pipe_is_left_when_it_is_stopped():
    reader, writer = os.pipe()
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with os.fdopen(reader, "rb") as file:
        assert list(pipe_chunks(file, RATE, stop)) == []
    os.close(writer)


@pytest.mark.parametrize("words", [("--raw", 0), ("--raw", 16_000, "--microphone", "x"), ("--raw", 16_000, "--list")])
def test_options_of_listen_that_do_not_fit(words, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b""))))
    assert run("listen", "--model", "compact", *words) == 2
    assert "--raw" in capfd.readouterr().err


class FakeSource:
    active, samplerate = True, float(RATE)

    def __init__(self, chunks, **options):
        self.chunks, self.receive = chunks, options["callback"]

    def __enter__(self):
        for chunk in self.chunks:
            self.receive(chunk[:, None], len(chunk), None, None)
        self.active = False

    def __exit__(self, *error):
        pass


def test_a_microphone_that_goes_away(monkeypatch, recording, pipe):
    """The segments before come first, then the error."""
    sounddevice = pytest.importorskip("sounddevice", exc_type=OSError)
    wave = soundfile.read(recording, dtype="float32")[0][: int(2.5 * RATE)]
    monkeypatch.setattr(sounddevice, "InputStream", lambda **options: FakeSource(np.split(wave, 10), **options))
    found, stream = [], EmotionStream(pipe, vad="level")
    with pytest.raises(MicrophoneError, match="the microphone went away after 2.5 s"):
        for segment in listen(stream, microphone_chunks(threading.Event())):
            found.append(segment)
    assert found and found[-1].end == pytest.approx(2.5, abs=0.05)


def test_a_virtual_microphone(tmp_path):
    """ALSA's file plugin is a device that plays a file, without a clock: later samples may be lost."""
    pytest.importorskip("sounddevice", exc_type=OSError)
    samples = (1000 * np.sin(np.arange(60_000) / 7)).astype("<i2")
    samples.tofile(tmp_path / "in.raw")
    (tmp_path / "asound.conf").write_text(
        f'pcm.from_file {{ type file slave.pcm "null" file "/dev/null" infile "{tmp_path}/in.raw" format "raw" }}\n'
        "pcm.null { type null }\n"
        'pcm.!default { type plug slave { pcm "from_file" format S16_LE rate 44100 channels 1 } }\n'
    )
    code = (
        "import numpy, sys, threading; from modeling_gemoclap.inference.listening import microphone_chunks\n"
        "chunks = [chunk for chunk, rate in microphone_chunks(threading.Event(), 'default', 0.2) if rate == 44100]\n"
        "numpy.save(sys.argv[1], numpy.concatenate(chunks))"
    )
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "asound.conf")}
    command = [sys.executable, "-c", code, str(tmp_path / "heard.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    heard = np.load(tmp_path / "heard.npy")
    assert len(heard) == 8820
    np.testing.assert_allclose(heard[:1000], samples[:1000] / 2**15, atol=1e-4)


def test_no_microphone(capfd):
    pytest.importorskip("sounddevice", exc_type=OSError)
    assert run("listen", "--model", "compact", "--microphone", "no such device") == 1
    assert "gemoclap listen: no microphone" in capfd.readouterr().err
