"""One temperature that makes scores mean what they say, fitted on development speakers."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers.utils import logging

logger = logging.get_logger(__name__)
BOUNDS = (0.01, 100.0)


def temperature_of(logits: torch.Tensor, labels: torch.Tensor) -> float | None:
    """The temperature `T` that gives `softmax(logits / T)` the least cross-entropy.

    The cross-entropy is convex in `1 / T`, so that a bisection of its derivative finds it.

    Args:
        logits: `(clips, emotions)`.
        labels: True emotions, `(clips,)`; -1 is left out.

    Returns:
        The temperature; None where there is none: all answers are right, or no better than chance, so that the
        cross-entropy only falls towards 0 or infinity.

    Raises:
        ValueError: If no clip has a label.
    """
    known = labels != -1
    if not known.any():
        raise ValueError("no development clip has an emotion to calibrate on")
    logits, labels = logits[known].double(), labels[known]
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    for _ in range(100):
        inverse = torch.tensor((low * high) ** 0.5, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(F.cross_entropy(logits * inverse, labels), inverse)
        low, high = (low, inverse.item()) if slope > 0 else (inverse.item(), high)
    found = 1 / (low * high) ** 0.5
    return found if 1.01 * BOUNDS[0] < found < 0.99 * BOUNDS[1] else None


def fit_temperature(trainer) -> None:
    """Fit `calibration_temperature` on the trainer's development clips and put it into the configuration.

    Args:
        trainer: A trained `GEmoClapTrainer` or `ClassifierTrainer` with an `eval_dataset`.
    """
    found = trainer.predict(trainer.eval_dataset)
    labels = torch.from_numpy(found.label_ids)
    temperature = temperature_of(torch.from_numpy(found.predictions), labels)
    if temperature is None:
        logger.warning(
            f"no calibration: the {len(labels)} development clips are all right, or none better than chance"
        )
    trainer.accelerator.unwrap_model(trainer.model).config.calibration_temperature = temperature
