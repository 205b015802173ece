"""What the weights that a run starts from have heard, and which of them each fold starts from."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import PretrainedConfig

from ..configuration_gemoclap import GEmoClapAudioConfig
from ..corpora.files import read_object, require
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol
from ..corpora.provenance import heard_speakers
from ..objectives.start import config_of
from ..training.arguments import ModelArguments
from ..training.history import OWN_TOWER


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
