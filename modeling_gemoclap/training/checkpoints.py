"""Where a run writes, and which checkpoint it goes on from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import write_json
from .arguments import GEmoClapTrainingArguments
from .gather import refuse_differences

logger = logging.get_logger(__name__)


def latest_whole_checkpoint(folder: str | Path) -> str | None:
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
            json.loads((path / "trainer_state.json").read_text())
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
    state = json.loads(path.read_text())
    best = state.get("best_model_checkpoint")
    if best is None:
        return
    here = Path(output_dir, Path(best).name)
    if not here.is_dir():
        raise ValueError(f"{here}, the best checkpoint so far, is gone: begin anew with --overwrite_output true")
    write_json(path, state | {"best_model_checkpoint": str(here)})


def resume_point(arguments: GEmoClapTrainingArguments) -> str | None:
    """The checkpoint that a run goes on from; a folder that holds another run is refused.

    Args:
        arguments: `output_dir`, `overwrite_output`, and `resume_from_checkpoint`: a path, or `true` for the latest
            checkpoint that is whole.

    Returns:
        Its path; None to start anew.

    Raises:
        ValueError: If there is no folder to write to, it holds another run, there is nothing to go on from, or
            processes would go on from different checkpoints.
    """
    if arguments.output_dir in (None, "trainer_output"):  # the second is transformers' default
        raise ValueError("give --output_dir, a folder for the checkpoint")
    found = arguments.resume_from_checkpoint
    found = {"true": True, "false": None}.get(found.lower(), found) if isinstance(found, str) else found
    if found is True:
        found = latest_whole_checkpoint(arguments.output_dir)
        if found is None:
            raise ValueError(
                f"{arguments.output_dir} has no whole checkpoint to go on from: leave out --resume_from_checkpoint, "
                f"and give --overwrite_output true if the folder is not empty"
            )
    folder = Path(arguments.output_dir)
    if folder.is_dir() and any(folder.iterdir()) and not (found or arguments.overwrite_output):
        raise ValueError(
            f"{folder} is not empty: give another --output_dir, --resume_from_checkpoint true to go on "
            f"with the run in it, or --overwrite_output true"
        )
    refuse_differences(Path(found).name if found else "none", "the checkpoint to go on from")
    return found
