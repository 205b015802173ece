"""What an audio encoder returns if it ends after each of its layers: pooled, once for each recording, and cached."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from ...base_gemoclap import GEmoClapPreTrainedModel
from ...configuration_gemoclap import GEmoClapAudioConfig
from ...corpora.files import write_atomically
from ...fingerprint import AUDIO_LIBRARIES, digest, file_sha256, fingerprint
from ...safety_gemoclap import tensors_sha256
from ...towers_gemoclap import keep_layers, transformer_layers
from ...training.clips import ClipDataset


class LayerPooling(nn.Module):
    """Pools what an encoder would return if it ended after each of its layers.

    Args:
        pooling: The pooling of the model, without weights.
        final: What the encoder applies after its last layer, such as a layer norm.
    """

    def __init__(self, pooling: nn.Module, final: nn.Module):
        super().__init__()
        self.pooling, self.final = pooling, final

    def forward(self, states: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        """Map the states of all layers, each `(batch, frames, hidden_size)`, to `(batch, layers + 1, output_size)`."""
        outputs = [*(self.final(state) for state in states[:-1]), states[-1]]  # the last state went through it already
        return torch.stack([self.pooling([output], mask) for output in outputs], 1)


def keep_first_layers(model: GEmoClapPreTrainedModel, count: int) -> None:
    """Keep the first `count` Transformer layers of a model's audio encoder, none of them with 0; see `keep_layers`."""
    tower = keep_layers(model.audio_model, count, "probe_layer", fewest_layers(model))
    model.config.audio_config = tower.config


def fewest_layers(model: GEmoClapPreTrainedModel) -> int:
    """The smallest number of layers that a model's audio encoder can have: 0, and 1 for the compact encoder."""
    return int(model.config.audio_config.model_type == GEmoClapAudioConfig.model_type)


def _after_layers(tower: PreTrainedModel, run) -> nn.Module:
    """Find what a tower applies after its last layer, by the modules that it calls when `run()` runs it.

    Raises:
        ValueError: If it is more than layer norms, so that no other layer can be tried in place of the last.
    """
    _, layers = transformer_layers(tower)
    inside, called, ended = set(layers.modules()), [], []

    def note(module: nn.Module, _) -> None:
        if ended:
            called.append(module)

    hooks = [layers[-1].register_forward_hook(lambda *_: ended.append(True))]
    hooks += [
        module.register_forward_pre_hook(note)
        for module in tower.modules()
        if module not in inside and not list(module.children())
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    applied = [module for module in called if not isinstance(module, (nn.Dropout, nn.Identity))]
    if any(not isinstance(module, nn.LayerNorm) for module in applied):
        names = ", ".join(type(module).__name__ for module in applied)
        raise ValueError(
            f"--head probe: a {tower.config.model_type!r} encoder applies more than a layer norm after its layers "
            f"({names}), so its layers cannot be tried one by one: give another encoder"
        )
    return nn.Sequential(*applied)


@contextmanager
def _pooling_of_layers(model: GEmoClapPreTrainedModel, batch: dict) -> Iterator[None]:
    """Within this context `pool_audio` returns `(batch, layers + 1, output_size)`, without gradients and dropout."""
    training, pooling = model.training, model.audio_pooling
    model.eval()
    with torch.no_grad():
        try:
            if len(transformer_layers(model.audio_model)[1]):
                final = _after_layers(model.audio_model, lambda: model.pool_audio(**batch))
                model.audio_pooling = LayerPooling(pooling, final)
                model.config.use_weighted_layer_sum = True  # asks the encoder for the states of all layers
            else:
                model.audio_pooling = LayerPooling(pooling, nn.Identity())
            yield
        finally:
            model.audio_pooling, model.config.use_weighted_layer_sum = pooling, False
            model.train(training)


def _inputs(model: GEmoClapPreTrainedModel, clips: ClipDataset, index: int) -> dict:
    return dict(clips.extractor.collate([clips[index]["clip"]]).to(model.device))


def layer_features(
    model: GEmoClapPreTrainedModel, clips: ClipDataset, cache_dir: str | None = None, quiet: bool = True
) -> np.ndarray:
    """Pool the output of an encoder that ends after each of its layers, for every clip.

    Each recording is encoded alone, so that its features are the same to the last bit in every selection of clips.
    They are stored by the content of the recording, so that the folds of a protocol share them.

    Args:
        model: The model, with a pooling without weights.
        clips: Complete recordings, neither cut nor augmented.
        cache_dir: Folder of the stored features; None: the cache of `datasets`.
        quiet: Whether to show no progress.

    Returns:
        `(clips, layers + 1, output_size)`. Index 0 is the input of the first layer.

    Raises:
        ValueError: If the layers of the encoder cannot be tried one by one.
    """
    keys = [file_sha256(path) for path in clips.clips["path"]]
    path = _cache_file(model, clips, cache_dir)
    known = _read(path)
    missing = {key: index for index, key in enumerate(keys) if key not in known}
    if missing:
        try:
            with _pooling_of_layers(model, _inputs(model, clips, 0)):
                for key, index in logging.tqdm(missing.items(), desc="encoding audio", disable=quiet):
                    known[key] = model.pool_audio(**_inputs(model, clips, index))[0].float().cpu().numpy()
        finally:  # what an interrupted run has computed is not computed again
            _write(path, known)
    return np.stack([known[key] for key in keys])


def check_cut(model: GEmoClapPreTrainedModel, clips: ClipDataset, features: np.ndarray) -> None:
    """Check on one clip that a model with fewer layers returns the features that were computed with all layers.

    Args:
        model: The model, after `keep_first_layers`.
        clips: The clips.
        features: `(clips, output_size)`, those of the last layer that was kept.

    Raises:
        ValueError: If they differ.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        pooled = model.pool_audio(**_inputs(model, clips, 0))[0].float().cpu().numpy()
    model.train(training)
    if not np.allclose(pooled, features[0], rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"--head probe: the layers of a {model.config.audio_config.model_type!r} encoder cannot be cut: with "
            f"fewer layers it returns something else than its states in between; give another encoder"
        )


def _cache_file(model: GEmoClapPreTrainedModel, clips: ClipDataset, cache_dir: str | None) -> Path:
    """Path of the features of an encoder. Its name is a hash of everything that they depend on but the recording."""
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    identity = fingerprint(
        ["objectives.probe.features"],
        (*AUDIO_LIBRARIES, "torch"),
        settings=[clips.extractor.to_dict(), model.config.audio_config.to_dict(), model.config.pooling],
        weights=tensors_sha256(model.audio_model.state_dict().values()),
        device=model.device.type,
    )
    return folder / f"layers-{digest(identity)[:32]}.safetensors"


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with safe_open(path, "numpy") as file:
        return dict(zip(json.loads(file.metadata()["recordings"]), file.get_tensor("features"), strict=True))


def _write(path: Path, features: dict[str, np.ndarray]) -> None:
    if features:
        with write_atomically(path) as part:
            metadata = {"recordings": json.dumps(list(features))}
            save_file({"features": np.stack(list(features.values()))}, part, metadata=metadata)
