"""The versions that the files of a checkpoint need. Files that are loaded by name import this one before others."""

from __future__ import annotations

import re

import torch
import transformers

CHECKPOINT_FORMAT = 1  # raised when earlier code would misread a checkpoint
OLDEST = {"transformers": "4.57", "torch": "2.4"}


def refuse_older(name: str, found: str, oldest: str) -> None:
    """Check the version of a library, before a name that it lacks is imported from it.

    Args:
        name: Name of the library.
        found: Its version.
        oldest: The oldest version that is supported.

    Raises:
        ImportError: If the version is older, in one line.
    """
    numbers = [tuple(int(part) for part in re.findall(r"\d+", version)[:2]) for version in (found, oldest)]
    if numbers[0] < numbers[1]:
        raise ImportError(f"GEmo-CLAP needs {name} {oldest} or later, and {found} is installed: pip install -U {name}")


def check_format(number: int | None) -> int:
    """Check the format of a checkpoint, `checkpoint_format` in its config.json.

    Args:
        number: The format; None for checkpoints that were written before formats had numbers.

    Returns:
        The format that this code writes.

    Raises:
        ValueError: If later code wrote the checkpoint, or if it is not a number.
    """
    if number is None or (isinstance(number, int) and 1 <= number <= CHECKPOINT_FORMAT):
        return CHECKPOINT_FORMAT
    raise ValueError(
        f"config.json: checkpoint_format {number!r} is unknown to this version of GEmo-CLAP, which reads up to "
        f"{CHECKPOINT_FORMAT}: update the package, or load the checkpoint's own code (trust_remote_code=True)"
    )


for _library in (transformers, torch):
    refuse_older(_library.__name__, str(_library.__version__), OLDEST[_library.__name__])
