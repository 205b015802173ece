"""The towers: any encoder that transformers knows, run so that a clip's frames do not depend on its company.

Three leaks are closed, and no weight changes its name or its shape for it:

- group norm over time takes its statistics over the true frames alone;
- the layer-normed positional convolutions of data2vec see zeros where a clip alone would see none;
- an encoder that nobody has measured runs unpadded, the clips of one length at a time.
"""

from __future__ import annotations

import inspect
import os

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .audio_encoder_gemoclap import GEmoClapAudioModel
from .audio_headers_gemoclap import refuse_pointers
from .safety_gemoclap import (
    check_config,
    check_weight_files,
    hub_options,
    naming_pickles,
    read_json,
    refuse_compiled_families,
)

# Their masked frames equal those of the clip alone, as benchmarks/batch_independence.py measures. All others run by
# length, SEW among them: its pooled mask attends to half a frame of padding.
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
# Family -> axis of time in its input. They always hear as much, the rest of it silence, and know of no mask.
FIXED_LENGTH = {"whisper": 2, "audio-spectrogram-transformer": 1}
# What of an audio tower hears the signal: the first of these that it has.
FEATURE_ENCODERS = (
    ("feature_extractor",),
    ("conv_blocks",),
    ("embeddings",),
    ("conv1", "conv2"),
    ("conv",),
    ("feature_projection",),
)


class GEmoClapMaskedConvLayer(GradientCheckpointingLayer):
    """The first convolution of a group-norm feature encoder, its statistics taken over the true frames.

    Given `(batch, 1, 2, samples)`, the wave and its mask, so that the mask takes the wave's way through checkpoints of
    gradients and exported graphs; given `(batch, 1, samples)` it is the layer that it replaces.
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
        true = (torch.arange(time, device=hidden.device) < frames[:, None])[:, None]
        count = (frames * (channels // norm.num_groups))[:, None]

        def group_mean(values: torch.Tensor) -> torch.Tensor:
            means = values.sum(-1).view(batch, norm.num_groups, -1).sum(-1) / count
            return means.repeat_interleave(channels // norm.num_groups, dim=1)[..., None]

        hidden_type, hidden = hidden.dtype, hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        centred = (hidden - group_mean(hidden * true)) * true
        scale = norm.weight[:, None] * torch.rsqrt(group_mean(centred.square()) + norm.eps)
        return (centred * scale + norm.bias[:, None]).to(hidden_type)  # one copy is kept for the gradient


class GEmoClapPositionalConvEmbedding(nn.Module):
    """The positional convolutions of data2vec, each of which sees zeros after a clip's end.

    The encoder sets padding to zero before it calls this; frames of nothing but zeros at the end are padding.
    """

    def __init__(self, layers: nn.ModuleList):
        super().__init__()
        self.layers = layers

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map `(batch, frames, hidden_size)` to the same shape."""
        true = hidden.ne(0).any(-1).flip(1).cumsum(1).flip(1).ne(0)[:, None]
        hidden = hidden.transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden * true)
        return hidden.transpose(1, 2)


def _masks_group_norm(tower: PreTrainedModel) -> bool:
    convolutions = getattr(getattr(tower, "feature_extractor", None), "conv_layers", None) or [None]
    return isinstance(convolutions[0], GEmoClapMaskedConvLayer)


def close_leaks(tower: PreTrainedModel) -> PreTrainedModel:
    """Put the masked layers in the place of those that let padding in; their parameters stay where they were."""
    convolutions = getattr(getattr(tower, "feature_extractor", None), "conv_layers", None)
    group_norm = convolutions and isinstance(getattr(convolutions[0], "layer_norm", None), nn.GroupNorm)
    if group_norm and not _masks_group_norm(tower):
        convolutions[0] = GEmoClapMaskedConvLayer(convolutions[0])
    positions = getattr(getattr(tower, "encoder", None), "pos_conv_embed", None)
    layers = isinstance(getattr(positions, "layers", None), nn.ModuleList)
    if layers and not isinstance(positions, GEmoClapPositionalConvEmbedding):
        tower.encoder.pos_conv_embed = GEmoClapPositionalConvEmbedding(positions.layers)
    if getattr(tower.config, "mask_feature_prob", 0) > 0 and not hasattr(tower.config, "mask_feature_min_masks"):
        tower.config.mask_feature_min_masks = 0  # WavLM's SpecAugment reads it, its configuration lacks it
    return tower


