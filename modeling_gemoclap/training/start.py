"""Training that starts from the audio tower and the pooling of another checkpoint of ours."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

from transformers import PretrainedConfig

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.manifest import Corpus, seen_speakers
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForXVector
from ..towers_gemoclap import load_whole
from .arguments import ModelArguments, json_fields


def load_start(arguments: ModelArguments) -> tuple[GEmoClapForXVector, GEmoClapFeatureExtractor]:
    """The audio tower and pooling of `init_from`, and its feature extractor.

    Args:
        arguments: `init_from`, and what must agree with it: `pooling`, `use_weighted_layer_sum`, and the fields in
            `audio_config` and `feature_config`.

    Raises:
        ValueError: If it is no checkpoint of ours, pools otherwise, or a field does not agree.
    """
    name = arguments.init_from
    if Path(name, "run.json").is_file():
        raise ValueError(
            f"--init_from {name} is the run of a protocol, with a checkpoint for each fold: give --protocol"
        )
    if Path(name).exists() and not Path(name, "config.json").is_file():
        raise ValueError(f"--init_from {name}: no config.json there; give the folder of a checkpoint")
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
    if arguments.audio_model:
        raise ValueError("--init_from brings its audio tower: leave out --audio_model, or give --audio_model compact")
    config = GEmoClapConfig.from_pretrained(name)
    for field in ("pooling", "use_weighted_layer_sum"):
        theirs, mine = getattr(config, field), getattr(arguments, field)
        if theirs != mine:
            raise ValueError(
                f"--init_from {name} has {field} {str(theirs).lower()}, and --{field} is {str(mine).lower()}: give "
                f"--{field} {str(theirs).lower()} to take its pooling over, or a checkpoint that pools as you want"
            )
    model, extractor = load_whole(GEmoClapForXVector, name), GEmoClapFeatureExtractor.from_pretrained(name)
    for option, there in (("audio_config", config.audio_config), ("feature_config", extractor)):
        for field, value in json_fields(getattr(arguments, option), option).items():
            if getattr(there, field, value) != value:
                raise ValueError(
                    f"--init_from {name} has {field} {getattr(there, field)}, and --{option} {value}: leave it out"
                )
    return model, extractor


def take_over(model: GEmoClapPreTrainedModel, start: GEmoClapForXVector) -> GEmoClapPreTrainedModel:
    """Give a model that was built on the start's audio tower its pooling and its memory of what it was trained on."""
    model.audio_pooling.load_state_dict(start.audio_pooling.state_dict())
    before = [record | {"stage": "pretraining"} for record in start.config.training_data or []]
    model.config.training_data = before
    return model


def start_of_fold(arguments: ModelArguments, fold: int, seed: int) -> ModelArguments:
    """The arguments with the checkpoint that a fold starts from, where `init_from` is the run of a protocol.

    Raises:
        ValueError: If that fold was not trained to its end.
    """
    if not arguments.init_from or not Path(arguments.init_from, "run.json").is_file():
        return arguments
    own = copy.copy(arguments)
    own.init_from = str(Path(arguments.init_from, f"fold_{fold}", f"seed_{seed}"))
    if not Path(own.init_from, "fold.json").is_file():
        raise ValueError(
            f"--init_from {arguments.init_from}: fold {fold} of seed {seed} is not trained to its end there; train it "
            f"first, by the same protocol and seeds"
        )
    return own


def refuse_heard(checkpoint: str, test: Corpus, fold: int) -> None:
    """Make sure that what a fold starts from has heard none of the speakers that it judges.

    Raises:
        ValueError: If it has.
    """
    if heard := seen_speakers(test, GEmoClapConfig.from_pretrained(checkpoint).training_data):
        raise ValueError(
            f"--init_from {checkpoint} was trained on {', '.join(heard)}, whom fold {fold} judges: start from a run "
            f"of the same protocol, seeds and --exclude_speakers, whose folds leave out the same speakers"
        )


def start_sha256(arguments: ModelArguments) -> str | None:
    """Hash of the weights that a run starts from."""
    weights = sorted(Path(arguments.init_from).glob("*.safetensors")) if arguments.init_from else []
    return hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest() if weights else None
