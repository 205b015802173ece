"""Examination of an installation: versions, devices, and parts that are missing."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from ..version import __version__
from .shipped import CHECKPOINTS, PLACES, shipped_checkpoint

PACKAGE = "gemoclap"
# Optional parts: the extra, and what it is for.
EXTRAS = {
    "train": "training, evaluation, model cards and pushing",
    "lora": "low-rank adapters",
    "tensorboard": "logs for TensorBoard",
    "ffmpeg": "m4a, aac, webm and wma",
    "vad": "speech in noise, for timelines",
    "mic": "gemoclap listen",
    "page": "the web page of gemoclap page",
    "search": "search of recordings",
    "serve": "the HTTP service gemoclap serve",
    "demo": "the synthetic corpus of gemoclap demo-corpus",
}


def examine() -> tuple[list[str], bool]:
    """Examine the installation.

    Returns:
        One line for each part, and whether everything that predictions need is there.
    """
    required, optional = _requirements()
    problems = [_problem(requirement) for requirement in required]
    lines = [f"gemoclap      {__version__}, Python {platform.python_version()}, {sys.executable}"]
    for requirement, problem in zip(required, problems, strict=True):
        lines.append(f"{requirement.name:<14}{problem or version(requirement.name)}")
    healthy = not any(problems)
    if healthy:
        lines.append(f"{'devices':<14}{_devices()}")
    lines.append(f"{'ffmpeg':<14}{shutil.which('ffmpeg') or 'not on the PATH (see the part ffmpeg below)'}")
    for name in CHECKPOINTS:
        lines.append(f"{name:<14}{_checkpoint(name)}")
    for extra, purpose in EXTRAS.items():
        missing = [requirement.name for requirement in optional.get(extra, []) if _problem(requirement)]
        state = f"missing {', '.join(missing)}: {_install(extra)}" if missing else "installed"
        lines.append(f"[{extra}]".ljust(14) + f"{state} ({purpose})")
    return lines, healthy


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What the package requires, and what its extras require, by extra."""
    try:
        declared = [Requirement(text) for text in requires(PACKAGE) or []]
    except PackageNotFoundError:  # the repository, not installed
        declared = [Requirement(name) for name in ("numpy", "torch", "transformers", "soundfile", "soxr")]
    required = [item for item in declared if item.marker is None or item.marker.evaluate({"extra": ""})]
    extras = {
        extra: [item for item in declared if item not in required and item.marker.evaluate({"extra": extra})]
        for extra in EXTRAS
    }
    return required, extras


def _problem(requirement: Requirement) -> str | None:
    """What is wrong with an installed package, and the command that mends it; None if nothing is."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"missing: pip install '{requirement.name}{requirement.specifier}'"
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    return f"{installed}, too old or too new: pip install '{requirement.name}{requirement.specifier}'"


def _install(extra: str) -> str:
    """The command that installs an extra; in a checkout, with its pins."""
    checkout = PLACES[1] / "constraints.txt"
    return (
        f"pip install -c {checkout} -e '{checkout.parent}[{extra}]'"
        if checkout.is_file()
        else (f"pip install '{PACKAGE}[{extra}]'")
    )


def _devices() -> str:
    import torch

    devices = ["cpu"] + [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(_num_gpus())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    return ", ".join(devices)


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _checkpoint(name: str) -> str:
    try:
        return shipped_checkpoint(name)
    except ValueError as error:
        return str(error)
