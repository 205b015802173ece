"""One temperature that makes scores mean what they say, fitted on development speakers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.utils import logging

from ..corpora.files import write_atomically
from .history import record_development

logger = logging.get_logger(__name__)
BOUNDS = (0.01, 100.0)


def temperature_of(logits: torch.Tensor, labels: torch.Tensor) -> float | None:
    """The temperature `T` that gives `softmax(logits / T)` the least cross-entropy.

    The cross-entropy is convex in `1 / T`, so that a bisection of its derivative finds it.

    Args:
        logits: `(clips, emotions)`.
        labels: True emotions, `(clips,)`; negative ones are left out.

    Returns:
        The temperature; None where there is none: all answers are right, or no better than chance, so that the
        cross-entropy only falls towards 0 or infinity.

    Raises:
        ValueError: If no clip has a label, or a logit is not finite.
    """
    known = labels >= 0
    if not known.any():
        raise ValueError("no development clip has an emotion to calibrate on")
    if bad := int((~logits[known].isfinite().all(dim=1)).sum()):
        raise ValueError(f"{bad} of {int(known.sum())} answers to calibrate on are not finite: train the model again")
    logits, labels = logits[known].double(), labels[known]
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    for _ in range(100):
        inverse = torch.tensor((low * high) ** 0.5, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(F.cross_entropy(logits * inverse, labels), inverse)
        low, high = (low, inverse.item()) if slope > 0 else (inverse.item(), high)
    found = 1 / (low * high) ** 0.5
    return found if 1.01 * BOUNDS[0] < found < 0.99 * BOUNDS[1] else None


def fit_temperature(trainer, remark: str = "") -> None:
    """Fit `calibration_temperature` on the trainer's development clips and put it into the configuration.

    It replaces one that was fitted before, and does not depend on it.

    Args:
        trainer: A trained `GEmoClapTrainer` or `ClassifierTrainer` with an `eval_dataset`.
        remark: What else the card is to say of these clips.
    """
    logits, labels = answers(trainer)
    record_development(trainer.trained_model, trainer.eval_dataset)
    calibrate(trainer, logits, labels, f"{len(trainer.eval_dataset)} clips of development speakers{remark}")


def answers(trainer) -> tuple[torch.Tensor, torch.Tensor]:
    """The trainer's logits `(clips, emotions)`, not calibrated, and labels `(clips,)` of its development clips."""
    config = trainer.accelerator.unwrap_model(trainer.model).config
    fitted, config.calibration_temperature = config.calibration_temperature, None  # a classifier would divide by it
    try:
        found = trainer.predict(trainer.eval_dataset)
    finally:
        config.calibration_temperature = fitted
    return torch.from_numpy(found.predictions), torch.from_numpy(found.label_ids)


def store_answers(path: Path, made_of: str, logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Write answers to a safetensors file atomically; `made_of` is what they depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as part:
        save_file({"logits": logits.contiguous(), "labels": labels.contiguous()}, part, metadata={"made_of": made_of})


def stored_answers(path: Path, made_of: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Logits and labels that `store_answers` wrote, if they are there and made of the same."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if file.metadata().get("made_of") != made_of:
            return None
        return file.get_tensor("logits"), file.get_tensor("labels")


def calibrate(trainer, logits: torch.Tensor, labels: torch.Tensor, what: str) -> None:
    """Fit `calibration_temperature` and put it into the configuration.

    Args:
        trainer: Of the model that is calibrated.
        logits: `(clips, emotions)`, not calibrated.
        labels: `(clips,)`; negative ones are left out.
        what: What they are, for the card.
    """
    config = trainer.accelerator.unwrap_model(trainer.model).config
    config.calibration_temperature = temperature_of(logits, labels)
    config.calibrated_on = what if config.calibration_temperature else None
    if config.calibration_temperature is None:
        logger.warning(f"no calibration: the answers to {what} are all right, or none better than chance")
