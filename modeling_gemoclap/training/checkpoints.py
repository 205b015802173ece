"""Checkpoints to resume from: the latest complete one, and what one must have."""

from __future__ import annotations

import re
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import read_object, write_json
from .gather import all_gather_object

logger = logging.get_logger(__name__)
ONE_PROCESS = "rng_state.pth"


def latest_complete_checkpoint(folder: str | Path) -> str | None:
    """The newest `checkpoint-N` of a run that was written to its end.

    A run that was killed while it wrote leaves part of one; `trainer_state.json` is the last file of a whole one.

    Args:
        folder: The run's output folder.

    Returns:
        Its path, or None where there is none.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            read_object(path / "trainer_state.json", global_step=int)
            return str(path)
        except (OSError, ValueError):
            logger.warning(f"{path} was not written to its end, and is passed over")
    return None


def find_best_again(checkpoint: str, output_dir: str) -> None:
    """Mend where a run's best checkpoint lies, if the run was moved; transformers would keep the last in its place.

    Args:
        checkpoint: What the run goes on from.
        output_dir: Its folder as it is now.

    Raises:
        ValueError: If the best checkpoint is gone.
    """
    path = Path(checkpoint, "trainer_state.json")
    state = read_object(path)
    best = state.get("best_model_checkpoint")
    if best is None:
        return
    here = Path(output_dir, Path(best).name)
    if not here.is_dir():
        raise ValueError(f"{here}, the best checkpoint so far, is gone: begin anew with --overwrite_output true")
    write_json(path, state | {"best_model_checkpoint": str(here)})


def refuse_partial_checkpoint(folder: str | Path, processes: int, process: int, scaled: bool, sharded: bool) -> None:
    """Make sure that a checkpoint has all of a training's state; transformers would begin anew with what is missing.

    Args:
        folder: The `checkpoint-N`.
        processes: How many processes there are.
        process: The number of this one.
        scaled: Whether gradients are scaled (fp16).
        sharded: Whether DeepSpeed keeps the optimizer's state: it checks that itself.

    Raises:
        ValueError: If something is missing on any process; it is named.
    """
    present = {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()
    random_state = f"rng_state_{process}.pth" if processes > 1 else ONE_PROCESS
    needed = ["trainer_state.json", "scheduler.pt", random_state] + ["scaler.pt"] * scaled
    missing = [name for name in needed if name not in present]
    if not sharded and not any(name.startswith("optimizer") for name in present):
        missing.append("the optimizer's state")
    missing = sorted({name for names in all_gather_object(missing) for name in names})
    if not missing:
        return
    states = sorted(name for name in present if name.startswith("rng_state"))
    others = f"; it was saved by {'one process' if states == [ONE_PROCESS] else f'{len(states)} processes'}"
    reason = others if states and random_state in missing else ""
    raise ValueError(
        f"{folder}: the training cannot go on from it, since {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing{reason}. A checkpoint of --save_only_model true holds "
        f"weights alone: start anew with --overwrite_output true, or give a whole checkpoint"
    )
