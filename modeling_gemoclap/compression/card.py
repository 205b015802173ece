"""What the model card of a compressed checkpoint says of the compression."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..publishing.facts import CardFacts, Compression
from .word_pieces import listed_words


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

    def added_to(self, facts: CardFacts, source: str) -> CardFacts:
        """The facts of the copy, for its model card.

        Args:
            facts: Those of the original.
            source: Name of the folder of the original.
        """
        before, after = self.parameters
        sentences = [*(facts.compression.sentences if facts.compression else []), *self.sentences()]
        original = facts.compression.parameters if facts.compression else before
        return replace(facts, compression=Compression(source, sentences, original), parameters=after, notes=None)
