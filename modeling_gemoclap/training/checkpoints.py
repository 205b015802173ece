"""Checkpoints to resume from: find the latest complete one, and check its files."""

from __future__ import annotations

import re
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import read_object, write_json
from .gather import all_gather_object

logger = logging.get_logger(__name__)
SINGLE_PROCESS_STATE = "rng_state.pth"


def latest_complete_checkpoint(folder: str | Path) -> str | None:
    """Find the newest complete `checkpoint-N` of a run.

    A run that is killed while it saves leaves an incomplete checkpoint. `trainer_state.json` is written last.

    Args:
        folder: The output folder of the run.

    Returns:
        The path of the checkpoint, or None if there is none.
    """
    paths = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(paths, key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            read_object(path / "trainer_state.json", global_step=int)
            return str(path)
        except (OSError, ValueError):
            logger.warning(f"{path} is incomplete and is ignored")
    return None


def relocate_best_checkpoint(checkpoint: str, output_dir: str) -> None:
    """Correct the stored path of the best checkpoint if the run was moved.

    With a wrong path, transformers would keep the last checkpoint instead of the best.

    Args:
        checkpoint: The checkpoint that the run is resumed from.
        output_dir: The present folder of the run.

    Raises:
        ValueError: If the best checkpoint does not exist.
    """
    path = Path(checkpoint, "trainer_state.json")
    state = read_object(path)
    best = state.get("best_model_checkpoint")
    if best is None:
        return
    present = Path(output_dir, Path(best).name)
    if not present.is_dir():
        raise ValueError(f"{present}, the best checkpoint so far, is missing: start anew with --overwrite_output true")
    write_json(path, state | {"best_model_checkpoint": str(present)})


def refuse_partial_checkpoint(folder: str | Path, processes: int, process: int, scaled: bool, sharded: bool) -> None:
    """Check that a checkpoint has the complete training state. transformers would initialise missing parts anew.

    Args:
        folder: The `checkpoint-N`.
        processes: Number of processes.
        process: Index of this process.
        scaled: Whether gradients are scaled (fp16).
        sharded: Whether DeepSpeed stores the optimizer state, which it checks itself.

    Raises:
        ValueError: If a file is missing on any process. The message lists the missing files.
    """
    present = {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()
    random_state = f"rng_state_{process}.pth" if processes > 1 else SINGLE_PROCESS_STATE
    needed = ["trainer_state.json", "scheduler.pt", random_state] + ["scaler.pt"] * scaled
    missing = [name for name in needed if name not in present]
    if not sharded and not any(name.startswith("optimizer") for name in present):
        missing.append("the optimizer state")
    missing = sorted({name for names in all_gather_object(missing) for name in names})
    if not missing:
        return
    states = sorted(name for name in present if name.startswith("rng_state"))
    saved_by = "one process" if states == [SINGLE_PROCESS_STATE] else f"{len(states)} processes"
    reason = f"; it was saved by {saved_by}" if states and random_state in missing else ""
    raise ValueError(
        f"{folder}: training cannot be resumed from it, because {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing{reason}. A checkpoint of --save_only_model true has only "
        f"weights: start anew with --overwrite_output true, or give a complete checkpoint"
    )
