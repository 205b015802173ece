"""Checks of the fields in `--audio_config`, `--text_config` and `--feature_config` before anything is built of them.

A configuration of transformers keeps a field of any name and any value. A misspelt one would have no effect.
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

# Fields of every configuration that say nothing about a tower, or would break it.
NOT_FIELDS = {
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


def refuse_unknown(option: str, fields: Iterable[str], known: Iterable[str], what: str) -> None:
    """Make sure that fields exist.

    Args:
        option: The option that they were given to.
        fields: Their names.
        known: The names that exist.
        what: What has these.

    Raises:
        ValueError: If one does not exist; the error names the one that is nearest.
    """
    known = sorted(known)
    for name in fields:
        if name not in known:
            raise ValueError(f"--{option}: {what} has no field {name!r}{near_name(name, known)}")


def check_config_fields(option: str, fields: dict, config: PretrainedConfig, more: tuple[str, ...] = ()) -> None:
    """Make sure that a tower's configuration has these fields, and may have these values in them.

    Args:
        option: The option that they were given to: `audio_config` or `text_config`.
        fields: The fields.
        config: The configuration that they will change.
        more: Names that are accepted beside its own.

    Raises:
        ValueError: If a field does not exist, has a value of another type than before, or one out of its range.
    """
    fields = dict(fields)
    kind = fields.pop("model_type", config.model_type)
    if kind != config.model_type:
        raise ValueError(
            f"--{option} model_type {kind!r}: the tower is a {config.model_type!r} model; leave it out, or name "
            f"another pretrained tower by --audio_model and --text_model"
        )
    known = {*vars(config), *inspect.signature(type(config).__init__).parameters, *config.attribute_map}
    known = {name for name in known - NOT_FIELDS if not name.startswith("_")} | {"attn_implementation", *more}
    refuse_unknown(option, fields, known, f"a {config.model_type!r} configuration")
    for name, value in fields.items():
        if name not in more and (reason := _what_is_wrong(name, value, getattr(config, name, None))):
            raise ValueError(f"--{option} {name} {value!r} must be {reason}")


def _what_is_wrong(name: str, value, default) -> str:
    """What a value must be and is not, by the name of its field and the value that the field has now; or ""."""
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
    """As `check_config_fields`, for the configuration of a pretrained tower.

    Args:
        option: The option that the fields were given to.
        fields: The fields.
        name: Name or path of the tower's checkpoint.

    Raises:
        ValueError: See `check_config_fields`.
    """
    if not fields:
        return
    where = {each: value for each, value in fields.items() if each in HUB_OPTIONS}
    if PretrainedConfig.get_config_dict(name, **where)[0].get("model_type") == GEmoClapAudioConfig.model_type:
        config = GEmoClapAudioConfig.from_pretrained(name, **where)
    else:
        config = AutoConfig.from_pretrained(name, **where)
    check_config_fields(option, fields, config, HUB_OPTIONS)


def check_feature_fields(fields: dict, pretrained: bool = False) -> None:
    """Make sure that the feature extractor has these fields, and that the audio tower does not decide them.

    Args:
        fields: The fields of `--feature_config`.
        pretrained: Whether the extractor is that of a pretrained tower.

    Raises:
        ValueError: If a field does not exist, or the tower decides it.
    """
    parameters = inspect.signature(GEmoClapFeatureExtractor.__init__).parameters
    refuse_unknown("feature_config", fields, {*parameters} - NOT_FIELDS, "the feature extractor")
    for name, value in fields.items():  # its constructor checks numbers
        if isinstance(parameters[name].default, bool) and not isinstance(value, bool):
            raise ValueError(f"--feature_config {name} {value!r} must be true or false")
    for name in CHOSEN_BY_TOWER if pretrained else ():
        if name in fields:
            raise ValueError(f"--feature_config {name} {fields[name]!r}: the audio tower decides it; leave it out")


def compact_features(config: GEmoClapConfig, fields: dict) -> dict:
    """The settings of the feature extractor of the compact encoder.

    Args:
        config: The model's configuration.
        fields: The fields of `--feature_config`.

    Raises:
        ValueError: If a field does not exist, or does not agree with the encoder.
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
