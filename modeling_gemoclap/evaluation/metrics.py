"""WAR and UAR, wherever they are needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from transformers import EvalPrediction

import evaluate


@cache
def _metric():
    return evaluate.load(str(Path(__file__).with_name("war_uar")))


def war_uar(predictions: list[str] | list[int], references: list[str] | list[int]) -> dict:
    """WAR, UAR and recall by class.

    Args:
        predictions: Predicted classes.
        references: True classes.

    Returns:
        A dict with `war`, `uar` and `recall`, itself a dict by class.
    """
    return _metric().compute(predictions=predictions, references=references)


def war_uar_of_scores(prediction: EvalPrediction) -> dict[str, float]:
    """`war` and `uar` of `(clips, emotions)` scores, for a trainer; clips of a negative label are left out."""
    known = prediction.label_ids >= 0
    result = war_uar(prediction.predictions.argmax(-1)[known].tolist(), prediction.label_ids[known].tolist())
    return {name: result[name] for name in ("war", "uar")}
