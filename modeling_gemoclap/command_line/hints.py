"""The next useful command, which each command of `gemoclap` names at its end."""

from __future__ import annotations

import os
import shlex
import sys
from itertools import takewhile
from pathlib import Path

NEXT = {  # words in capitals are filled in from the options in PLACES
    "train": "gemoclap evaluate --model RUN --data_dir CORPUS --speakers SPEAKER...",
    "evaluate": "gemoclap card MODEL --results RESULTS",
    "pretrained": "gemoclap train --config whisper_minilm --data_dir CORPUS --output_dir RUN",
    "compress": "gemoclap info COPY",
}
PLACES = {"RUN": "--output_dir", "MODEL": "--model", "CORPUS": "--data_dir", "SPEAKER...": "--exclude_speakers"}


def hint(next_command: str, quiet: bool = False) -> None:
    """Print the next command to the standard error stream, once if there are several processes."""
    if not quiet and int(os.environ.get("RANK", 0)) == 0:
        print(f"Next: {next_command}", file=sys.stderr, flush=True)


def next_command(name: str, arguments: list[str], results: Path | None = None) -> str | None:
    """The command that is useful after another one, with the values of the options in `PLACES`.

    Args:
        name: The command that was run.
        arguments: Its command line.
        results: The `results.json` that it wrote for a model card.

    Returns:
        None if there is no such command.
    """
    if name not in NEXT or (name == "evaluate" and results is None):
        return None
    command = NEXT[name].replace("RESULTS", shlex.quote(str(results)))
    for word, option in PLACES.items():
        if option in arguments[:-1]:
            rest = arguments[arguments.index(option) + 1 :]
            command = command.replace(word, shlex.join(takewhile(lambda value: not value.startswith("--"), rest)))
    return command


def words_of_model(model: str, revision: str | None) -> str:
    """A model and its revision as words of a command."""
    return shlex.join([model, *(["--revision", revision] if revision else [])])
