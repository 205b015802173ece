"""Initialising the audio encoder and the pooling from another checkpoint of this package (`--init_from`)."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from transformers import PretrainedConfig

from ..base_gemoclap import UNLABELLED_ENCODER, GEmoClapPreTrainedModel
from ..command_line.files import json_object
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.files import damage_is_named
from ..corpora.provenance import SUPERVISED
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..fingerprint import weight_files
from ..modeling_gemoclap import GEmoClapForXVector
from ..safety_gemoclap import tensors_sha256
from ..towers_gemoclap import keep_layers, load_complete_model, shorten_window
from ..training.arguments import ModelArguments
from .tower_fields import check_config_fields, check_feature_fields

# How a checkpoint of each architecture was trained, as its name in records of training data.
STAGES = {
    "GEmoClapForXVector": SUPERVISED,
    "GEmoClapForAudioClassification": "a classifier",
    "GEmoClapModel": "GEmo-CLAP",
}


def read_checkpoint_config(name: str, option: str = "--init_from") -> GEmoClapConfig:
    """Read the configuration of a checkpoint of this package.

    Args:
        name: Name or path of the checkpoint.
        option: The option that names it, for messages.

    Raises:
        ValueError: If no checkpoint has this name, or if it is a model of another type.
    """
    if Path(name, "run.json").is_file():
        raise ValueError(f"{option} {name} is the run of a protocol, with a checkpoint for each fold: give --protocol")
    if Path(name).exists() and not Path(name, "config.json").is_file():
        raise ValueError(f"{option} {name}: the folder has no config.json; give the folder of a checkpoint")
    check_checkpoint_files(name)
    try:
        model_type = PretrainedConfig.get_config_dict(name)[0].get("model_type")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{option} {name}: no such folder, and no such model on the Hub ({reason})") from None
    if model_type != GEmoClapConfig.model_type:
        hint = (
            f", which has no pooling: give a checkpoint of train.py, or --audio_model {name} for a pretrained encoder"
        )
        hint = hint if option == "--init_from" else ": give a checkpoint of train.py --head contrastive"
        raise ValueError(f"{option} {name}: a {model_type!r} model{hint}")
    with damage_is_named(name, "config.json"):
        return GEmoClapConfig.from_pretrained(name)


def load_initial_checkpoint(arguments: ModelArguments) -> tuple[GEmoClapForXVector, GEmoClapFeatureExtractor]:
    """Load the audio tower and pooling of `init_from`, and its feature extractor.

    Args:
        arguments: `init_from`, and the options that must agree with it: `pooling`, `use_weighted_layer_sum`,
            `audio_config` and `feature_config`; `audio_layers` and `audio_window_seconds`, which shorten the tower.

    Returns:
        The model, and its feature extractor.

    Raises:
        ValueError: If it is not a checkpoint of this package, if its pooling differs, if a field does not exist or has
            another value, or if the tower cannot be shortened.
    """
    name = arguments.init_from
    config = read_checkpoint_config(name)
    if arguments.audio_model:
        raise ValueError(
            "--init_from has an audio tower already: leave out --audio_model, or give --audio_model compact"
        )
    for field in ("pooling", "use_weighted_layer_sum"):
        stored, wanted = (str(getattr(source, field)).lower() for source in (config, arguments))
        if stored != wanted:
            raise ValueError(
                f"--init_from {name} has {field} {stored}, and --{field} is {wanted}: give --{field} {stored} to use "
                f"the pooling of the checkpoint, or give a checkpoint with {field} {wanted}"
            )
    model = load_complete_model(GEmoClapForXVector, name)
    with damage_is_named(name, "processor_config.json or preprocessor_config.json"):
        extractor = GEmoClapFeatureExtractor.from_pretrained(name)
    extractor.check_window(config.audio_config)
    _check_agreement(arguments, config.audio_config, extractor)
    _shorten(model, extractor, arguments)
    if weights_changed(name, config):
        model.config.training_data = [
            *(model.config.training_data or []),
            {"unknown": f"the weights of {Path(name).name} are not those that its record of training is about"},
        ]
    return model, extractor


def _shorten(model: GEmoClapForXVector, extractor: GEmoClapFeatureExtractor, arguments: ModelArguments) -> None:
    """Remove layers and shorten the window of Whisper, as `audio_layers` and `audio_window_seconds` say."""
    layers, seconds = arguments.audio_layers, arguments.audio_window_seconds
    if layers is not None:
        keep_layers(model.audio_model, layers)
    if seconds is not None:
        shorten_window(model.audio_model, seconds)
        extractor.set_window(seconds)
    if (layers, seconds) != (None, None):
        model.config.audio_config = model.audio_model.config


def _check_agreement(
    arguments: ModelArguments, audio_config: PretrainedConfig, extractor: GEmoClapFeatureExtractor
) -> None:
    """Check that `audio_config` and `feature_config` agree with the checkpoint of `init_from`."""
    audio, features = (
        json_object(getattr(arguments, option), f"--{option}") for option in ("audio_config", "feature_config")
    )
    check_config_fields("audio_config", audio, audio_config)
    check_feature_fields(features)
    for option, fields, source in (("audio_config", audio, audio_config), ("feature_config", features, extractor)):
        for field, value in fields.items():
            stored = getattr(source, field, None)
            if stored != value:
                raise ValueError(
                    f"--init_from {arguments.init_from} has {field} {stored}, and --{option} {value}: leave the field "
                    f"out, or give --{option} '{{}}' if it is in a configuration file"
                )


def weights_changed(name: str, config: GEmoClapConfig) -> bool:
    """Return whether the weights in a checkpoint's folder differ from those that its record was written for."""
    recorded, files = getattr(config, "weights_sha256", None), weight_files(name)
    return bool(recorded and files) and recorded != tensors_sha256(
        tensor for file in files for tensor in load_file(file).values()
    )


def copy_pooling_and_history(
    model: GEmoClapPreTrainedModel, start: GEmoClapForXVector, name: str
) -> GEmoClapPreTrainedModel:
    """Copy the pooling and the record of training data of an initial checkpoint to a model with its audio tower.

    Args:
        model: The model.
        start: The model that `load_initial_checkpoint` returned.
        name: Name or path of the initial checkpoint.
    """
    model.audio_pooling.load_state_dict(start.audio_pooling.state_dict())
    [architecture], records = read_checkpoint_config(name).architectures, start.config.training_data
    if records is None:
        records = [{"unknown": f"what {Path(name).name}, from which it started, was trained on is not recorded"}]
    unlabelled = any("unlabelled" in record and "stage" not in record for record in records)
    is_unlabelled_encoder = unlabelled and architecture == "GEmoClapForXVector"
    stage = UNLABELLED_ENCODER if is_unlabelled_encoder else STAGES[architecture]
    model.config.training_data = _with_stage(records, stage)
    model.note_weights()
    return model


def _with_stage(records: list[dict], stage: str) -> list[dict]:
    """Mark the records of an earlier training with its stage. Records of unknown data stay as they are."""
    return [{"stage": stage} | record if "speakers" in record else record for record in records]