# ---- building and loading -------------------------------------------------------------------------------------------
def _model_class(config: PretrainedConfig, tower: str, name: str) -> type[PreTrainedModel]:
    """The bare model of a configuration, or an error that says why it cannot be this tower."""
    refuse_compiled_families(config, name)  # before its source is imported
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"{name}: transformers has no bare model of the type {config.model_type!r}")
    model_class = MODEL_MAPPING[type(config)]
    model_class = model_class[0] if isinstance(model_class, (tuple, list)) else model_class
    hears = model_class.main_input_name in ("input_values", "input_features") and hasattr(config, "hidden_size")
    if tower == "audio" and not hears:
        raise ValueError(
            f"{name} is a {config.model_type!r} model, not an audio encoder: give a WavLM, HuBERT, wav2vec 2.0, "
            f"Data2VecAudio, Whisper, Wav2Vec2-BERT, AST, UniSpeech-SAT or SEW checkpoint, or one like them"
        )
    if tower == "text" and (model_class.main_input_name != "input_ids" or config.is_encoder_decoder):
        raise ValueError(
            f"{name} is a {config.model_type!r} model, not a text encoder: give a RoBERTa, BERT, MPNet, MiniLM or "
            f"XLM-RoBERTa checkpoint, or one like them"
        )
    return model_class


