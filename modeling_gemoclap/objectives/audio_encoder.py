"""Building and freezing the audio encoder that all objectives share."""

from __future__ import annotations

from transformers.utils import logging

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..command_line.files import json_object
from ..configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..training.arguments import DataArguments, ModelArguments
from ..training.augmentation import AUGMENTATIONS
from ..training.history import settle_history
from .initial_checkpoint import copy_pooling_and_history, load_initial_checkpoint
from .tower_fields import check_config_fields, check_feature_fields, check_pretrained_fields, compact_features

SHORTENED = ("audio_layers", "audio_window_seconds")  # options that remove parts of a pretrained encoder

logger = logging.get_logger(__name__)

# Fields of GEmoClapConfig that are options of all objectives.
SHARED_CONFIG_FIELDS = ("pooling", "pooled_dropout", "use_weighted_layer_sum")


def parse_json_fields(options, *names: str) -> list[dict]:
    """Parse the options with these names, each a JSON object."""
    return [json_object(getattr(options, name), f"--{name}") for name in names]


def with_prefix(tower: str, fields: dict) -> dict:
    """Return fields of a tower as keyword arguments of `from_audio_text_pretrained`: `audio_...` or `text_...`."""
    return {f"{tower}_{key}": value for key, value in fields.items()}


def compact_config(fields: dict) -> GEmoClapAudioConfig:
    """Return the configuration of a compact encoder with these fields."""
    check_config_fields("audio_config", fields, GEmoClapAudioConfig())
    return GEmoClapAudioConfig(**fields)


def compact_extractor(config: GEmoClapConfig, features: dict) -> GEmoClapFeatureExtractor:
    """Return the feature extractor of a model with a compact encoder."""
    return GEmoClapFeatureExtractor(**compact_features(config, features))


def check_pretrained_audio(model: ModelArguments, audio: dict, features: dict) -> None:
    """Check the files of a pretrained audio encoder and the fields that change its configuration."""
    check_checkpoint_files(model.audio_model)
    check_pretrained_fields("audio_config", audio, model.audio_model)
    check_feature_fields(features, pretrained=True)


def shortened_audio(arguments: ModelArguments) -> dict:
    """Return `audio_layers` and `audio_window_seconds` as keyword arguments of `from_audio_text_pretrained`."""
    return {name: getattr(arguments, name) for name in SHORTENED}


def check_shortened_audio(arguments: ModelArguments) -> None:
    """Check that options that shorten a pretrained audio encoder have one.

    Raises:
        ValueError: If the encoder is trained from scratch, or if the number of layers of a pooling would change.
    """
    from_scratch = not (arguments.audio_model or arguments.init_from)
    hints = ("num_hidden_layers in --audio_config", "--audio_model with a Whisper checkpoint, or leave it out")
    for name, hint in zip(SHORTENED, hints, strict=True):
        if from_scratch and getattr(arguments, name) is not None:
            raise ValueError(f"--{name}: the audio encoder is trained from scratch: give {hint}")
    if arguments.init_from and arguments.use_weighted_layer_sum and arguments.audio_layers is not None:
        raise ValueError(
            "--audio_layers: the pooling of --init_from has a weight for each layer (--use_weighted_layer_sum): leave "
            "--audio_layers out"
        )


def build_audio_model(
    model_class: type[GEmoClapPreTrainedModel], arguments: ModelArguments, values: dict
) -> tuple[GEmoClapPreTrainedModel, GEmoClapFeatureExtractor]:
    """Build a model that has only an audio encoder.

    Args:
        model_class: Class of the model.
        arguments: Options of the audio encoder.
        values: Fields of `GEmoClapConfig`.

    Returns:
        The model in training mode, and its feature extractor.
    """
    audio, features = parse_json_fields(arguments, "audio_config", "feature_config")
    values = {name: getattr(arguments, name) for name in SHARED_CONFIG_FIELDS} | values
    if arguments.init_from:
        start, extractor = load_initial_checkpoint(arguments)
        config = GEmoClapConfig(audio_config=start.config.audio_config, **values)
        model = model_class(config, start.audio_model)
        return copy_pooling_and_history(model, start, arguments.init_from).train(), extractor
    if arguments.audio_model:
        check_pretrained_audio(arguments, audio, features)
        fields = {**with_prefix("audio", audio), **shortened_audio(arguments)}
        model = model_class.from_audio_pretrained(arguments.audio_model, **fields, **values)
        window = arguments.audio_window_seconds
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(arguments.audio_model, window, **features)
        return settle_history(model).train(), extractor
    config = GEmoClapConfig(audio_config=compact_config(audio), **values)
    return settle_history(model_class(config)).train(), compact_extractor(config, features)


def check_frozen_frames(model: ModelArguments, data: DataArguments) -> None:
    """Check the options of stored frames.

    Args:
        model: `cache_frozen_frames`, and what is frozen.
        data: `frozen_copies`, and what changes the clips.

    Raises:
        ValueError: If options contradict each other.
    """
    changed = [f"--{name}" for name in (*AUGMENTATIONS, "max_seconds") if getattr(data, name)]
    if not model.cache_frozen_frames:
        if data.frozen_copies != 1:
            raise ValueError("--frozen_copies needs --cache_frozen_frames true")
        return
    if not model.freeze_audio_encoder and model.unfreeze_last_n_layers is None:
        raise ValueError("--cache_frozen_frames needs --freeze_audio_encoder true or --unfreeze_last_n_layers")
    if refused := [name for name in changed if name in ("--mix_prob", "--max_seconds")]:
        raise ValueError(
            f"--cache_frozen_frames stores each clip completely and alone: leave out {', '.join(refused)}, or give "
            f"--cache_frozen_frames false"
        )
    if changed and data.frozen_copies == 1:
        raise ValueError(
            f"--cache_frozen_frames stores the frames of unchanged clips: leave out {', '.join(changed)}, give "
            f"--frozen_copies 8 to store augmented versions too, or give --cache_frozen_frames false"
        )
    if data.frozen_copies > 1 and not changed:
        raise ValueError(
            f"--frozen_copies {data.frozen_copies} would store equal versions of each clip: give an augmentation such "
            f"as --time_warp, or leave it out"
        )


def freeze_parts(model: GEmoClapPreTrainedModel, arguments: ModelArguments) -> GEmoClapPreTrainedModel:
    """Freeze the parts of the audio encoder that the options name.

    Args:
        model: The model.
        arguments: `freeze_*` and `unfreeze_last_n_layers`.

    Raises:
        ValueError: If two of the options contradict each other, or if the encoder has random weights.
    """
    if arguments.unfreeze_last_n_layers is not None:
        model.unfreeze_last_n_layers(arguments.unfreeze_last_n_layers)
    if arguments.freeze_audio_encoder:
        model.freeze_audio_encoder()
    scratch = not (arguments.audio_model or arguments.init_from)
    if scratch and arguments.freeze_audio_encoder:
        raise ValueError(
            "--freeze_audio_encoder would freeze an audio encoder with random weights: give --audio_model or "
            "--init_from, or leave it out"
        )
    if scratch and (arguments.freeze_feature_encoder or arguments.freeze_feature_projection):
        logger.warning("the audio encoder is trained from scratch: --freeze_feature_* has no effect")
    elif not scratch:
        if arguments.freeze_feature_encoder:
            model.freeze_feature_encoder()
        if arguments.freeze_feature_projection:
            model.freeze_feature_projection()
    return model
