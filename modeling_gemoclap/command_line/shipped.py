"""Configurations that are included in the package."""

from __future__ import annotations

import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # in an installed wheel; in the repository


def shipped_config(name: str) -> str:
    """Find a configuration file.

    Args:
        name: A file, or a configuration of the package: `compact`, `compact.yaml` or `configs/compact.yaml`.

    Returns:
        `name` if it is an existing file, otherwise the path of the configuration of the package.

    Raises:
        ValueError: If neither exists. The message lists the configurations of the package.
    """
    if Path(name).is_file():
        return name
    configs = {path.stem: path for folder in FOLDERS[::-1] for path in sorted(folder.glob("*.yaml"))}
    stem = name.removeprefix("configs/").removesuffix(".yaml")
    if stem in configs:
        return str(configs[stem])
    matches = difflib.get_close_matches(stem, configs, n=1)
    question = f"; did you mean {matches[0]}?" if matches else "."
    raise ValueError(f"--config {name}: no such file{question} The package has {', '.join(configs)}")
