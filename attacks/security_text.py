"""Words from strangers in tables, subtitles, logs, commands and on terminals; the checks of `security_markup.py`."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import logging
import shlex
from pathlib import Path

import yaml
from attack import ROOT
from security_payloads import CONTROL, PLAIN

from modeling_gemoclap.command_line import failures
from modeling_gemoclap.command_line.terminal import printable_lines
from modeling_gemoclap.configuration_gemoclap import GEmoClapConfig
from modeling_gemoclap.corpora.tables import ManifestError
from modeling_gemoclap.inference.information import describe
from modeling_gemoclap.inference.output import Rows
from modeling_gemoclap.inference.predictions import Prediction
from modeling_gemoclap.inference.segments import Segment
from modeling_gemoclap.inference.timeline_files import TimelineFacts, render_timeline
from modeling_gemoclap.inference.timeline_run import table_line
from modeling_gemoclap.publishing.push import load_snippet
from modeling_gemoclap.recordings_gemoclap import AudioError, read_audio

CHECKPOINT = ROOT / "checkpoints" / "gemoclap-compact"


def label_of(text: str) -> str | None:
    """A text as a label of a configuration; None where it is refused."""
    try:
        return GEmoClapConfig(emotions=["angry", text]).emotions[1]
    except ValueError:
        return None


def check_timeline(text: str) -> None:
    """RTTM, WebVTT, SRT, TextGrid, CSV and JSON: the same rows and fields as with a harmless text."""
    label = label_of(text) or PLAIN
    for kind in ("rttm", "vtt", "srt", "textgrid", "csv", "json", "jsonl"):
        shapes = []
        for word, name in ((PLAIN, PLAIN), (label, text)):
            segments = [Segment(0, 1, word, 0.9, {word: 0.9}, name), Segment(1, 2, word, 0.9, {word: 0.9}, name)]
            shapes.append(_shape(kind, render_timeline(segments, TimelineFacts(name, 2.0, [word], name), kind)))
        assert shapes[0] == shapes[1], f"{kind}: {shapes[1]}"


def _shape(kind: str, content: str) -> list:
    if kind == "csv":
        return [len(row) for row in csv.reader(io.StringIO(content, newline=""))]
    if kind in ("json", "jsonl"):
        return [sorted(json.loads(line)) for line in ([content] if kind == "json" else content.splitlines())]
    assert not CONTROL.search(content), "a control character"
    lines = content.splitlines()
    if kind == "rttm":
        return [len(line.split(" ")) for line in lines]
    if kind == "textgrid":
        return [line.split("=")[0] for line in lines] + [line.count('"') % 2 for line in lines]
    return [not line or "-->" in line for line in lines] + [content.count("<"), content.count(">")]


def check_tables(text: str, place: Path) -> None:
    """CSV and JSON lines give the text back exactly; tables, terminals and logs show no control characters."""
    label = label_of(text) or PLAIN
    prediction = Prediction(label, 0.9, {label: 0.9})
    [row] = csv.reader(io.StringIO(Rows("csv", [label], False).line(text, prediction), newline=""))
    assert row[:2] == [text, label]
    assert json.loads(Rows("jsonl", [label], False).line(text, prediction))["file"] == text
    shown = [Rows("table", [label], False).line(text, prediction), table_line(Segment(0, 1, label, 1, {}, text))]
    shown.append(printable_lines(text))
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        failures._report("program", ManifestError(text))
    shown += [printed.getvalue(), *_messages(text, place)]
    assert not any(CONTROL.search(each) for each in shown), "a control character on a terminal"
    assert shown[0].count("\n") == 1
    model = shlex.split(f"gemoclap info {shlex.join([text])}")
    assert model == ["gemoclap", "info", text]
    code = load_snippet(text, "0" * 40)
    assert len(ast.parse(code).body) == 3, "other code"


def _messages(text: str, place: Path) -> list[str]:
    """What is logged and raised about a file with this name, and what is shown of a checkpoint with these words."""
    name = text.replace("/", "_").replace("\0", "")[:80]
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("modeling_gemoclap").addHandler(handler)
    try:
        (place / name).write_bytes(b"no audio")
        read_audio(place / name)
    except AudioError as error:
        records.append(str(error))
    finally:
        logging.getLogger("modeling_gemoclap").removeHandler(handler)
    return records


def check_information(text: str, place: Path) -> None:
    """`gemoclap info` of a checkpoint whose files have hostile words."""
    folder = place / "information"
    folder.mkdir(exist_ok=True)
    content = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    content |= {"calibrated_on": text, "training_data": [{"unknown": text}], "known_words": [text]}
    (folder / "config.json").write_text(json.dumps(content))
    front = yaml.safe_dump({"license": text, "base_model": text})
    (folder / "README.md").write_text(f"---\n{front}---\n", encoding="utf-8", errors="replace")
    shown = describe(str(folder))
    assert not CONTROL.search(shown) and len(shown.splitlines()) == 11, shown
