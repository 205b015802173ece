"""The weights in the folder of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError, safe_open

from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.files import read_object
from ..fingerprint import TRAINING_CLIPS, weight_files
from ..safety_gemoclap import tensors_sha256
from ..training_clips import load_training_clips

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_weights(folder: Path) -> None:
    """Check that the headers of all weights can be read and that the files have the sizes stated there.

    Args:
        folder: Folder of a checkpoint.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        names = sorted(set(read_object(folder / INDEX, weight_map=dict)["weight_map"].values()))
    for name in names:
        path = folder / PurePosixPath(name).name
        if not path.is_file():
            raise ValueError(f"{folder}: no {name} there, so the weights are not complete; save the model again")
        try:
            with safe_open(path, framework="pt") as weights:
                empty = not list(weights.keys())
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: the weights cannot be read ({error}); save the model again") from error
        if empty:
            raise ValueError(f"{path}: it has no weights; save the model again")


def refuse_other_weights(folder: Path, config: GEmoClapConfig) -> None:
    """Check that the weights are those whose hash the configuration records.

    Weights without a recorded hash are not checked.

    Args:
        folder: Folder of a checkpoint.
        config: Its configuration.

    Raises:
        ValueError: If they are other weights, or cannot be read.
    """
    recorded = getattr(config, "weights_sha256", None)
    if not recorded or not weight_files(folder):
        return
    found = tensors_sha256(_tensors(folder))
    if found != recorded:
        raise ValueError(
            f"{folder}: the weights are not those that its record of training describes (their SHA-256 is "
            f"{found[:16]}…, and config.json has weights_sha256 {recorded[:16]}…): restore the weights, or load the "
            f"model, call model.check_history(), which records that its training is unknown, and save it again"
        )


def has_other_training_clips(folder: Path) -> bool:
    """Whether `training_clips.safetensors` was made with other weights than those beside it.

    Args:
        folder: Folder of a checkpoint.

    Raises:
        ValueError: If the file is damaged.
    """
    clips = load_training_clips(folder)
    return clips is not None and clips.weights_sha256 != tensors_sha256(_tensors(folder))


def refuse_other_training_clips(folder: Path) -> None:
    """Check that `training_clips.safetensors`, if there is one, can be read and was made with the weights beside it.

    Args:
        folder: Folder of a checkpoint.

    Raises:
        ValueError: If it is damaged or was made with other weights.
    """
    if has_other_training_clips(folder):
        raise ValueError(
            f"{folder / TRAINING_CLIPS} was made with other weights than those beside it: remove it, or write it "
            f"again (gemoclap training-clips)"
        )


def _tensors(folder: Path) -> Iterator[torch.Tensor]:
    """All tensors, one at a time.

    Raises:
        ValueError: If a file cannot be read.
    """
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():
                    yield weights.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: the weights cannot be read ({error}); save the model again") from error
