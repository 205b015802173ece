"""Training, calibrating and saving a run."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..corpora.files import write_json
from ..training.lora import is_lora, save_adapter
from ..training.trainer import SpeechTrainer
from .calibration import calibrate, fit_temperature, out_of_fold_logits
from .fit import fit
from .preflight import push
from .provenance import seen_speakers_note
from .run import Run
from .skipped import collect_skipped_clips


def train_run(
    run: Run, checkpoint: str | None = None, before_card: Callable[[Run], None] | None = None
) -> SpeechTrainer:
    """Train a run, calibrate its model, and save the finished checkpoint with its card.

    Args:
        run: The run.
        checkpoint: A `checkpoint-N` to resume from.
        before_card: What the main process does when the weights are saved, before the card is written.

    Returns:
        The trainer; call `finish` on it.

    Raises:
        ValueError: See `fit`.
    """
    calibration = out_of_fold_logits(run) if run.recipe.data.calibration_folds else None
    trainer, skipped = fit(run, checkpoint)
    if calibration:
        calibrate(trainer, *calibration)
    elif trainer.eval_dataset is not None:
        fit_temperature(trainer, seen_speakers_note(run.recipe, run.dev))
    save_run(run, trainer, skipped, before_card)
    return trainer


def save_run(
    run: Run, trainer: SpeechTrainer, skipped: list[str], before_card: Callable[[Run], None] | None = None
) -> None:
    """Save the checkpoint, state, model card and errors of skipped clips of a run. Push it with `push_to_hub`.

    Args:
        run: The run.
        trainer: The trainer of the run.
        skipped: Errors of the clips that were skipped before training.
        before_card: See `train_run`.
    """
    arguments = run.training
    errors, num_skipped = collect_skipped_clips(trainer)
    skipped = skipped + errors
    if is_lora(trainer.model):
        if trainer.is_world_process_zero():
            save_adapter(trainer.model, run.folder / "adapter")
        trainer.model = trainer.model.merge_and_unload()  # the checkpoint itself loads without PEFT
    push_to_hub, arguments.push_to_hub = arguments.push_to_hub, False  # save_model would push an incomplete folder
    trainer.save_model()
    trainer.save_state()
    if before_card and trainer.is_world_process_zero():
        before_card(run)
    trainer.create_model_card()
    if trainer.is_world_process_zero():
        if skipped:
            write_json(run.folder / "skipped_clips.json", skipped)
        clips = f"{len(trainer.train_dataset) - num_skipped} clips" + (f", {len(skipped)} skipped" if skipped else "")
        print(f"Trained on {clips}. The checkpoint is in {os.path.relpath(run.folder)}", flush=True)
    arguments.push_to_hub = push_to_hub
    if push_to_hub:
        push(trainer)
