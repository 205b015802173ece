"""Run towers so that the frames of a clip are independent of padding and of the other clips in the batch.

Padding is masked at three points, without a change of the names or shapes of weights:

- group norm over time computes its statistics over the valid frames only;
- the layer-normed positional convolutions of data2vec see zeros after the end of a clip;
- an encoder that was not measured runs without padding, on clips of equal length.

Whisper hears a window of fixed length. A longer clip is several windows, whose valid frames are pooled together.
"""

from __future__ import annotations

import inspect

import torch
from torch import nn
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel

from .attention_gemoclap import use_kernels
from .spectrograms_gemoclap import POSITIONS_PER_SECOND

# Families whose frames are independent of padding, as measured by benchmarks/batch_independence.py. The others process
# clips of equal length, among them SEW, whose pooled mask attends to half a frame of padding.
PADDING_SAFE = (
    "data2vec-audio",
    "gemoclap_audio",
    "hubert",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-bert",
    "wavlm",
)
# Family -> axis of time in its input. Their input has a fixed length, padded with silence, and they accept no mask.
FIXED_LENGTH = {"whisper": 2, "audio-spectrogram-transformer": 1}
FULL_WINDOW = 30 * POSITIONS_PER_SECOND  # positions of Whisper's encoder before its window is shortened


