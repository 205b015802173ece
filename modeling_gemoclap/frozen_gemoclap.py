"""Freezing of towers, and training on the stored output of the frozen part of an audio tower."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

from .encoding_gemoclap import encode_frames, ignores_padding
from .towers_gemoclap import feature_encoder, transformer_layers

# Families whose last layers need only the output of the layer below and a mask of the keys. The others also need the
# relative positions of the first layer (WavLM, Wav2Vec2-BERT, Conformer), or have tokens without time (AST).
LAST_LAYERS_ALONE = (
    "data2vec-audio",
    "gemoclap_audio",
    "hubert",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "whisper",
)


def refuse_last_layers(config: PretrainedConfig) -> None:
    """Check that the last layers of an audio tower can be run without the layers below.

    Args:
        config: Configuration of the tower.

    Raises:
        ValueError: If they cannot.
    """
    if config.model_type not in LAST_LAYERS_ALONE or not ignores_padding(config):
        raise ValueError(
            f"the last layers of a {config.model_type!r} model cannot be run on stored frames, since they need more "
            f"than the output of the layer below: give --freeze_audio_encoder true instead of "
            f"--unfreeze_last_n_layers, or --cache_frozen_frames false"
        )


def frozen_states(
    tower: PreTrainedModel, inputs: torch.Tensor, mask: torch.Tensor | None, num_trained: int, all_layers: bool
) -> list[tuple[torch.Tensor, int]]:
    """Run the frozen part of an audio tower.

    Args:
        tower: The tower.
        inputs: See `encode_frames`.
        mask: See `encode_frames`.
        num_trained: Number of last layers that are trained.
        all_layers: Whether to return the outputs of all frozen layers instead of the last.

    Returns:
        For each clip `(states, frames, hidden_size)` and the number of its valid frames. With trained layers the last
        state is their input; without, it is the output of the tower. Frames that are not valid are left out, except
        those of a window of fixed length to which trained layers attend; these follow the valid frames.
    """
    states, valid = encode_frames(tower, inputs, mask, all_layers or num_trained > 0)
    states = states[: len(states) - num_trained]
    clips = torch.stack(states if all_layers else states[-1:], 1)
    if valid is None:
        return [(clip, clip.shape[1]) for clip in clips]
    counts = valid.sum(1).tolist()
    if num_trained and tower.config.model_type == "whisper":
        return list(zip(clips, counts, strict=True))
    return [(clip[:, rows.bool()], count) for clip, rows, count in zip(clips, valid, counts, strict=True)]


def run_last_layers(
    tower: PreTrainedModel, layers: list[nn.Module], hidden: torch.Tensor, mask: torch.Tensor | None
) -> list[torch.Tensor]:
    """Run the last layers of an audio tower on the output of the layer below.

    Args:
        tower: A tower that `refuse_last_layers` accepts.
        layers: Its last layers, one or more.
        hidden: `(batch, frames, hidden_size)`; for Whisper complete windows, which are encoded separately.
        mask: `(batch, frames)`, 1 for valid frames; None if all frames are valid. Whisper attends to all frames.

    Returns:
        The outputs of the layers, each `(batch, frames, hidden_size)`; the last one is the output of the tower.
    """
    shape, family = hidden.shape, tower.config.model_type
    if family == "whisper":
        hidden, keys = hidden.reshape(-1, tower.config.max_source_positions, shape[-1]), None
    else:
        keys = hidden.new_ones(shape[:2]).bool() if mask is None else mask.bool()
        if family != "gemoclap_audio":  # added to the attention scores, in a form that all kernels accept
            lowest = torch.finfo(hidden.dtype).min
            keys = hidden.new_zeros(shape[0], 1, 1, shape[1]).masked_fill(~keys[:, None, None], lowest)
            keys = keys.expand(-1, 1, shape[1], -1)
    required = {"layer_head_mask"} & inspect.signature(layers[0].forward).parameters.keys()  # Whisper, transformers 4
    states = []
    for layer in layers:
        hidden = layer(hidden, keys, **dict.fromkeys(required))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # transformers 4
        states.append(hidden.reshape(shape))
    states[-1] = _final_norm(tower)(states[-1])
    return states


def _final_norm(tower: PreTrainedModel) -> nn.Module:
    """The norm after the last layer."""
    if tower.config.model_type == "gemoclap_audio":
        return tower.final_norm
    if tower.config.model_type == "whisper":
        return tower.layer_norm
    return tower.encoder.layer_norm if getattr(tower.config, "do_stable_layer_norm", False) else nn.Identity()


class FreezableTowers:
    """The methods of a model that freeze its towers or parts of them.

    A frozen tower stays in evaluation mode, without dropout, layer drop and SpecAugment, so that its output for a clip
    is the same in every epoch. Of a partly frozen audio tower, only the layers that are trained have a training mode.
    """

    num_trained_layers = 0  # of a frozen audio tower, the last layers that are trained
    _frozen_towers: tuple[str, ...] = ()

    def train(self, mode: bool = True) -> nn.Module:
        """As `torch.nn.Module.train`; frozen parts of towers stay in evaluation mode, without dropout and masks."""
        if not self._frozen_towers and all(module.training == mode for module in self.modules()):
            return self  # the trainer of transformers calls it in every step
        super().train(mode)
        for name in self._frozen_towers:
            getattr(self, name).eval()
        for layer in self.last_layers():
            layer.train(mode)
        return self

    def last_layers(self) -> list[nn.Module]:
        """The trained layers of a frozen audio tower."""
        return list(transformer_layers(self.audio_model)[1])[-n:] if (n := self.num_trained_layers) else []

    def _freeze(self, name: str) -> None:
        """Freeze a tower."""
        tower = getattr(self, name).requires_grad_(False)
        for module in tower.modules():
            if hasattr(module, "_requires_grad"):
                module._requires_grad = False
        self._frozen_towers = (*self._frozen_towers, name)
        self.train(self.training)

    def freeze_feature_projection(self) -> None:
        """Freeze the projection of the convolutions' output to the width of the Transformer.

        Raises:
            ValueError: If the audio tower has no feature projection.
        """
        if not hasattr(self.audio_model, "feature_projection"):
            model_type = self.config.audio_config.model_type
            raise ValueError(
                f"freeze_feature_projection: a {model_type!r} model has no feature projection; remove the option, or "
                f"override a configuration file with --freeze_feature_projection false"
            )
        self.audio_model.feature_projection.requires_grad_(False)

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions or patch embeddings of the audio tower.

        Raises:
            ValueError: If they cannot be identified.
        """
        for module in feature_encoder(self.audio_model):
            module.requires_grad_(False)
            module._requires_grad = False  # else transformers builds a graph through the module in training

    def freeze_audio_encoder(self) -> None:
        """Freeze the audio tower, but not its pooling and its projection or head."""
        self.num_trained_layers = 0
        self._freeze("audio_model")

    def unfreeze_last_n_layers(self, n: int) -> None:
        """Freeze the audio tower except for its last Transformer layers.

        Args:
            n: Number of layers that are trained.

        Raises:
            ValueError: If the tower has fewer than `n` layers.
        """
        _, layers = transformer_layers(self.audio_model)
        if not 0 <= n <= len(layers):
            raise ValueError(f"unfreeze_last_n_layers={n}: the audio tower has {len(layers)} layers")
        self.freeze_audio_encoder()
        self.num_trained_layers = n
        for layer in self.last_layers():
            layer.requires_grad_(True)
        self.train(self.training)
