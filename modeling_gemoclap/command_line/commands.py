"""Commands are started as scripts of the repository, by `gemoclap`, or by `python -m modeling_gemoclap`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command_words(name: str) -> list[str]:
    """The words after `python` that start a command in the same way as this process was started.

    Args:
        name: `train`, `evaluate` or `grid`.

    Returns:
        `-m modeling_gemoclap NAME` if this process runs the package, otherwise `NAME.py`.
    """
    return ["-m", "modeling_gemoclap", name] if _runs_the_package() else [f"{name}.py"]


def typed_words() -> list[str]:
    """The words after `python` that started this process, without the folder of the script."""
    first = ["-m", "modeling_gemoclap"] if _runs_the_package() else [Path(sys.argv[0]).name]
    return [*first, *sys.argv[1:]]


def typed_command() -> str:
    """The command that started this process, with the names of folders in place of absolute paths."""
    words = [Path(word).name if word.startswith(("/", "~")) else word for word in typed_words()]
    return shlex.join(["python", *words])


def _runs_the_package() -> bool:
    script = Path(sys.argv[0])
    return script.stem == "gemoclap" or (script.parent.name, script.name) == ("modeling_gemoclap", "__main__.py")
