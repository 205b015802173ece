"""Commands are started as scripts of the repository, by `gemoclap`, or by `python -m modeling_gemoclap`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

TOKEN = re.compile(r"token(?!s)", re.IGNORECASE)  # not average_tokens_across_devices
ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:[\\/]|\\\\")  # also of Windows, with a drive or a server


def command_words(name: str) -> list[str]:
    """The words after `python` that start a command in the same way as this process was started.

    Args:
        name: `train`, `evaluate` or `grid`.

    Returns:
        `-m modeling_gemoclap NAME` if this process runs the package, otherwise `NAME.py`.
    """
    return ["-m", "modeling_gemoclap", name] if _runs_the_package() else [f"{name}.py"]


def typed_words() -> list[str]:
    """The words after `python` that started this process, without the folder of the script and without tokens."""
    first = ["-m", "modeling_gemoclap"] if _runs_the_package() else [Path(sys.argv[0]).name]
    return [*first, *without_tokens(sys.argv[1:])]


def typed_command() -> str:
    """The command that started this process, as it may be published; see `publishable_command`."""
    return publishable_command(typed_words())


def publishable_command(words: Iterable[str]) -> str:
    """A command without tokens, and with the names of files and folders in place of absolute paths.

    Args:
        words: The words after `python`.
    """
    return shlex.join(["python", *map(_without_folders, without_tokens(words))])


def without_tokens(words: Iterable[str]) -> list[str]:
    """The words of a command without options that name a token, such as `--hub_token`, and their values.

    Args:
        words: Words of a command line.
    """
    kept, within = [], False
    for word in words:
        if word.startswith("--"):
            within = bool(TOKEN.search(word.partition("=")[0]))
        if not within:
            kept.append(word)
    return kept


def _without_folders(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not ABSOLUTE.match(value):
        return word
    return option + equals + ((Path(value) if value[0] in "/~" else PureWindowsPath(value)).name or value)


def _runs_the_package() -> bool:
    script = Path(sys.argv[0])
    return script.stem == "gemoclap" or (script.parent.name, script.name) == ("modeling_gemoclap", "__main__.py")
