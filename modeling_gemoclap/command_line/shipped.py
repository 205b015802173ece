"""Configurations, checkpoints and the demo's program, which are included in the package."""

from __future__ import annotations

import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PLACES = (PACKAGE, PACKAGE.parent)  # of an installed wheel; of the repository
FOLDERS = tuple(place / "configs" for place in PLACES)
CHECKPOINTS = {"base": "gemoclap-base", "compact": "gemoclap-compact"}


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


def shipped_checkpoint(name: str) -> str:
    """Find a checkpoint.

    Args:
        name: A folder, a name on the Hub, or a short name in `CHECKPOINTS`.

    Returns:
        The folder of the checkpoint of the package if `name` is a short name, unless it is also the folder of a
        checkpoint; otherwise `name`.

    Raises:
        ValueError: If the package was installed without the checkpoint.
    """
    if name not in CHECKPOINTS or Path(name, "config.json").is_file():
        return name
    return str(shipped_path("checkpoints", CHECKPOINTS[name]))


def shipped_path(folder: str, name: str) -> Path:
    """The path of a file or folder that the wheel includes from a folder of the repository.

    Raises:
        ValueError: If it was not installed.
    """
    paths = [place / folder / name for place in PLACES]
    for path in paths:
        if path.exists():
            return path
    raise ValueError(f"{paths[0]}: missing from this installation of the package; install it again")
