"""The model card of a compressed checkpoint: that of the original, with what compression changed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from huggingface_hub import ModelCardData

from ..markdown import as_code, as_text
from .word_pieces import listed_words

TITLE = re.compile(r"^# (.+?)(?=: speech emotion recognition)", re.M)
PARAMETERS = re.compile(r"^\| parameters \| ([\d,]+)", re.M)
RESULTS = re.compile(r"^## Results$", re.M)


@dataclass(frozen=True)
class Changes:
    """What compression changed.

    Args:
        half_precision: Whether the weights were rounded to float16.
        calibrated: Whether the scores are calibrated.
        parameters: Numbers of parameters before and after.
        word_pieces: Numbers of word pieces before and after; None if all were kept.
    """

    half_precision: bool
    calibrated: bool
    parameters: tuple[int, int]
    word_pieces: tuple[int, int] | None = None

    def sentences(self) -> list[str]:
        """A sentence or two for each change."""
        told = []
        if self.half_precision:
            when = "after training"
            if self.calibrated:
                when = "after training and calibration, and the calibration temperature is that of the original"
            told.append(
                f"The weights were rounded to half precision (float16) {when}. They are computed in float32, unless "
                f"another dtype is given when they are loaded."
            )
        if self.word_pieces:
            before, after = self.word_pieces
            words = sum(map(len, listed_words().values()))
            told.append(
                f"{after:,} of the {before:,} word pieces of the text encoder are left, among them all pieces of the "
                f"prompts and of {words} English words for emotions and manners of speaking. A text whose pieces are "
                f"left has the same embedding as before their removal; other rare words are split into shorter "
                f"pieces, so their scores differ."
            )
        return told


def compressed_card(original: str | None, names: tuple[str, str], changes: Changes) -> str:
    """The content of the card of a compressed checkpoint.

    Args:
        original: The content of the original's card; None if it has none.
        names: Names of the original's folder and of the new one.
        changes: What was changed.
    """
    source, name = names
    figures = "Results on this card were measured before that." if original else ""
    lines = "\n".join(f"- {sentence}" for sentence in changes.sentences())
    section = (
        f"## Compression\n\nThis is a smaller copy of {as_code(source)}, made by "
        f"`python -m modeling_gemoclap compress`. {figures}\n\n{lines}\n"
    ).replace(" \n", "\n")
    if original is None:
        data = ModelCardData(library_name="transformers", tags=["speech-emotion-recognition", "gemo-clap", "speech"])
        return f"---\n{data.to_yaml()}\n---\n\n# {as_text(name)}: speech emotion recognition\n\n{section}"
    before, after = changes.parameters
    card = _renamed(original, name)
    if before != after:
        card = PARAMETERS.sub(rf"| parameters | {after:,} after compression; before: \1", card, count=1)
    if place := RESULTS.search(card):
        return f"{card[: place.start()]}{section}\n{card[place.start() :]}"
    return f"{card.rstrip()}\n\n{section}"


def _renamed(card: str, name: str) -> str:
    """Give a card's title and its examples another name of the checkpoint."""
    title = TITLE.search(card)
    if title is None:
        return card
    previous = title[1]
    card = card[: title.start(1)] + as_text(name) + card[title.end(1) :]
    return card.replace(json.dumps(previous), json.dumps(name)).replace(as_code(previous), as_code(name))