def _without_pooler(model_class: type) -> dict:
    """Options that leave a text encoder's unused pooler out, where it has one."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}


def build_audio_tower(config: PretrainedConfig) -> PreTrainedModel:
    """An audio tower with fresh weights; of an encoder-decoder only the encoder.

    Ours is built directly, since AutoModel does not know code that came from a local folder.

    Raises:
        ValueError: If the configuration is not of an audio encoder.
    """
    if config.model_type == "gemoclap_audio":
        return GEmoClapAudioModel(config)
    model_class = _model_class(config, "audio", "audio_config")
    if config.is_encoder_decoder:
        with torch.device("meta"):  # the class of the encoder, without the memory of the decoder
            model_class = type(model_class(config).get_encoder())
    return model_class._from_config(config)


def build_text_tower(config: PretrainedConfig) -> PreTrainedModel:
    """A text tower with fresh weights.

    Raises:
        ValueError: If the configuration is not of a text encoder.
    """
    return AutoModel.from_config(config, **_without_pooler(_model_class(config, "text", "text_config")))


def load_audio_tower(name: str, **options) -> PreTrainedModel:
    """A pretrained audio encoder in float32, every weight of it from the checkpoint.

    Args:
        name: Name or path.
        **options: For its `from_pretrained`.

    Raises:
        ValueError: If it is no audio encoder, lacks weights, its weights do not fit its configuration, or it is to
            have a precision of its own.
    """
    hub, options = hub_options(options)
    if PretrainedConfig.get_config_dict(name, **hub)[0].get("model_type") == "gemoclap_audio":
        return load_whole(GEmoClapAudioModel, name, **hub, **options)
    config, options = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **hub, **options)
    model = load_whole(_model_class(config, "audio", name), name, config=config, **hub, **options)
    tower = model.get_encoder() if config.is_encoder_decoder else model
    if config.model_type not in (*PADDING_SAFE, *FIXED_LENGTH):
        _check_unknown(tower, name)
    return tower


def load_text_tower(name: str, pooling: str = "first", **options) -> PreTrainedModel:
    """A pretrained text encoder without its pooler, in float32.

    Args:
        name: Name or path.
        pooling: How its tokens will be pooled.
        **options: For its `from_pretrained`.

    Raises:
        ValueError: As `load_audio_tower`, or if the first token is to be taken of an encoder that is causal.
    """
    hub, options = hub_options(options)
    config, options = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **hub, **options)
    model_class = _model_class(config, "text", name)
    tower = load_whole(model_class, name, config=config, **_without_pooler(model_class), **hub, **options)
    if pooling == "first":
        with torch.no_grad():
            first = tower.eval()(input_ids=torch.tensor([[5, 6, 7], [5, 8, 9]])).last_hidden_state[:, 0]
        if torch.equal(first[0], first[1]):
            raise ValueError(f"{name}: its first token hears none of the others: give text_pooling='mean'")
    return tower


def _check_unknown(tower: PreTrainedModel, name: str) -> None:
    """Hear a second of noise with an encoder of raw waves that nobody has measured: codecs call themselves alike."""
    try:
        takes_mask = "attention_mask" in inspect.signature(tower.forward).parameters
        if tower.main_input_name == "input_values":
            with torch.no_grad():
                takes_mask = takes_mask and tower.eval()(torch.randn(1, 16000)).last_hidden_state.dim() == 3
    except Exception:
        takes_mask = False
    if not takes_mask:
        raise ValueError(
            f"{name} is a {tower.config.model_type!r} model, not an audio encoder: it does not turn a wave into frames"
        )


def load_whole(model_class: type[PreTrainedModel], name: str, **options) -> PreTrainedModel:
    """`from_pretrained` in float32 that refuses what transformers would only warn of.

    Args:
        model_class: Class of the model.
        name: Name or path.
        **options: For `from_pretrained`.

    Returns:
        The model, every weight of it from the checkpoint.

    Raises:
        ValueError: If weights are missing, cannot be read, are pointers of git-lfs, or have other sizes than the
            configuration says; if the configuration names code, the checkpoint is an adapter, or its index names files
            elsewhere.
        OSError: If there is no checkpoint of that name.
    """
    refuse_pointers(os.path.join(name, options.get("subfolder") or ""))
    check_config(read_json(name, "config.json", hub_options(options)[0]), f"{name}: config.json")
    check_weight_files(name, options)
    try:  # some checkpoints are stored in half precision, projections never are
        with naming_pickles(name):
            model, report = model_class.from_pretrained(name, output_loading_info=True, dtype=torch.float32, **options)
    except Exception as error:
        if "size mismatch" in str(error) or "mismatched" in str(error):
            shapes = [line.strip() for line in str(error).splitlines() if "shape" in line or "torch.Size" in line]
            raise ValueError(
                f"{name}: the weights have other sizes than config.json says, so one of the two is of another model: "
                f"{' '.join(shapes[:2]) or error}"
            ) from None
        # The errors of transformers itself say what is wrong; those of the readers of files do not even name one.
        if isinstance(error, (ImportError, ValueError)) or (isinstance(error, OSError) and error.errno is None):
            raise
        raise ValueError(
            f"{name}: its weights cannot be read, as if the file were cut off; download it again "
            f"({type(error).__name__}: {error})"
        ) from None
    # SpecAugment's embedding is missing from checkpoints that were fine-tuned without it, and is learnt at once.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} of the weights of its {type(model).__name__}, the first of them "
            f"{missing[0]}: the file is cut off, or holds another model; download it again"
        )
    return model


# ---- running --------------------------------------------------------------------------------------------------------
def ignores_padding(config: PretrainedConfig) -> bool:
    """Whether padded clips may run together: their frames are then those of each clip alone."""
    if config.model_type in FIXED_LENGTH:
        return True
    leaks = getattr(config, "add_adapter", False) or getattr(config, "conv_pos_batch_norm", False)
    return config.model_type in PADDING_SAFE and not leaks


def transformer_layers(tower: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of a tower's Transformer layers, first to last.

    Raises:
        ValueError: If it has none that can be told.
    """
    for name, module in tower.named_modules():
        stack = isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layer", "layers")
        if stack and "conv" not in name and len(module) == tower.config.num_hidden_layers:
            return name, module
    raise ValueError(f"no Transformer layers can be told in a {tower.config.model_type!r} model")


def layer_classes(model: nn.Module) -> list[str]:
    """Names of the classes of the towers' Transformer layers; those of an encoder that has none are left out."""
    found = set()
    for tower in model.children():
        if isinstance(tower, PreTrainedModel):
            try:
                found.update(type(layer).__name__ for layer in transformer_layers(tower)[1])
            except ValueError:
                continue
    return sorted(found)


def feature_encoder(tower: PreTrainedModel) -> list[nn.Module]:
    """The modules of an audio tower that hear the signal: its convolutions or patches.

    Raises:
        ValueError: If they cannot be told.
    """
    for names in FEATURE_ENCODERS:
        if all(hasattr(tower, name) for name in names):
            return [getattr(tower, name) for name in names]
    raise ValueError(f"no feature encoder can be told in a {tower.config.model_type!r} model")


def applies_spec_augment(config: PretrainedConfig) -> bool:
    """Whether training masks parts of the input."""
    masks = getattr(config, "mask_time_prob", 0) > 0 or getattr(config, "mask_feature_prob", 0) > 0
    return getattr(config, "apply_spec_augment", True) and masks


