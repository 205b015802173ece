"""Where a run writes, and which checkpoint it goes on from."""

from __future__ import annotations

import re
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import read_object, write_json
from .arguments import GEmoClapTrainingArguments
from .gather import refuse_differences
from .identity import read_identity
from .run_folder import holds_a_run

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


def resume_point(arguments: GEmoClapTrainingArguments) -> str | None:
    """The checkpoint that a run goes on from, before anything is read; a folder that holds something else is refused.

    Whether the checkpoint is of the same run is for `RunFolder` to tell.

    Args:
        arguments: `output_dir`, `overwrite_output`, and `resume_from_checkpoint`: a path, or `true` for the latest
            checkpoint that is whole.

    Returns:
        Its path; None to start with the first step.

    Raises:
        ValueError: If there is no folder to write to, it holds something else, there is nothing to go on from, or
            processes would go on from different checkpoints.
    """
    if arguments.output_dir in (None, "trainer_output"):  # the second is transformers' default
        raise ValueError("give --output_dir, a folder for the checkpoint")
    folder, wanted = Path(arguments.output_dir), _wanted(arguments.resume_from_checkpoint)
    if wanted and arguments.overwrite_output:
        raise ValueError(
            "--resume_from_checkpoint goes on with the run in the folder, --overwrite_output begins anew: give one"
        )
    found = latest_whole_checkpoint(folder) if wanted is True else wanted
    if found and not Path(found).is_dir():
        raise ValueError(
            f"--resume_from_checkpoint {found}: no such folder; give a checkpoint-N of the run, or true for the latest"
        )
    begun = read_identity(folder) is not None
    if wanted is True and found is None and not begun:
        raise ValueError(
            f"{folder} has no whole checkpoint to go on from: leave out --resume_from_checkpoint, "
            f"and give --overwrite_output true if the folder is not empty"
        )
    if wanted is True and found is None:
        logger.warning(f"{folder} has no whole checkpoint yet: the run in it begins with the first step")
    elsewhere = found and Path(found).resolve().parent != folder.resolve()
    if _is_filled(folder) and (elsewhere or not wanted) and not arguments.overwrite_output:
        raise ValueError(
            f"{folder} is not empty: give another --output_dir, --resume_from_checkpoint true to go on "
            f"with the run in it, or --overwrite_output true"
        )
    if _is_filled(folder) and arguments.overwrite_output and not holds_a_run(folder):
        raise ValueError(
            f"{folder} holds files but no run, and --overwrite_output removes runs alone: give another --output_dir"
        )
    refuse_differences(Path(found).name if found else "none", "the checkpoint to go on from")
    return found


def _wanted(resume: str | bool | None) -> str | bool | None:
    return {"true": True, "false": None}.get(resume.lower(), resume) if isinstance(resume, str) else resume or None


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
