"""Words from strangers in pages, cards and notebooks, which real parsers read."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import nbformat
import numpy as np
import yaml
from attack import Attack
from security_payloads import PAYLOADS, PLAIN, Structure, markdown_structure, on_one_line
from security_text import CHECKPOINT, check_information, check_tables, check_timeline, label_of

from modeling_gemoclap.inference.predictions import Prediction
from modeling_gemoclap.inference.segments import Segment
from modeling_gemoclap.page.acoustics import Contours
from modeling_gemoclap.page.analysis import Analysis
from modeling_gemoclap.page.drawing import draw_analysis, draw_comparison, draw_message
from modeling_gemoclap.publishing.card import card_content, read_checkpoint, save_card
from modeling_gemoclap.report_pages import render

LINES = Contours(1.0, -np.ones(4), np.ones(4), np.full(4, -20.0), np.full(4, 200.0))


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
    config, label = checkpoint.config, label_of(word)
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
