"""Options of the first stage of supervised contrastive fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from ...command_line.parser import option
from ...command_line.ranges import NOT_NEGATIVE, POSITIVE, Range

NEGATIVES = ("emotion", "emotion_or_corpus")


@dataclass
class TwoStageOptions:
    """Two-stage supervised contrast, first stage (--head supcon)."""

    supcon_temperature: float = option(0.07, "Temperature of InfoNCE", within=POSITIVE)
    supcon_alpha: float = option(0.5, "Weight of positive pairs in the cosine margin loss", within=NOT_NEGATIVE)
    supcon_margin: float = option(
        0.4, "Margin: negative pairs with a smaller cosine give no loss", within=Range(at_least=-1, at_most=1)
    )
    supcon_negatives: str = option(
        "emotion", "Negatives differ from positives in their emotion, or in emotion or corpus", choices=list(NEGATIVES)
    )
