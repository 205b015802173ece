"""Checks before training for errors that would otherwise occur at its end, and pushing to the Hub."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ..command_line.places import cache_folders, refuse_missing_reporters, refuse_unwritable
from ..publishing.push import PushError, push_failure
from ..training.arguments import DataArguments, GEmoClapTrainingArguments

FETCHED = "pretrained"  # default output folder of `gemoclap pretrained`


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


def refuse_missing_encoders(names: Mapping[str, str | None]) -> None:
    """Check that encoders in a folder `pretrained` exist, where the command of this name writes them.

    Without this check they would be taken for names on the Hub.

    Args:
        names: Names or paths of checkpoints by their option. None is ignored.

    Raises:
        ValueError: If there is no such folder. The message lists all of them, and the command that fetches them.
    """
    paths = {option: Path(name) for option, name in names.items() if name}
    missing = {option: path for option, path in paths.items() if path.parent.name == FETCHED and not path.exists()}
    if missing:
        found = ", ".join(f"--{option} {path}" for option, path in missing.items())
        folder = next(iter(missing.values())).parent
        raise ValueError(
            f"{found}: no such folder: fetch the pretrained encoders first, by make pretrained or "
            f"gemoclap pretrained --output_dir {folder}"
        )


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
        args = trainer.args
        folder, name = args.output_dir, trainer.hub_model_id or args.hub_model_id or Path(args.output_dir).name
        words = ["gemoclap", "push", str(folder), name]
        words += ["--branch", args.hub_revision] if args.hub_revision else []
        reason = str(error) if isinstance(error, PushError) else f"it was not pushed: {push_failure(error, name)}"
        raise PushError(
            f"the trained checkpoint is in {folder}. {reason}: push it later with {shlex.join(words)}"
        ) from error