class GEmoClapMaskedConvLayer(GradientCheckpointingLayer):
    """The first convolution of a group-norm feature encoder, with statistics over the valid frames.

    The input `(batch, 1, 2, samples)` holds the waveform and its mask, so that gradient checkpointing and exported
    graphs pass the mask along with the waveform. For an input `(batch, 1, samples)`, the layer is equal to the layer
    that it replaces.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.conv = layer.conv
        self.layer_norm = layer.layer_norm
        self.activation = layer.activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map to `(batch, channels, frames)`."""
        if hidden.dim() == 3:
            return self.activation(self.layer_norm(self.conv(hidden)))
        wave, mask = hidden[:, :, 0], hidden[:, 0, 1]
        hidden = self.conv(wave)
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        frames = torch.div(mask.float().sum(-1) - kernel, stride, rounding_mode="floor") + 1
        return self.activation(self._group_norm(hidden, frames.clamp_min(1)))

    def _group_norm(self, hidden: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        norm = self.layer_norm
        batch, channels, time = hidden.shape
        valid = (torch.arange(time, device=hidden.device) < frames[:, None])[:, None]
        count = (frames * (channels // norm.num_groups))[:, None]

        def group_mean(values: torch.Tensor) -> torch.Tensor:
            means = values.sum(-1).view(batch, norm.num_groups, -1).sum(-1) / count
            return means.repeat_interleave(channels // norm.num_groups, dim=1)[..., None]

        hidden_type, hidden = hidden.dtype, hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        centred = (hidden - group_mean(hidden * valid)) * valid
        scale = norm.weight[:, None] * torch.rsqrt(group_mean(centred.square()) + norm.eps)
        return (centred * scale + norm.bias[:, None]).to(hidden_type)  # in this form autograd stores one copy only


class GEmoClapPositionalConvEmbedding(nn.Module):
    """The positional convolutions of data2vec, with zeros after the end of a clip before each convolution.

    The encoder sets padding to zero before it calls this module, so all-zero frames at the end are padding.
    """

    def __init__(self, layers: nn.ModuleList):
        super().__init__()
        self.layers = layers

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map `(batch, frames, hidden_size)` to the same shape."""
        valid = hidden.ne(0).any(-1).flip(1).cumsum(1).flip(1).ne(0)[:, None]
        hidden = hidden.transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden * valid)
        return hidden.transpose(1, 2)


def _masks_group_norm(tower: PreTrainedModel) -> bool:
    convolutions = getattr(getattr(tower, "feature_extractor", None), "conv_layers", None) or [None]
    return isinstance(convolutions[0], GEmoClapMaskedConvLayer)


def mask_padding_leaks(tower: PreTrainedModel) -> PreTrainedModel:
    """Replace the layers whose output depends on padding by masked layers; the names of parameters do not change.

    WavLM's attention is replaced too, by the kernels of `attention_gemoclap`.
    """
    use_kernels(tower)
    convolutions = getattr(getattr(tower, "feature_extractor", None), "conv_layers", None)
    group_norm = convolutions and isinstance(getattr(convolutions[0], "layer_norm", None), nn.GroupNorm)
    if group_norm and not _masks_group_norm(tower):
        convolutions[0] = GEmoClapMaskedConvLayer(convolutions[0])
    positions = getattr(getattr(tower, "encoder", None), "pos_conv_embed", None)
    layers = isinstance(getattr(positions, "layers", None), nn.ModuleList)
    if layers and not isinstance(positions, GEmoClapPositionalConvEmbedding):
        tower.encoder.pos_conv_embed = GEmoClapPositionalConvEmbedding(positions.layers)
    if getattr(tower.config, "mask_feature_prob", 0) > 0 and not hasattr(tower.config, "mask_feature_min_masks"):
        tower.config.mask_feature_min_masks = 0  # WavLM's SpecAugment reads this field, which its configuration lacks
    return tower


def ignores_padding(config: PretrainedConfig) -> bool:
    """Whether the frames of a clip are independent of padding, so that clips of unequal length can form a batch."""
    if config.model_type in FIXED_LENGTH:
        return True
    leaks = getattr(config, "add_adapter", False) or getattr(config, "conv_pos_batch_norm", False)
    return config.model_type in PADDING_SAFE and not leaks


def applies_spec_augment(config: PretrainedConfig) -> bool:
    """Whether training masks parts of the input (SpecAugment)."""
    masks = getattr(config, "mask_time_prob", 0) > 0 or getattr(config, "mask_feature_prob", 0) > 0
    return getattr(config, "apply_spec_augment", True) and masks


def encode_frames(
    tower: PreTrainedModel, inputs: torch.Tensor, mask: torch.Tensor | None, all_layers: bool = False
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Run an audio tower.

    Args:
        tower: The tower, after `mask_padding_leaks`.
        inputs: `(batch, samples)` or a spectrogram in the shape of the family; for Whisper one window or several.
        mask: `(batch, samples or frames)`, 1 for valid input; None if all input is valid.
        all_layers: Whether to return the outputs of all layers instead of the last.

    Returns:
        The hidden states, each `(batch, frames, hidden_size)`, and the mask of valid frames, `(batch, frames)` or
        None.

    Raises:
        ValueError: If `all_layers` and the frame rate of the layers differs from that of the output (SEW), or if the
            input of Whisper does not consist of windows.
    """
    model_type, has_input = tower.config.model_type, None
    if model_type == "whisper":
        return _encode_windows(tower, inputs, mask, all_layers)
    options = {"output_hidden_states": True} if all_layers else {}
    if mask is not None:  # an empty clip attends to its padding, because attention to nothing is NaN in some kernels
        has_input = mask.any(1, keepdim=True)
        mask = torch.where(has_input, mask, torch.ones_like(mask))
    if model_type in FIXED_LENGTH:
        mask = inputs.new_ones(len(inputs), inputs.shape[FIXED_LENGTH[model_type]]) if mask is None else mask
        output = tower(inputs, **options)
    else:
        options |= _spec_augment_options(tower, inputs)
        masked_norm = mask is not None and _masks_group_norm(tower)
        wave_and_mask = torch.stack([inputs, mask.to(inputs.dtype)], 1) if masked_norm else inputs
        output = tower(wave_and_mask, attention_mask=mask, **options)
    states = _states_of(output, all_layers)
    if states[0].shape != states[-1].shape:
        raise ValueError(
            f"the frame rate of the layers of a {model_type!r} model differs from that of its output: it does not "
            f"support use_weighted_layer_sum or layer similarity"
        )
    if mask is None:
        return states, None
    valid = _frame_mask(tower, states[-1].shape[1], mask)
    return states, valid if has_input is None else valid & has_input


def _states_of(output, all_layers: bool) -> list[torch.Tensor]:
    if not all_layers:
        return [output.last_hidden_state]
    # Whether the last hidden state includes the final norm depends on the version of transformers.
    return [*output.hidden_states[:-1], output.last_hidden_state]


def _encode_windows(
    tower: PreTrainedModel, inputs: torch.Tensor, mask: torch.Tensor | None, all_layers: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Run Whisper on each window of its input `(batch, mel, windows * frames)`; see `encode_frames`.

    Windows without a valid frame are not run: their frames are zero. Without a graph, at most as many windows are run
    at a time as fill 30 s for each clip, so that a long clip needs no more memory than a short one.
    """
    frames = 2 * tower.config.max_source_positions
    batch, _, total = inputs.shape
    if total % frames or not total:
        raise ValueError(
            f"input_features have {total} mel frames, which are not windows of {frames} "
            f"({tower.config.max_source_positions / POSITIONS_PER_SECOND:g} s), as this Whisper encoder hears: use "
            f"the feature extractor of the same checkpoint, or one with the same audio_window_seconds"
        )
    mask = inputs.new_ones(batch, total) if mask is None else mask
    windows = inputs.unflatten(2, (-1, frames)).transpose(1, 2).flatten(0, 1)
    options = {"output_hidden_states": True} if all_layers else {}
    if total == frames or torch.compiler.is_compiling():  # an exported graph has no shapes that depend on the mask
        states = _states_of(tower(windows, **options), all_layers)
    else:
        heard = mask.unflatten(1, (-1, frames)).any(-1)
        heard[:, 0] = True  # also of a clip without frames
        rows = heard.flatten().nonzero()[:, 0]
        size = len(rows) if _runs_at_once(tower) else batch * max(1, FULL_WINDOW // tower.config.max_source_positions)
        groups = [_states_of(tower(windows[part], **options), all_layers) for part in rows.split(size)]
        states = [torch.cat(parts) for parts in zip(*groups, strict=True)]
        states = [state.new_zeros(len(windows), *state.shape[1:]).index_copy(0, rows, state) for state in states]
    return [state.reshape(batch, -1, state.shape[-1]) for state in states], _frame_mask(tower, total // 2, mask)


def _runs_at_once(tower: PreTrainedModel) -> bool:
    """Whether all windows of a batch are run in one call of the tower.

    With a graph, several calls would save no memory. Sharded parameters are gathered in each call, so that all
    processes must make the same number of calls.
    """
    sharded = any(hasattr(parameter, "placements") or hasattr(parameter, "ds_id") for parameter in tower.parameters())
    return torch.is_grad_enabled() or sharded


def encode_text(
    tower: PreTrainedModel, input_ids: torch.Tensor, mask: torch.Tensor | None, pooling: str
) -> torch.Tensor:
    """Run a text tower and pool its tokens.

    Args:
        tower: The tower.
        input_ids: `(batch, tokens)`.
        mask: `(batch, tokens)`, 1 for valid tokens; None if all tokens are valid.
        pooling: `"first"` or `"mean"`.

    Returns:
        `(batch, hidden_size)`. The mean of a text without tokens is zero; an empty text has no tokens if the tokenizer
        does not add special tokens.
    """
    if not input_ids.shape[1]:
        return torch.zeros(len(input_ids), tower.config.hidden_size, dtype=tower.dtype, device=input_ids.device)
    attention_mask = mask
    if mask is not None:  # a text without tokens attends to its first position, because attention to nothing is NaN
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        attention_mask = torch.where(mask.any(1, keepdim=True), mask, first.to(mask.dtype))
    hidden = tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    if pooling == "first":
        return hidden[:, 0]
    mask = torch.ones_like(input_ids) if mask is None else mask
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def _frame_mask(tower: PreTrainedModel, frames: int, mask: torch.Tensor) -> torch.Tensor:
    """The mask of valid output frames, `(batch, frames)`, from the mask of the input."""
    config, lengths = tower.config, mask.sum(-1, keepdim=True)
    index = torch.arange(frames, device=mask.device)
    if config.model_type == "whisper":
        return index < torch.div(lengths + 1, 2, rounding_mode="floor")
    if config.model_type == "audio-spectrogram-transformer":  # two tokens, then the patches of each frequency in time
        patches = (config.max_length - config.patch_size) // config.time_stride + 1
        valid = torch.div(lengths - config.patch_size, config.time_stride, rounding_mode="floor") + 1
        return (index >= 2) & ((index - 2) % patches < valid.clamp_min(1))
    if hasattr(tower, "_get_feature_vector_attention_mask"):
        return tower._get_feature_vector_attention_mask(frames, mask).bool()
    return mask.bool()


def _spec_augment_options(tower: PreTrainedModel, inputs: torch.Tensor) -> dict:
    """Options that disable the time masks of SpecAugment for a batch shorter than a mask.

    transformers would raise an error for such a batch.
    """
    config = tower.config
    takes_mask = "mask_time_indices" in inspect.signature(tower.forward).parameters
    if not (tower.training and takes_mask and applies_spec_augment(config) and config.mask_time_prob > 0):
        return {}
    frames = inputs.shape[1]
    for kernel, stride in zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True):
        frames = (frames - kernel) // stride + 1
    if frames >= config.mask_time_length:
        return {}
    return {"mask_time_indices": torch.zeros(len(inputs), frames, dtype=torch.bool, device=inputs.device)}
