"""LoRA: low-rank updates of the towers by PEFT, saved and loaded as an adapter."""

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
from ..spectrograms_gemoclap import POSITIONS_PER_SECOND
from ..towers_gemoclap import transformer_layers

try:
    import peft
except ImportError:
    peft = None

TOWERS = ("audio", "text")
RANGES = {"lora_rank": COUNT, "lora_alpha": POSITIVE, "lora_dropout": DROPOUT}
SCALES = ("audio_logit_scale", "text_logit_scale")
CONFIG_FIELDS = set(inspect.signature(GEmoClapConfig.__init__).parameters)
CONFIG_FIELDS -= {"self", "audio_config", "text_config", "kwargs"}
TOWER_METADATA = ("model_type", "architectures", "auto_map", "transformers_version", "dtype", "torch_dtype")
TOWER_METADATA += ("_name_or_path",)
# WavLM's eager attention reads the weights of these modules and never calls them: an update would have no effect.
UNCALLED_MODULES = {"wavlm": ("q_proj", "k_proj", "v_proj", "out_proj")}


def _targets(model: nn.Module, towers: list[str]) -> str:
    """Regular expression for the linear layers in the Transformer layers of the given towers."""
    patterns = []
    for tower in towers:
        module = getattr(model, f"{tower}_model")
        name, layers = transformer_layers(module)
        uncalled = UNCALLED_MODULES.get(module.config.model_type, ())
        linear = [part for part, layer in layers[0].named_modules() if isinstance(layer, nn.Linear)]
        linear = [re.escape(part) for part in linear if part.rpartition(".")[2] not in uncalled]
        patterns.append(rf"{tower}_model\.{re.escape(name)}\.\d+\.({'|'.join(linear)})")
    return "|".join(f"({pattern})" for pattern in patterns)


def check_towers(towers: list[str]) -> None:
    """Check the names of the towers with low-rank updates.

    Raises:
        ValueError: If a tower is unknown, or there is none.
    """
    if not towers or set(towers) - set(TOWERS):
        raise ValueError(f"lora_towers={towers}: give 'audio', 'text', or both")


def add_lora(model: GEmoClapModel, towers: list[str], rank: int = 8, alpha: float = 16, dropout: float = 0.0):
    """Freeze the towers and add low-rank updates to the linear layers of some. New modules are trained completely.

    Args:
        model: A model with pretrained towers, which is changed in place.
        towers: `"audio"`, `"text"` or both.
        rank: Rank of the updates.
        alpha: Updates are scaled by `alpha / rank`.
        dropout: Dropout before the updates.

    Returns:
        A `peft.PeftModel` around the model.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If a tower is unknown or a number is out of its range.
    """
    _require_peft()
    check_towers(towers)
    refuse_out_of_range({"lora_rank": rank, "lora_alpha": alpha, "lora_dropout": dropout}, RANGES)
    for name in {*TOWERS} - {*towers}:
        getattr(model, f"freeze_{name}_encoder")()
    trained = ["audio_projection", "text_projection"]
    if any(True for _ in model.audio_pooling.parameters()):
        trained.append("audio_pooling")
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_targets(model, towers), modules_to_save=trained
    )
    for module in model.audio_model.modules():
        if hasattr(module, "_requires_grad"):
            module._requires_grad = False  # else transformers builds a graph through frozen convolutions in training
    wrapped = peft.get_peft_model(model, config)
    for name in SCALES:
        getattr(model, name).requires_grad_(model.config.logit_scale_trainable)
    return wrapped


def is_lora(model: nn.Module) -> bool:
    """Whether a model was returned by `add_lora`."""
    return peft is not None and isinstance(model, peft.PeftModel)


def save_logit_scales(folder: str | Path, model: nn.Module) -> None:
    """Add the logit scales to a saved adapter: PEFT loads such parameters, but saves only modules."""
    path = Path(folder, "adapter_model.safetensors")
    base = model.get_base_model()
    scales = {f"base_model.model.{name}": getattr(base, name).detach().cpu().clone() for name in SCALES}
    save_file({**load_file(path), **scales}, path, {"format": "pt"})


def save_adapter(model, folder: str | Path) -> None:
    """Save the trained weights: `adapter_config.json`, `adapter_model.safetensors` and the model's `config.json`.

    Args:
        model: A model that `add_lora` returned.
        folder: The folder of the adapter.
    """
    model.save_pretrained(str(folder))
    model.get_base_model().config.save_pretrained(str(folder))
    save_logit_scales(folder, model)


def load_adapter(folder: str | Path, audio_name_or_path: str, text_name_or_path: str) -> GEmoClapModel:
    """Load a model from an adapter and the two pretrained encoders that it was trained on.

    Args:
        folder: A folder that `save_adapter` wrote.
        audio_name_or_path: The audio encoder.
        text_name_or_path: The text encoder.

    Returns:
        The model in evaluation mode, with the updates merged into its towers.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If the folder has no adapter, if the encoders are of another type, or if the configuration names a
            module to import.
    """
    _require_peft()
    if not Path(folder, "adapter_config.json").is_file():
        raise ValueError(f"{folder}: no adapter_config.json; give the folder adapter/ of a run with --lora_towers")
    check_adapter(read_json(str(folder), "adapter_config.json", {}), f"{folder}: adapter_config.json")
    config = GEmoClapConfig.from_pretrained(folder)
    kinds = {name: getattr(config, f"{name}_config").model_type for name in TOWERS}
    fields = {name: value for name, value in config.to_diff_dict().items() if name in CONFIG_FIELDS}
    for name in TOWERS:  # fields of the encoders' configurations that the run changed
        tower = getattr(config, f"{name}_config").to_dict()
        fields |= {f"{name}_{key}": value for key, value in tower.items() if key not in TOWER_METADATA}
    if config.audio_config.model_type == "whisper":  # the encoder is loaded with all positions, then shortened
        fields["audio_window_seconds"] = fields.pop("audio_max_source_positions") / POSITIONS_PER_SECOND
    names = {"audio": audio_name_or_path, "text": text_name_or_path}
    for name, kind in kinds.items():
        model_type = AutoConfig.from_pretrained(names[name]).model_type
        if model_type != kind:
            raise ValueError(f"{folder} was trained on a {kind!r} {name} encoder; {names[name]} is a {model_type!r}")
    model = GEmoClapModel.from_audio_text_pretrained(*names.values(), **fields)
    return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval()


def _require_peft() -> None:
    if peft is None:
        raise ImportError("LoRA needs PEFT: pip install 'gemoclap[lora]', or pip install peft")
