"""The audio encoder and the pooling of another checkpoint of this package, from which a training starts."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from transformers import PretrainedConfig

from ..base_gemoclap import UNLABELLED_ENCODER, GEmoClapPreTrainedModel
from ..command_line.files import json_object
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForXVector
from ..safety_gemoclap import tensors_sha256
from ..towers_gemoclap import load_complete_model
from ..training.arguments import ModelArguments
from ..training.history import SUPERVISED
from .tower_fields import check_config_fields, check_feature_fields

# What a start was trained by, as records of training data have it.
STAGES = {
    "GEmoClapForXVector": SUPERVISED,
    "GEmoClapForAudioClassification": "a classifier",
    "GEmoClapModel": "GEmo-CLAP",
}


def config_of(name: str) -> GEmoClapConfig:
    """The configuration of a checkpoint of ours.

    Raises:
        ValueError: If there is none of that name, or it is of another kind.
    """
    if Path(name, "run.json").is_file():
        raise ValueError(
            f"--init_from {name} is the run of a protocol, with a checkpoint for each fold: give --protocol"
        )
    if Path(name).exists() and not Path(name, "config.json").is_file():
        raise ValueError(f"--init_from {name}: no config.json there; give the folder of a checkpoint")
    check_checkpoint_files(name)
    try:
        kind = PretrainedConfig.get_config_dict(name)[0].get("model_type")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--init_from {name}: no such folder, and no such model on the Hub ({reason})") from None
    if kind != GEmoClapConfig.model_type:
        raise ValueError(
            f"--init_from {name}: a {kind!r} model, which has no pooling: give a checkpoint that train.py made, or "
            f"--audio_model {name} for a pretrained encoder"
        )
    return GEmoClapConfig.from_pretrained(name)


def load_start(arguments: ModelArguments) -> tuple[GEmoClapForXVector, GEmoClapFeatureExtractor]:
    """The audio tower and pooling of `init_from`, and its feature extractor.

    Args:
        arguments: `init_from`, and what must agree with it: `pooling`, `use_weighted_layer_sum`, and the fields in
            `audio_config` and `feature_config`.

    Raises:
        ValueError: If it is no checkpoint of ours, pools otherwise, or a field does not exist or agree.
    """
    name = arguments.init_from
    config = config_of(name)
    if arguments.audio_model:
        raise ValueError("--init_from brings its audio tower: leave out --audio_model, or give --audio_model compact")
    for field in ("pooling", "use_weighted_layer_sum"):
        theirs, mine = getattr(config, field), getattr(arguments, field)
        if theirs != mine:
            raise ValueError(
                f"--init_from {name} has {field} {str(theirs).lower()}, and --{field} is {str(mine).lower()}: give "
                f"--{field} {str(theirs).lower()} to take its pooling over, or a checkpoint that pools as you want"
            )
    model, extractor = load_complete_model(GEmoClapForXVector, name), GEmoClapFeatureExtractor.from_pretrained(name)
    given = {
        option: json_object(getattr(arguments, option), f"--{option}") for option in ("audio_config", "feature_config")
    }
    check_config_fields("audio_config", given["audio_config"], config.audio_config)
    check_feature_fields(given["feature_config"])
    for option, there in (("audio_config", config.audio_config), ("feature_config", extractor)):
        for field, value in given[option].items():
            theirs = getattr(there, field, None)
            if theirs != value:
                raise ValueError(
                    f"--init_from {name} has {field} {theirs}, and --{option} {value}: leave it out, or where a "
                    f"configuration file has it, give --{option} '{{}}'"
                )
    if weights_changed(name, config):
        model.config.training_data = [
            *(model.config.training_data or []),
            {"unknown": f"the weights of {Path(name).name} are not those that its record of training is about"},
        ]
    return model, extractor


def weights_changed(name: str, config: GEmoClapConfig) -> bool:
    """Whether the weights in a checkpoint's folder are others than those that its record is about."""
    recorded, files = getattr(config, "weights_sha256", None), sorted(Path(name).glob("*.safetensors"))
    return bool(recorded and files) and recorded != tensors_sha256(
        tensor for file in files for tensor in load_file(file).values()
    )


def take_over(model: GEmoClapPreTrainedModel, start: GEmoClapForXVector, name: str) -> GEmoClapPreTrainedModel:
    """Give a model that was built on a start's audio tower its pooling, and its memory of what it was trained on.

    Args:
        model: The model.
        start: What `load_start` gave.
        name: Where that came from.
    """
    model.audio_pooling.load_state_dict(start.audio_pooling.state_dict())
    [kind], before = config_of(name).architectures, start.config.training_data
    if before is None:
        before = [{"unknown": f"what {Path(name).name}, from which it started, was trained on is not recorded"}]
    alone = any("unlabelled" in record and "stage" not in record for record in before)
    stage = UNLABELLED_ENCODER if alone and kind == "GEmoClapForXVector" else STAGES[kind]
    model.config.training_data = _as_stage(before, stage)
    model.note_weights()
    return model


def _as_stage(records: list[dict], stage: str) -> list[dict]:
    """Records of an earlier training, named as such; records of what is not known stay as they are."""
    return [{"stage": stage} | record if "speakers" in record else record for record in records]
