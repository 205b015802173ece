"""The configurations that come with the package."""

from __future__ import annotations

import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # installed from a wheel; in the repository


def shipped_config(name: str) -> str:
    """Find a configuration.

    Args:
        name: A file, or a configuration of the package: `compact`, `compact.yaml` or `configs/compact.yaml`.

    Returns:
        The path: `name` if there is such a file, otherwise that of the package's configuration.

    Raises:
        ValueError: If there is neither. The message lists the configurations of the package.
    """
    if Path(name).is_file():
        return name
    shipped = {path.stem: path for folder in FOLDERS[::-1] for path in sorted(folder.glob("*.yaml"))}
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if wanted in shipped:
        return str(shipped[wanted])
    near = difflib.get_close_matches(wanted, shipped, n=1)
    question = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"--config {name}: no such file{question} The package has {', '.join(shipped)}")
