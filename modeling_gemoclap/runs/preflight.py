"""What a training needs at its end, tried before it begins, and what is done with a push that fails."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..command_line.places import cache_folders, refuse_missing_reporters, refuse_unwritable
from ..training.arguments import DataArguments, GEmoClapTrainingArguments


class PushError(RuntimeError):
    """A finished checkpoint could not be pushed to the Hub."""


def check_places(data: DataArguments, arguments: GEmoClapTrainingArguments) -> None:
    """Make sure that a run can write its folder and its caches, and that what it reports to is installed.

    One process of a machine tries the caches, the first process the output folder.

    Args:
        data: `feature_cache_dir`.
        arguments: `output_dir`, `report_to` and this process's place.

    Raises:
        ValueError: If a folder cannot be written, or a package is missing.
    """
    refuse_missing_reporters(arguments.report_to)
    places = cache_folders(data.feature_cache_dir) if arguments.local_process_index == 0 else {}
    if arguments.process_index == 0:
        places["--output_dir"] = arguments.output_dir
    refuse_unwritable(places)


def push(trainer) -> None:
    """Push a checkpoint that is written.

    Args:
        trainer: The trainer.

    Raises:
        PushError: If it cannot be pushed. The message names the folder and the command to push it later.
    """
    try:
        trainer.push_to_hub()
    except Exception as error:  # whatever the network does: hours of training must not end in its traceback
        folder, name = trainer.args.output_dir, trainer.hub_model_id or trainer.args.hub_model_id
        command = shlex.join(["hf", "upload", name or Path(folder).name, str(folder)])
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise PushError(
            f"the trained checkpoint is in {folder}, but could not be pushed to the Hub ({reason}): push it later "
            f"with {command}"
        ) from error
