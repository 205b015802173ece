"""Training that starts from the audio tower and the pooling of another checkpoint of ours."""

from __future__ import annotations

import copy
from pathlib import Path

from safetensors.torch import load_file
from transformers import PretrainedConfig

from ..base_gemoclap import UNLABELLED_ENCODER, GEmoClapPreTrainedModel
from ..configuration_gemoclap import GEmoClapAudioConfig, GEmoClapConfig
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.files import read_object, require
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol
from ..corpora.provenance import heard_speakers
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForXVector
from ..safety_gemoclap import tensors_sha256
from ..towers_gemoclap import load_complete_model
from .arguments import ModelArguments, json_fields
from .history import OWN_TOWER
from .tower_fields import check_config_fields, check_feature_fields

# What a start was trained by, as records of training data have it.
SUPERVISED = "an encoder by supervised contrast"
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
    given = {option: json_fields(getattr(arguments, option), option) for option in ("audio_config", "feature_config")}
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


def remember(config: PretrainedConfig, records: list[dict] | None) -> None:
    """Write into a tower's own configuration what it was trained on, so that it is not forgotten where it is alone."""
    if records:
        config.training_data = records
    elif hasattr(config, "training_data"):
        del config.training_data


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


def start_of_fold(
    arguments: ModelArguments, protocol: Protocol, corpus: Corpus, fold: int, seed: int
) -> ModelArguments:
    """The arguments with the checkpoint that a fold starts from: one that has heard nothing of what the fold judges.

    Args:
        arguments: `init_from` is a checkpoint, or the run of a protocol, of which the fold is taken that left out all
            of it, with the same seed.
        protocol: Of this run.
        corpus: Its clips.
        fold: The fold.
        seed: The seed.

    Raises:
        ValueError: If there is no such checkpoint, or it is not trained to its end.
    """
    name = arguments.init_from or arguments.audio_model
    if not name:
        return arguments
    judged, own = set(protocol.folds[fold]), copy.copy(arguments)
    if not arguments.init_from and Path(name, "run.json").is_file():
        raise ValueError(
            f"--audio_model {name} is the run of a protocol: --init_from takes it, with a checkpoint for each fold; "
            f"--audio_model takes the tower of one"
        )
    if not Path(name, "run.json").is_file():
        if heard := heard_speakers(protocol.test(corpus, fold), history_of_start(arguments)).speakers:
            raise ValueError(
                f"{name} was trained on {', '.join(heard)}, whom fold {fold} judges: give the run of a "
                f"protocol whose folds leave out the same"
            )
        return arguments
    run = read_object(Path(name, "run.json"), protocols=dict, corpus=str)
    theirs = run["protocols"].get(str(seed), {"folds": [], "by": protocol.by})
    require(theirs, f"{name}/run.json, protocol of seed {seed}", folds=list, by=str)
    start = "" if run["corpus"] == corpus.name or corpus.parts else f"{corpus.name}/"
    left_out = [{value.removeprefix(start) for value in one if value.startswith(start)} for one in theirs["folds"]]
    fitting = [number for number, values in enumerate(left_out) if judged <= values and theirs["by"] == protocol.by]
    if not fitting:
        raise ValueError(
            f"--init_from {name}: with seed {seed} no fold there left out all that fold {fold} judges; train it by "
            f"the same --protocol, --seeds and --exclude_speakers"
        )
    place = Path(name, f"fold_{fold if fold in fitting else fitting[0]}", f"seed_{seed}")
    if not (place / "fold.json").is_file():
        raise ValueError(f"--init_from {place} is not trained to its end: run its train.py command again")
    own.init_from = str(place)
    return own


def history_of_start(arguments: ModelArguments) -> list[dict] | None:
    """What the weights that a run starts from were trained on: those of `init_from`, or a tower in `audio_model`.

    Returns:
        Records of training data: none for weights from scratch, None where a checkpoint has no record.
    """
    if arguments.init_from:
        place = Path(arguments.init_from)
        if (place / "run.json").is_file():  # of a protocol's run any fold tells by what labels
            place = next(place.glob("fold_*/seed_*"), place)
        return config_of(str(place)).training_data
    if not arguments.audio_model:
        return []
    path = Path(arguments.audio_model, "config.json")
    try:
        found = read_object(path) if path.is_file() else PretrainedConfig.get_config_dict(arguments.audio_model)[0]
    except OSError:  # whoever loads it says what is wrong
        found = {}
    if found.get("training_data") is not None:
        return found["training_data"]
    if found.get("model_type") == GEmoClapAudioConfig.model_type:
        return [{"unknown": OWN_TOWER}]
    return [{"encoder": arguments.audio_model}]


def heard_before(arguments: ModelArguments, corpus: Corpus | None) -> str:
    """A remark, unless what a run starts from is known not to have heard the speakers of `corpus`; else ""."""
    if corpus is None:
        return ""
    found = heard_speakers(corpus, history_of_start(arguments))
    if found.speakers:
        return f", of speakers whom the encoder had heard before ({', '.join(found.speakers)})"
    return ", of whom it is unknown whether the encoder had heard them before" if found.unknown else ""
