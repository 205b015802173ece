"""Checks of the fields in `--audio_config`, `--text_config` and `--feature_config` before a model is built.

A configuration of transformers accepts a field of any name and value. A misspelt field would have no effect.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Iterable

from transformers import AutoConfig, PretrainedConfig

from ..command_line.parser import near_name
from ..configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..safety_gemoclap import HUB_OPTIONS

# Fields of every configuration that do not describe a tower, or that would break it.
EXCLUDED_FIELDS = {
    *("architectures", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type", "return_dict"),
    *("is_encoder_decoder", "is_decoder", "output_hidden_states", "output_attentions", "transformers_version"),
    *("self", "args", "kwargs"),
}
CHOSEN_BY_TOWER = ("feature_type", "own", "num_mel_bins")  # fields of the feature extractor
COUNTS = re.compile(
    r"num_\w*(layers|heads|bins|embeddings|groups)|(\w+_)?(layers|heads|ffn_dim)|d_model|max_position_embeddings|"
    r"(hidden|intermediate|vocab|type_vocab|embedding)_size"
)
SHARES = re.compile(r"\w*(dropout|layerdrop|_prob)")


def check_field_names(option: str, fields: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Check that fields exist.

    Args:
        option: Option with the fields.
        fields: Names of the fields.
        known: Names that exist.
        owner: Object that has the known fields, for the error message.

    Raises:
        ValueError: If a field does not exist. The error names the most similar field.
    """
    known = sorted(known)
    for name in fields:
        if name not in known:
            raise ValueError(f"--{option}: {owner} has no field {name!r}{near_name(name, known)}")


def check_config_fields(
    option: str, fields: dict, config: PretrainedConfig, extra_names: tuple[str, ...] = ()
) -> None:
    """Check that a tower's configuration has these fields, and that their values have the right type and range.

    Args:
        option: Option with the fields: `audio_config` or `text_config`.
        fields: The fields.
        config: The configuration that the fields will change.
        extra_names: Names that are accepted in addition to the fields of `config`.

    Raises:
        ValueError: If a field does not exist, or its value has another type than before or is out of range.
    """
    fields = dict(fields)
    model_type = fields.pop("model_type", config.model_type)
    if model_type != config.model_type:
        raise ValueError(
            f"--{option} model_type {model_type!r}: the tower is a {config.model_type!r} model; leave model_type out, "
            f"or name another pretrained tower by --audio_model and --text_model"
        )
    known = {*vars(config), *inspect.signature(type(config).__init__).parameters, *config.attribute_map}
    known = {name for name in known - EXCLUDED_FIELDS if not name.startswith("_")}
    known |= {"attn_implementation", *extra_names}
    check_field_names(option, fields, known, f"a {config.model_type!r} configuration")
    for name, value in fields.items():
        if name not in extra_names and (constraint := _violated_constraint(name, value, getattr(config, name, None))):
            raise ValueError(f"--{option} {name} {value!r} must be {constraint}")


def _violated_constraint(name: str, value, default) -> str:
    """Return what the value of a field must be, or "" if it is; `default` is the present value of the field."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if COUNTS.fullmatch(name) and not (default is None and value is None):
        return "" if is_number and isinstance(value, int) and value >= 1 else "a whole number of at least 1"
    if SHARES.fullmatch(name) and isinstance(default, numbers.Real):
        return "" if is_number and 0 <= value <= 1 else "a number between 0 and 1"
    if isinstance(default, int):
        return "" if is_number and isinstance(value, int) else "a whole number"
    if isinstance(default, float):
        return "" if is_number and math.isfinite(value) else "a finite number"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "text"
    if isinstance(default, (list, tuple)):
        return "" if isinstance(value, list) else "a list"
    return ""


def check_pretrained_fields(option: str, fields: dict, name: str) -> None:
    """Check fields against the configuration of a pretrained tower.

    Args:
        option: Option with the fields.
        fields: The fields.
        name: Name or path of the tower's checkpoint.

    Raises:
        ValueError: See `check_config_fields`.
    """
    if not fields:
        return
    hub_options = {field: value for field, value in fields.items() if field in HUB_OPTIONS}
    if PretrainedConfig.get_config_dict(name, **hub_options)[0].get("model_type") == GEmoClapAudioConfig.model_type:
        config = GEmoClapAudioConfig.from_pretrained(name, **hub_options)
    else:
        config = AutoConfig.from_pretrained(name, **hub_options)
    check_config_fields(option, fields, config, HUB_OPTIONS)


def check_feature_fields(fields: dict, pretrained: bool = False) -> None:
    """Check that the feature extractor has these fields, and that the audio tower does not set them.

    Args:
        fields: The fields of `--feature_config`.
        pretrained: Whether the extractor belongs to a pretrained tower.

    Raises:
        ValueError: If a field does not exist, or the audio tower sets it.
    """
    parameters = inspect.signature(GEmoClapFeatureExtractor.__init__).parameters
    check_field_names("feature_config", fields, {*parameters} - EXCLUDED_FIELDS, "the feature extractor")
    for name, value in fields.items():  # the extractor's constructor checks numbers
        if isinstance(parameters[name].default, bool) and not isinstance(value, bool):
            raise ValueError(f"--feature_config {name} {value!r} must be true or false")
    for name in CHOSEN_BY_TOWER if pretrained else ():
        if name in fields:
            raise ValueError(f"--feature_config {name} {fields[name]!r}: the audio tower sets it; leave it out")


def compact_features(config: GEmoClapConfig, fields: dict) -> dict:
    """Return the settings of the feature extractor of the compact encoder.

    Args:
        config: The model's configuration.
        fields: The fields of `--feature_config`.

    Raises:
        ValueError: If a field does not exist, or differs from the encoder's.
    """
    check_feature_fields(fields)
    settings = {"feature_type": "log_mel", "num_mel_bins": config.audio_config.num_mel_bins}
    for name in CHOSEN_BY_TOWER:
        if name in fields and fields[name] != settings.get(name):
            hint = "give it in --audio_config" if name == "num_mel_bins" else "leave it out"
            raise ValueError(
                f"--feature_config {name} {fields[name]!r}: the audio encoder has {settings.get(name)!r}; {hint}"
            )
    return {**fields, **settings}
