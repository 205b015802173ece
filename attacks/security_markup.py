"""Words from strangers in pages, cards, notebooks, tables, subtitles, logs and terminals, read by real parsers."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import logging
import random
import shlex
from pathlib import Path

import nbformat
import numpy as np
import yaml
from attack import ROOT, Attack
from security_payloads import CONTROL, PAYLOADS, PLAIN, Structure, markdown_structure, on_one_line

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
from modeling_gemoclap.page.acoustics import Contours
from modeling_gemoclap.page.analysis import Analysis
from modeling_gemoclap.page.drawing import draw_analysis, draw_comparison, draw_message
from modeling_gemoclap.publishing.card import card_content, read_checkpoint, save_card
from modeling_gemoclap.publishing.push import load_snippet
from modeling_gemoclap.recordings_gemoclap import AudioError, read_audio
from modeling_gemoclap.report_pages import render

CHECKPOINT = ROOT / "checkpoints" / "gemoclap-compact"
LINES = Contours(1.0, -np.ones(4), np.ones(4), np.full(4, -20.0), np.full(4, 200.0))


def _label(text: str) -> str | None:
    """A text as a label of a configuration; None where it is refused."""
    try:
        return GEmoClapConfig(emotions=["angry", text]).emotions[1]
    except ValueError:
        return None


def check_page(text: str) -> None:
    """The page of Gradio: the same tags with any text, and the text itself."""

    def page(word: str) -> str:
        prediction = Prediction(word, 0.9, {word: 0.9, "other": 0.1}, gender=word)
        analysis = Analysis(prediction, [Segment(0, 1, word, 0.9, {word: 0.9}, word)], LINES, [word])
        labels = [word, "other"]
        return draw_analysis(analysis, labels) + draw_comparison(analysis, analysis, labels) + draw_message(word)

    _compare_pages(page, text)


def check_report(text: str) -> None:
    """The page of `gemoclap predict --report`."""

    def page(word: str) -> str:
        answer = {"label": word, "n": 1, "share": 1.0, "score": 0.5, "medians": [1.0], "percentile": 1}
        values = {"sentences": [word], "background": {"only_ranks": word, "training": word}, "training": None}
        values |= {"labels": [answer], "measures": [(word, word, [1.0], [1.0])], "total": 2, "used": 1}
        values |= {"folder": word, "rows": [], "unusable": [(word, word)], "number": str, "model": word}
        return render("recordings.html", **values)

    _compare_pages(page, text)


def _compare_pages(page, text: str) -> None:
    found, plain = Structure(page(text)), Structure(page(PLAIN))
    assert found.tags == plain.tags, [tag for tag in found.tags if tag not in plain.tags][:3]
    assert found.addresses == plain.addresses
    assert on_one_line(text.replace("\0", "")) in on_one_line(found.text.replace("\0", "")), "the text is not there"


def check_card(text: str, place: Path) -> None:
    """The model card and the notebook of a checkpoint with hostile words in its configuration."""
    cards = {word: _card(word, place) for word in (PLAIN, text)}
    (plain, front, plain_code), (found, hostile_front, code) = cards[PLAIN], cards[text]
    assert hostile_front.keys() == front.keys() and front.get("license") == hostile_front.get("license")
    assert found[0] == plain[0], [kind for kind in found[0] if kind not in plain[0]][:3]
    assert code == plain_code, "other code in the notebook"


def _card(word: str, place: Path) -> tuple:
    checkpoint = read_checkpoint(CHECKPOINT, name=word)
    config, label = checkpoint.config, _label(word)
    config.emotions = ["angry", PLAIN if label is None else label]
    record = {"corpus": word, "licence": word, "num_clips": 1, "speakers": [word], "manifest_sha256": word}
    config.training_data, config.calibrated_on = [record, {"unknown": word}, {"encoder": word}], word
    config.audio_config._name_or_path = config.text_config._name_or_path = word
    object.__setattr__(checkpoint, "folder", place / "card")
    _, front, body = card_content(checkpoint, []).split("---\n", 2)
    save_card(checkpoint, [])
    notebook = nbformat.read(place / "card/notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    trees = [ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    shapes = [[type(node).__name__ for node in ast.walk(tree)] for tree in trees]
    return markdown_structure(body), yaml.safe_load(front), (shapes, [cell.cell_type for cell in notebook.cells])


def check_timeline(text: str) -> None:
    """RTTM, WebVTT, SRT, TextGrid, CSV and JSON: the same rows and fields as with a harmless text."""
    label = _label(text) or PLAIN
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
    label = _label(text) or PLAIN
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


CHECKS = {
    "a text on the web page": lambda text, place: check_page(text),
    "a text in the report on recordings": lambda text, place: check_report(text),
    "a text in model card, its metadata and notebook": check_card,
    "a text in RTTM, WebVTT, SRT, TextGrid, CSV and JSON of a timeline": lambda text, place: check_timeline(text),
    "a text in tables, on terminals, in logs and commands": check_tables,
    "a text in gemoclap info": check_information,
}


def run(attack: Attack, place: Path) -> None:
    """Every text in every place."""
    for kind, check in CHECKS.items():
        for text in PAYLOADS[:: 5 if attack.options.small else 1]:
            with attack.case(kind, repr(text)):
                check(text, place)


def run_random(attack: Attack, place: Path, numbers: random.Random) -> None:
    """A random mixture of the texts in every place."""
    text = "".join(numbers.choice(PAYLOADS)[numbers.randint(0, 3) : numbers.randint(4, 40)] for _ in range(3)) or "x"
    for kind, check in CHECKS.items():
        with attack.case(f"random mixtures: {kind}", repr(text)):
            check(text, place)
