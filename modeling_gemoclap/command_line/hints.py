"""The next useful command, which each command of `gemoclap` names at its end."""

from __future__ import annotations

import os
import shlex
import sys

NEXT = {  # RUN, MODEL and CORPUS are filled in from the options in PLACES
    "train": "gemoclap evaluate --model RUN --data_dir CORPUS --speakers SPEAKER ...",
    "evaluate": "gemoclap card MODEL --results results.json",
    "pretrained": "gemoclap train --config whisper_minilm --data_dir CORPUS --output_dir RUN",
    "compress": "gemoclap info COPY",
}
PLACES = {"RUN": "--output_dir", "MODEL": "--model", "CORPUS": "--data_dir"}


def hint(next_command: str, quiet: bool = False) -> None:
    """Print the next command to the standard error stream, once if there are several processes."""
    if not quiet and int(os.environ.get("RANK", 0)) == 0:
        print(f"Next: {next_command}", file=sys.stderr, flush=True)


def filled_in(command: str, arguments: list[str]) -> str:
    """Replace `RUN`, `MODEL` and `CORPUS` in a command by the values of the options in `PLACES`.

    Args:
        command: One of `NEXT`.
        arguments: The command line that was run.
    """
    for word, option in PLACES.items():
        if option in arguments[:-1]:
            command = command.replace(word, shlex.quote(arguments[arguments.index(option) + 1]))
    return command


def words_of_model(model: str, revision: str | None) -> str:
    """A model and its revision as words of a command."""
    return shlex.join([model, *(["--revision", revision] if revision else [])])
