"""Checks before a command starts: writable folders, the device, and packages for reporting."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch


def refuse_unwritable(places: Mapping[str, str | Path | None]) -> None:
    """Check that folders can be written: create, write, rename and remove a temporary file.

    If a folder does not exist, its nearest existing parent is checked.

    Args:
        places: Folders by their name in messages, for example `--output_dir`. None is ignored.

    Raises:
        ValueError: If a folder cannot be written. The message lists all such folders.
    """
    problems = []
    for name, place in places.items():
        if place is None:
            continue
        try:
            _check_writable(Path(place))
        except OSError as error:
            problems.append(f"{name} {place}: cannot be written ({error.strerror or error})")
    if problems:
        raise ValueError("; ".join(problems) + ": give a folder that can be written")


def refuse_same_file(outputs: Mapping[str, str | Path | None], inputs: Mapping[str, str | Path | None] | None = None):
    """Check that outputs are neither an input nor one another, so that nothing is overwritten by mistake.

    Args:
        outputs: Files that are written, by their name in messages, for example `--output`. None is ignored.
        inputs: Files that are read.

    Raises:
        ValueError: If an output is the same file as an input or another output.
    """
    seen: dict[str, str] = {}
    for name, place in [*(inputs or {}).items(), *outputs.items()]:
        if place is None:
            continue
        real = os.path.realpath(Path(place).expanduser())
        if real in seen and name in outputs:
            raise ValueError(f"{name} {place}: the same file as {seen[real]}, which would be overwritten")
        seen[real] = name if name == str(place) else f"{name} {place}"


def _check_writable(folder: Path) -> None:
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
    """The cache folders for features and metrics, by their name in messages.

    Args:
        features: Value of `--feature_cache_dir`, which replaces the cache of `datasets`.
    """
    import datasets

    import evaluate

    metrics = "the cache of metrics in HF_HOME", evaluate.config.HF_MODULES_CACHE
    if features:
        return dict([("--feature_cache_dir", features), metrics])
    return dict([("the cache of features in HF_HOME", datasets.config.HF_DATASETS_CACHE), metrics])


def refuse_missing_device(device: str | None) -> None:
    """Check that a device is available.

    Args:
        device: A device of torch, for example `cuda:1`; None is accepted.

    Raises:
        ValueError: If the device is not available.
    """
    if device is None:
        return
    try:
        kind = torch.device(device).type
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = "no such device" if "device type at start" in str(error) else str(error).partition("\n")[0]
        raise ValueError(f"--device {device}: {reason}; give cpu, or leave it out for the default device") from None
    if kind == "meta":
        raise ValueError("--device meta: it computes nothing; give cpu, or leave it out for the default device")


def refuse_missing_reporters(report_to: list[str]) -> None:
    """Check that the reporting integrations are installed.

    Args:
        report_to: `TrainingArguments.report_to`.

    Raises:
        ValueError: If an integration is unknown or not installed.
    """
    from transformers.integrations import get_available_reporting_integrations

    available = get_available_reporting_integrations()
    for name in report_to:
        if name not in (*available, "none", "all", "flyte"):
            package = "'gemoclap[tensorboard]'" if name == "tensorboard" else name
            raise ValueError(f"--report_to {name}: not installed or unknown: pip install {package}")
