"""LoRA on the towers: low-rank updates by PEFT, saved and loaded as an adapter."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig

from ..command_line.ranges import COUNT, DROPOUT, POSITIVE, refuse_out_of_range
from ..configuration_gemoclap import GEmoClapConfig
from ..modeling_gemoclap import GEmoClapModel
from ..safety_gemoclap import check_adapter, read_json
from ..towers_gemoclap import transformer_layers

try:
    import peft
except ImportError:
    peft = None

TOWERS = ("audio", "text")
RANGES = {"lora_rank": COUNT, "lora_alpha": POSITIVE, "lora_dropout": DROPOUT}
SCALES = ("audio_logit_scale", "text_logit_scale")
OWN_FIELDS = set(inspect.signature(GEmoClapConfig.__init__).parameters) - {
    "self",
    "audio_config",
    "text_config",
    "kwargs",
}
NOT_FIELDS = (
    "model_type",
    "architectures",
    "auto_map",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
)
# Its attention reads the weights of its projections and never calls them: an update there would do nothing.
UNCALLED = {"wavlm": ("q_proj", "k_proj", "v_proj", "out_proj")}


def _targets(model: nn.Module, towers: list[str]) -> str:
    """A pattern of the linear layers inside the Transformer layers of some towers."""
    patterns = []
    for tower in towers:
        module = getattr(model, f"{tower}_model")
        name, layers = transformer_layers(module)
        uncalled = UNCALLED.get(module.config.model_type, ())
        linear = [part for part, m in layers[0].named_modules() if isinstance(m, nn.Linear)]
        linear = [re.escape(part) for part in linear if part.rpartition(".")[2] not in uncalled]
        patterns.append(rf"{tower}_model\.{re.escape(name)}\.\d+\.({'|'.join(linear)})")
    return "|".join(f"({pattern})" for pattern in patterns)


def add_lora(model: GEmoClapModel, towers: list[str], rank: int = 8, alpha: float = 16, dropout: float = 0.0):
    """Freeze the towers and put low-rank updates on the linear layers of some; all that is new is trained in full.

    Args:
        model: A model with pretrained towers; it is changed in place.
        towers: `"audio"`, `"text"` or both.
        rank: Rank of the updates.
        alpha: Their scale is `alpha / rank`.
        dropout: Dropout before them.

    Returns:
        A `peft.PeftModel` around the model.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If a tower is not known, or a number is out of its range.
    """
    _needs_peft()
    if not towers or set(towers) - set(TOWERS):
        raise ValueError(f"lora_towers={towers}: name 'audio', 'text', or both")
    refuse_out_of_range({"lora_rank": rank, "lora_alpha": alpha, "lora_dropout": dropout}, RANGES)
    new = ["audio_projection", "text_projection"]
    if any(True for _ in model.audio_pooling.parameters()):
        new.append("audio_pooling")
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_targets(model, towers), modules_to_save=new
    )
    wrapped = peft.get_peft_model(model, config)
    for name in SCALES:
        getattr(model, name).requires_grad_(model.config.logit_scale_trainable)
    return wrapped


def is_lora(model: nn.Module) -> bool:
    """Whether a model is what `add_lora` returned."""
    return peft is not None and isinstance(model, peft.PeftModel)


def add_scales_to(folder: str | Path, model: nn.Module) -> None:
    """Write the scales into a saved adapter: PEFT saves modules, and a scale is a bare parameter; it loads both."""
    path = Path(folder, "adapter_model.safetensors")
    base = model.get_base_model()
    scales = {f"base_model.model.{name}": getattr(base, name).detach().cpu().clone() for name in SCALES}
    save_file({**load_file(path), **scales}, path, {"format": "pt"})


def save_adapter(model, folder: str | Path) -> None:
    """Save what was trained: `adapter_config.json`, `adapter_model.safetensors`, and the model's `config.json`.

    Args:
        model: What `add_lora` returned.
        folder: Where to.
    """
    model.save_pretrained(str(folder))
    model.get_base_model().config.save_pretrained(str(folder))
    add_scales_to(folder, model)


def load_adapter(folder: str | Path, audio_name_or_path: str, text_name_or_path: str) -> GEmoClapModel:
    """A whole model from an adapter and the two pretrained encoders that it was trained on.

    Args:
        folder: What `save_adapter` wrote.
        audio_name_or_path: The audio encoder.
        text_name_or_path: The text encoder.

    Returns:
        The model with the updates merged into its towers, in eval mode.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If the folder has no adapter, or its configuration names a module to import.
    """
    _needs_peft()
    if not Path(folder, "adapter_config.json").is_file():
        raise ValueError(f"{folder}: no adapter_config.json; name the adapter/ folder of a run with --lora_towers")
    check_adapter(read_json(str(folder), "adapter_config.json", {}), f"{folder}: adapter_config.json")
    config = GEmoClapConfig.from_pretrained(folder)
    kinds = {name: getattr(config, f"{name}_config").model_type for name in TOWERS}
    fields = {name: value for name, value in config.to_diff_dict().items() if name in OWN_FIELDS}
    for name in TOWERS:  # what the run changed of the encoders' own configurations
        tower = getattr(config, f"{name}_config").to_dict()
        fields |= {f"{name}_{key}": value for key, value in tower.items() if key not in NOT_FIELDS}
    names = {"audio": audio_name_or_path, "text": text_name_or_path}
    for name, kind in kinds.items():
        found = AutoConfig.from_pretrained(names[name]).model_type
        if found != kind:
            raise ValueError(f"{folder} was trained on a {kind!r} {name} encoder; {names[name]} is a {found!r}")
    model = GEmoClapModel.from_audio_text_pretrained(*names.values(), **fields)
    return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval()


def _needs_peft() -> None:
    if peft is None:
        raise ImportError("LoRA needs PEFT: pip install 'gemoclap[lora]', or pip install peft")
