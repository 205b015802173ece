"""Count the operations and the saved activations of a model, on tensors without data."""

from __future__ import annotations

import torch
from families import AUDIO
from harness import RATE
from models import make_model
from torch.utils.flop_counter import FlopCounterMode

from modeling_gemoclap import GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import mask_padding_leaks
from modeling_gemoclap.towers_gemoclap import build_audio_tower, transformer_layers

FIXED_SECONDS = {"whisper": 30.0, "ast": 10.24}  # inputs have this length, whatever the clip's length
CONVOLUTIONS = ("feature_extractor.", "conv1.", "conv2.", "conv_blocks.")


def noise(family: str, seconds: float, batch: int = 1) -> torch.Tensor:
    """An input of a family, without data."""
    frames = round(seconds * 100)
    shapes = {"compact": (frames, 64), "wav2vec2-bert": (frames // 2, 160), "whisper": (80, 3000), "ast": (1024, 128)}
    return torch.empty(batch, *shapes.get(family, (round(seconds * RATE),)), device="meta")


def meta_tower(family: str) -> torch.nn.Module:
    """An audio tower in its true shape, without data."""
    with torch.device("meta"):
        return mask_padding_leaks(build_audio_tower(AUDIO[family].config()))


def meta_model(family: str) -> GEmoClapModel:
    """A model with RoBERTa-base in its true shape, without data, layer drop and SpecAugment."""
    with torch.device("meta"):
        return make_model(family, audio={"layerdrop": 0.0, "apply_spec_augment": False})


def counted_flop(family: str, seconds: float) -> tuple[float, int]:
    """Operations of a tower's forward pass as torch counts them, and the number of output frames."""
    with FlopCounterMode(display=False) as counter:
        frames = meta_tower(family).eval()(noise(family, seconds)).last_hidden_state.shape[1]
    return counter.get_total_flops(), frames


def formula_flop(family: str, seconds: float, frames: int) -> float:
    """Operations of a tower's forward pass by formula: `2 sum_i w_i t_i + 2 W T + 4 T^2 d L`.

    `w_i`, `t_i` are weights and output lengths of the convolutions on the signal, `W` the number of weights in all
    other matrices, each applied to the `T` output frames, `d` the width and `L` the number of the Transformer layers,
    whose attention is the last term.
    """
    model = meta_tower(family)
    layers = len(transformer_layers(model)[1])
    convolutions, matrices = _weights(model)
    lengths = _output_lengths(family, model.config, len(convolutions), round(seconds * RATE), frames)
    operations = sum(2 * weights * length for weights, length in zip(convolutions, lengths, strict=True))
    if family == "sew":  # its layers run on every second frame
        frames = -(-frames // 2)
    return operations + 2 * matrices * frames + 4 * frames**2 * model.config.hidden_size * layers


def _weights(model: torch.nn.Module) -> tuple[list[int], int]:
    """Weights of each convolution on the signal, and of all other matrices that are applied to frames."""
    convolutions, matrices = [], 0
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "embed_positions" in name or name.endswith(("position_embeddings", "_token")):
            continue
        if name.startswith(CONVOLUTIONS):
            convolutions.append(parameter.numel())
        elif "rel_attn_embed" not in name and "masked_spec" not in name:
            matrices += parameter.numel()
    return convolutions, matrices


def _output_lengths(family: str, config, count: int, samples: int, frames: int) -> list[int]:
    """Output lengths of the convolutions on the signal; for two dimensions, the number of output positions."""
    if family == "compact":  # each block halves the bands; the first and the last also halve the time
        times = [2 * frames] * (count - 1) + [frames]
        return [time * (config.num_mel_bins >> (number + 1)) for number, time in enumerate(times)]
    if family == "whisper":
        return [3000, 1500]
    lengths = []
    for kernel, stride in zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True):
        samples = (samples - kernel) // stride + 1
        lengths.append(samples)
    return lengths[:count]


def step_flop(model: GEmoClapModel, family: str, batch: int, seconds: float) -> tuple[int, int]:
    """Operations of a step's forward pass, and of forward and backward together."""
    with FlopCounterMode(display=False) as counter:
        loss = _loss(model, family, batch, seconds)
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


def saved_bytes(model: GEmoClapModel, family: str, batch: int, seconds: float) -> int:
    """Bytes that autograd saves of a batch for the backward pass, without weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss(model, family, batch, seconds)
    return sum(storage.nbytes() for storage in storages.values())


def _loss(model: GEmoClapModel, family: str, batch: int, seconds: float) -> torch.Tensor:
    model.zero_grad()
    ids = torch.ones(batch, 12, dtype=torch.long, device="meta")
    output = model(**{model.main_input_name: noise(family, seconds, batch)}, input_ids=ids)
    return (output.audio_embeds * output.text_embeds).sum()
