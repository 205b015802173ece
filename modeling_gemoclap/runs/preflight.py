"""Checks before training for errors that would otherwise occur at its end, and pushing to the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..command_line.places import cache_folders, refuse_missing_reporters, refuse_unwritable
from ..training.arguments import DataArguments, GEmoClapTrainingArguments


class PushError(RuntimeError):
    """A finished checkpoint could not be pushed to the Hub."""


def check_environment(data: DataArguments, arguments: GEmoClapTrainingArguments) -> None:
    """Check that a run can write its folder and caches, and that the packages of `report_to` are installed.

    One process of each machine checks the caches, the main process the output folder.

    Args:
        data: Options, with `feature_cache_dir`.
        arguments: Options, with `output_dir` and `report_to`.

    Raises:
        ValueError: If a folder cannot be written, or a package is missing.
    """
    refuse_missing_reporters(arguments.report_to)
    places = cache_folders(data.feature_cache_dir) if arguments.local_process_index == 0 else {}
    if arguments.process_index == 0:
        places["--output_dir"] = arguments.output_dir
    refuse_unwritable(places)


def push(trainer) -> None:
    """Push a saved checkpoint to the Hub.

    Args:
        trainer: The trainer.

    Raises:
        PushError: If the push fails. The message names the folder and the command to push it later.
    """
    try:
        trainer.push_to_hub()
    except Exception as error:  # any network error: the message must say where the trained checkpoint is
        folder, name = trainer.args.output_dir, trainer.hub_model_id or trainer.args.hub_model_id
        command = shlex.join(["hf", "upload", name or Path(folder).name, str(folder)])
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise PushError(
            f"the trained checkpoint is in {folder}, but could not be pushed to the Hub ({reason}): push it later "
            f"with {command}"
        ) from error
