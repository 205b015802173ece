"""What a model's work comes to, counted on tensors without data: operations, saved activations; and predictions."""

from __future__ import annotations

import torch
from families import AUDIO, text_config
from torch.utils.flop_counter import FlopCounterMode

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import mask_padding_leaks
from modeling_gemoclap.towers_gemoclap import build_audio_tower, transformer_layers

RATE = 16000
IEMOCAP = {"clips": 5531, "seconds": 4.55, "folds": 5, "epochs": 80, "batch": 32}
# Dense bf16 peak of an H100 SXM, and what a training is taken to reach of it; bytes a second between GPUs of a node
# and between nodes, for each GPU.
PEAK, REACHED, NODE, NETWORK = 989e12, 0.3, 450e9, 50e9
FIXED = {"whisper": 30.0, "ast": 10.24}  # they hear as much, whatever the clip's length


def noise(family: str, seconds: float, batch: int = 1) -> torch.Tensor:
    """An input of a family, without data."""
    frames = round(seconds * 100)
    shape = {"compact": (frames, 64), "wav2vec2-bert": (frames // 2, 160)}.get(family, (round(seconds * RATE),))
    shape = {"whisper": (80, 3000), "ast": (1024, 128)}.get(family, shape)
    return torch.empty(batch, *shape, device="meta")


def tower(family: str) -> torch.nn.Module:
    """An audio tower in its true shape, without data."""
    with torch.device("meta"):
        return mask_padding_leaks(build_audio_tower(AUDIO[family].config()))


def counted_flop(family: str, seconds: float) -> tuple[float, int]:
    """Operations of a tower's forward as torch counts them, and the frames that come out."""
    with FlopCounterMode(display=False) as counter:
        frames = tower(family).eval()(noise(family, seconds)).last_hidden_state.shape[1]
    return counter.get_total_flops(), frames


def formula_flop(family: str, seconds: float, frames: int) -> float:
    """The same by formula: `2 sum_i w_i t_i + 2 W T + 4 T^2 d L`.

    `w_i`, `t_i` are weights and outputs of the convolutions that hear the signal, `W` all other matrices, each applied
    to the `T` frames that come out, `d` the width and `L` the number of the layers, whose attention is the last term.
    """
    model = tower(family)
    config, first, rest = model.config, {}, 0
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "embed_positions" in name or name.endswith(("position_embeddings", "_token")):
            continue
        if name.startswith(("feature_extractor.", "conv1.", "conv2.", "conv_blocks.")):
            first[name] = parameter.numel()
        elif "rel_attn_embed" not in name and "masked_spec" not in name:
            rest += parameter.numel()
    length, operations = round(seconds * RATE), 0
    steps = list(zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True))
    for number, weights in enumerate(first.values()):
        if family == "compact":  # each block halves the bands, the first and the last one time
            length = (frames if number + 1 == len(first) else 2 * frames) * (config.num_mel_bins >> (number + 1))
        elif family == "whisper":
            length = (3000, 1500)[number]
        else:
            length = (length - steps[number][0]) // steps[number][1] + 1
        operations += 2 * weights * length
    layers = len(transformer_layers(model)[1])
    if family == "sew":  # its layers see every second frame
        frames = -(-frames // 2)
    return operations + 2 * rest * frames + 4 * frames**2 * config.hidden_size * layers


def model_of(family: str) -> GEmoClapModel:
    """A whole model with RoBERTa-base in its true shape, without data, and without what is drawn for a step."""
    with torch.device("meta"):
        config = AUDIO[family].config(layerdrop=0.0, apply_spec_augment=False)
        return GEmoClapModel(GEmoClapConfig(audio_config=config, text_config=text_config())).train()


def step_flop(model: GEmoClapModel, family: str, batch: int, seconds: float) -> tuple[int, int]:
    """Operations of a step's forward, and of forward and backward together."""
    with FlopCounterMode(display=False) as counter:
        loss = _loss(model, family, batch, seconds)
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


def saved_bytes(model: GEmoClapModel, family: str, batch: int, seconds: float) -> int:
    """Bytes that autograd keeps of a batch for the backward, weights left out."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss(model, family, batch, seconds)
    return sum(storage.nbytes() for storage in kept.values())


def _loss(model: GEmoClapModel, family: str, batch: int, seconds: float) -> torch.Tensor:
    model.zero_grad()
    ids = torch.ones(batch, 12, dtype=torch.long, device="meta")
    output = model(**{model.main_input_name: noise(family, seconds, batch)}, input_ids=ids)
    return (output.audio_embeds * output.text_embeds).sum()


def gathered(batch: int, width: int, texts: int, processes: int) -> int:
    """Bytes that a process receives for the loss: embeddings, their gradients (summed in a ring), labels, counts."""
    others = processes - 1
    return others * (3 * batch * width * 4 * (1 + texts) + 2 * batch * 8 + 8)


def prediction(gpus: int) -> tuple[float, float, float]:
    """Hours of one cell of Table 1 and of an epoch over 50,000 hours, and the share of communication in the latter."""
    model = model_of("wavlm-large")
    forward, _ = step_flop(model, "wavlm-large", 1, IEMOCAP["seconds"])
    clip = 3 * forward / (PEAK * REACHED)
    clips = IEMOCAP["clips"] * 0.8 * IEMOCAP["epochs"] * IEMOCAP["folds"]
    numbers = sum(parameter.numel() for parameter in model.parameters())
    link = NODE if gpus <= 8 else NETWORK
    exchanged = (8 * numbers * (gpus - 1) / gpus + gathered(32, 512, 1, gpus)) / link if gpus > 1 else 0.0
    step = 32 * clip
    many = 50_000 * 3600 / IEMOCAP["seconds"] / (32 * gpus)
    return clips * clip / min(gpus, 40) / 3600, many * (step + exchanged) / 3600, exchanged / (step + exchanged)
