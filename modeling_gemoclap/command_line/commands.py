"""Commands are started as scripts of the repository or by `python -m modeling_gemoclap`."""

from __future__ import annotations

import sys
from pathlib import Path


def command_words(name: str) -> list[str]:
    """The words after `python` that start a command in the same way as this process was started.

    Args:
        name: `train`, `evaluate` or `grid`.

    Returns:
        `-m modeling_gemoclap NAME` if this process runs the package, otherwise `NAME.py`.
    """
    script = Path(sys.argv[0])
    if (script.parent.name, script.name) == ("modeling_gemoclap", "__main__.py"):
        return ["-m", "modeling_gemoclap", name]
    return [f"{name}.py"]