def encode_frames(
    tower: PreTrainedModel, inputs: torch.Tensor, mask: torch.Tensor | None, all_layers: bool = False
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Run an audio tower.

    Args:
        tower: The tower, its leaks closed.
        inputs: `(batch, samples)` or a spectrogram, as the family has it.
        mask: `(batch, samples or frames)`, 1 for true input; None takes all as true.
        all_layers: Whether the outputs of all layers are wanted, not of the last alone.

    Returns:
        The hidden states, each `(batch, frames, hidden_size)`, and the mask of true frames, `(batch, frames)` or None.

    Raises:
        ValueError: If all layers are wanted of an encoder whose layers have another frame rate than its output (SEW).
    """
    kind, is_there = tower.config.model_type, None
    options = {"output_hidden_states": True} if all_layers else {}
    if mask is not None:  # attention to nothing is NaN in some kernels: a clip that is not there hears its padding
        is_there = mask.any(1, keepdim=True)
        mask = torch.where(is_there, mask, torch.ones_like(mask))
    if kind in FIXED_LENGTH:
        mask = inputs.new_ones(len(inputs), inputs.shape[FIXED_LENGTH[kind]]) if mask is None else mask
        output = tower(inputs, **options)
    else:
        options |= _too_short_for_spec_augment(tower, inputs)
        masked_norm = mask is not None and _masks_group_norm(tower)
        wave_and_mask = torch.stack([inputs, mask.to(inputs.dtype)], 1) if masked_norm else inputs
        output = tower(wave_and_mask, attention_mask=mask, **options)
    states = [output.last_hidden_state]
    if all_layers:  # whether the last of them has passed the final norm depends on the version of transformers
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        if states[0].shape != states[-1].shape:
            raise ValueError(
                f"the layers of a {kind!r} model run at another rate than its output: there is neither "
                f"use_weighted_layer_sum nor a layer similarity for it"
            )
    if mask is None:
        return states, None
    true = _frame_mask(tower, states[-1].shape[1], mask)
    return states, true if is_there is None else true & is_there


def encode_text(
    tower: PreTrainedModel, input_ids: torch.Tensor, mask: torch.Tensor | None, pooling: str
) -> torch.Tensor:
    """Run a text tower and pool its tokens.

    Args:
        tower: The tower.
        input_ids: `(batch, tokens)`.
        mask: `(batch, tokens)`, 1 for true tokens; None takes all as true.
        pooling: `"first"` or `"mean"`.

    Returns:
        `(batch, hidden_size)`. A text without a token, as an empty one is where the tokenizer adds no special tokens,
        has zero for a mean.
    """
    if not input_ids.shape[1]:
        return torch.zeros(len(input_ids), tower.config.hidden_size, dtype=tower.dtype, device=input_ids.device)
    heard = mask
    if mask is not None:  # attention to nothing is NaN: the first token of such a text hears itself
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        heard = torch.where(mask.any(1, keepdim=True), mask, first.to(mask.dtype))
    hidden = tower(input_ids=input_ids, attention_mask=heard).last_hidden_state
    if pooling == "first":
        return hidden[:, 0]
    mask = torch.ones_like(input_ids) if mask is None else mask
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def _frame_mask(tower: PreTrainedModel, frames: int, mask: torch.Tensor) -> torch.Tensor:
    """The true output frames, `(batch, frames)`, from the true input."""
    config, lengths = tower.config, mask.sum(-1, keepdim=True)
    index = torch.arange(frames, device=mask.device)
    if config.model_type == "whisper":
        return index < torch.div(lengths + 1, 2, rounding_mode="floor")
    if config.model_type == "audio-spectrogram-transformer":  # two tokens, then a time axis for every frequency
        patches = (config.max_length - config.patch_size) // config.time_stride + 1
        true = torch.div(lengths - config.patch_size, config.time_stride, rounding_mode="floor") + 1
        return (index >= 2) & ((index - 2) % patches < true.clamp_min(1))
    if hasattr(tower, "_get_feature_vector_attention_mask"):
        return tower._get_feature_vector_attention_mask(frames, mask).bool()
    return mask.bool()


def _too_short_for_spec_augment(tower: PreTrainedModel, inputs: torch.Tensor) -> dict:
    """No mask of time for a batch shorter than one: transformers would refuse it. It spares short clips anyway."""
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
