"""WAR and UAR of predictions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from transformers import EvalPrediction

import evaluate


@cache
def _metric():
    return evaluate.load(str(Path(__file__).with_name("war_uar")))


def war_uar(predictions: list[str] | list[int], references: list[str] | list[int]) -> dict:
    """WAR, UAR and the recall of each class.

    Args:
        predictions: Predicted classes.
        references: True classes.

    Returns:
        A dict with `war`, `uar` and `recall`, a dict with the recall of each class.
    """
    return _metric().compute(predictions=predictions, references=references)


def war_uar_of_scores(prediction: EvalPrediction) -> dict[str, float]:
    """`war` and `uar` of scores `(clips, emotions)`, for a trainer. Clips with a negative label are ignored."""
    known = prediction.label_ids >= 0
    result = war_uar(prediction.predictions.argmax(-1)[known].tolist(), prediction.label_ids[known].tolist())
    return {name: result[name] for name in ("war", "uar")}
