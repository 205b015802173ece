"""Whether what a command will need at its end can be had, tried before it begins."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch


def refuse_unwritable(places: Mapping[str, str | Path | None]) -> None:
    """Try to write into folders: a probe is created, written, renamed and removed. Nothing of it is left.

    Of a folder that does not exist the nearest one above it is tried.

    Args:
        places: Folders by what names them, as `--output_dir`; None is passed over.

    Raises:
        ValueError: If a file cannot be written there. The message names all such places.
    """
    found = []
    for name, place in places.items():
        if place is None:
            continue
        try:
            _try_to_write(Path(place))
        except OSError as error:
            found.append(f"{name} {place}: cannot be written ({error.strerror or error})")
    if found:
        raise ValueError("; ".join(found) + ": give a folder that can be written")


def _try_to_write(folder: Path) -> None:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    handle, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, f"{name}.renamed")
        name = f"{name}.renamed"
    finally:
        Path(name).unlink(missing_ok=True)


def cache_folders(features: str | None = None) -> dict[str, str]:
    """The caches that reading recordings and computing metrics write into.

    Args:
        features: `--feature_cache_dir`, which is then in the place of the cache of `datasets`.
    """
    import datasets

    import evaluate

    metrics = "the cache of metrics in HF_HOME", evaluate.config.HF_MODULES_CACHE
    if features:
        return dict([("--feature_cache_dir", features), metrics])
    return dict([("the cache of features in HF_HOME", datasets.config.HF_DATASETS_CACHE), metrics])


def refuse_missing_device(device: str | None) -> None:
    """Make sure that tensors can be made on a device.

    Args:
        device: As torch names it, as `cuda:1`; None is passed over.

    Raises:
        ValueError: If there is no such device here.
    """
    if device is None:
        return
    try:
        kind = torch.device(device).type
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = "no such device" if "device type at start" in str(error) else str(error).partition("\n")[0]
        raise ValueError(f"--device {device}: {reason}; give cpu, or leave it out to use what there is") from None
    if kind == "meta":
        raise ValueError("--device meta: nothing is computed there; give cpu, or leave it out to use what there is")


def refuse_missing_reporters(report_to: list[str]) -> None:
    """Make sure that what training reports to is installed.

    Args:
        report_to: `TrainingArguments.report_to`.

    Raises:
        ValueError: If a package is missing.
    """
    from transformers.integrations import get_available_reporting_integrations

    there = get_available_reporting_integrations()
    for name in report_to:
        if name not in (*there, "none", "all", "flyte"):
            package = "'gemoclap[tensorboard]'" if name == "tensorboard" else name
            raise ValueError(f"--report_to {name}: it is not installed or not known: pip install {package}")
