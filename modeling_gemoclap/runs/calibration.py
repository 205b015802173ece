"""Calibration: fitting one temperature for the scores on clips that the model was not trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.optimize import brentq
from torch.nn import functional as F
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from ..corpora.files import write_atomically
from ..corpora.protocols import deal_speakers, genders_of
from ..fingerprint import digest
from ..training.gather import all_gather_object, release
from ..training.history import record_development
from .fit import fit
from .folder import CALIBRATION
from .provenance import seen_speakers_note
from .run import Run

logger = logging.get_logger(__name__)
BOUNDS = (0.01, 100.0)


def temperature_of(logits: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Return the temperature `T` that minimises the cross-entropy of `softmax(logits / T)`.

    The cross-entropy is convex in `1 / T`, so its derivative has at most one root.

    Args:
        logits: `(clips, emotions)`.
        labels: True emotions, `(clips,)`. Negative labels are ignored.

    Returns:
        The temperature; None if there is no minimum: all predictions are correct, or none is better than chance.

    Raises:
        ValueError: If no clip has a label, or a logit is not finite.
    """
    known = labels >= 0
    if not known.any():
        raise ValueError("no development clip has an emotion to calibrate on")
    if bad := int((~logits[known].isfinite().all(dim=1)).sum()):
        raise ValueError(
            f"{bad} of {int(known.sum())} predictions to calibrate on are not finite: train the model again"
        )
    logits, labels = logits[known].double(), labels[known]

    def slope(log_inverse: float) -> float:
        inverse = torch.tensor(log_inverse, dtype=torch.float64).exp().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(logits * inverse, labels), inverse)[0].item()

    low, high = (-torch.tensor(bound, dtype=torch.float64).log().item() for bound in reversed(BOUNDS))
    if slope(low) >= 0 or slope(high) <= 0:
        return None
    temperature = torch.tensor(-brentq(slope, low, high, xtol=1e-14), dtype=torch.float64).exp().item()
    return temperature if 1.01 * BOUNDS[0] < temperature < 0.99 * BOUNDS[1] else None


def fit_temperature(trainer, note: str = "") -> None:
    """Fit `calibration_temperature` on the trainer's development clips and set it in the configuration.

    It replaces an earlier temperature and is independent of it.

    Args:
        trainer: A trained `GEmoClapTrainer` or `ClassifierTrainer` with an `eval_dataset`.
        note: Text that the model card adds to the number of clips.
    """
    logits, labels = uncalibrated_logits(trainer)
    record_development(trainer.trained_model, trainer.eval_dataset)
    calibrate(trainer, logits, labels, f"{len(trainer.eval_dataset)} clips of development speakers{note}")


def uncalibrated_logits(trainer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits without temperature, `(clips, emotions)`, and labels, `(clips,)`, of the development clips."""
    config = trainer.accelerator.unwrap_model(trainer.model).config
    temperature, config.calibration_temperature = config.calibration_temperature, None  # a classifier divides by it
    try:
        output = trainer.predict(trainer.eval_dataset)
    finally:
        config.calibration_temperature = temperature
    return torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)


def calibrate(trainer, logits: torch.Tensor, labels: torch.Tensor, source: str) -> None:
    """Fit `calibration_temperature` on logits and set it in the configuration.

    Args:
        trainer: Trainer of the model.
        logits: Logits without temperature, `(clips, emotions)`.
        labels: `(clips,)`. Negative labels are ignored.
        source: Description of the clips for the model card.
    """
    config = trainer.accelerator.unwrap_model(trainer.model).config
    config.calibration_temperature = temperature_of(logits, labels)
    config.calibrated_on = source if config.calibration_temperature else None
    if config.calibration_temperature is None:
        logger.warning(f"no calibration: the predictions for {source} are all correct, or none is better than chance")


def out_of_fold_logits(run: Run) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return logits for all training speakers, each from a model that was not trained on the speaker.

    A teacher that is one checkpoint (`--distil_from`) may have heard the speaker; the description then says so.

    Logits of finished folds are read from disk.

    Args:
        run: The run; the option `calibration_folds` is the number of folds.

    Returns:
        Logits `(clips, emotions)`, labels `(clips,)`, and a description of the clips.

    Raises:
        ValueError: If there are fewer speakers than folds, or if there are development speakers.
    """
    count = run.recipe.data.calibration_folds
    if run.dev:
        raise ValueError(
            "--calibration_folds calibrates on training speakers: leave out --dev_speakers and --num_dev_speakers"
        )
    if not 2 <= count <= len(run.train.speakers):
        raise ValueError(
            f"--calibration_folds {count}: give 2 to {len(run.train.speakers)}, the number of training speakers"
        )
    folds = deal_speakers(genders_of(run.train), count, run.training.seed)
    parts = [_fold_logits(_calibration_fold(run, number, speakers)) for number, speakers in enumerate(folds)]
    logits, labels = map(torch.cat, zip(*parts, strict=True))
    note = seen_speakers_note(run.recipe, run.train)
    return logits, labels, f"out-of-fold predictions for the training speakers, {len(folds)} folds{note}"


def _calibration_fold(run: Run, number: int, speakers: list[str]) -> Run:
    return run.within(
        run.folder / CALIBRATION / f"fold_{number}",
        run.train.of_speakers(exclude=speakers),
        run.train.of_speakers(speakers),
        load_best_model_at_end=False,
        save_strategy=SaveStrategy.NO,
        eval_strategy=IntervalStrategy.NO,
    )


def _fold_logits(fold: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of the development clips of a fold, from disk or by training."""
    path, key = fold.folder.with_suffix(".safetensors"), digest(fold.identity)
    if not all_gather_object(load_logits(path, key) is not None)[0]:
        trainer, _ = fit(fold, resumable=False)
        logits, labels = uncalibrated_logits(trainer)
        if trainer.is_world_process_zero():
            save_logits(path, key, logits, labels)
        trainer.accelerator.wait_for_everyone()
        release(trainer)
    return load_logits(path, key)


def save_logits(path: Path, key: str, logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Write logits and labels to a safetensors file atomically. `key` is the hash of the identity of the fold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as part:
        save_file({"logits": logits.contiguous(), "labels": labels.contiguous()}, part, metadata={"made_of": key})


def load_logits(path: Path, key: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Read the logits and labels that `save_logits` wrote with the same key; None if there are none."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if file.metadata().get("made_of") != key:
            return None
        return file.get_tensor("logits"), file.get_tensor("labels")
