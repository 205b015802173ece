"""The training data of the weights that a run starts from, and the checkpoint that each fold starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import PretrainedConfig

from ..configuration_gemoclap import GEmoClapAudioConfig
from ..corpora.files import read_object, require
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol
from ..corpora.provenance import heard_speakers
from ..objectives.initial_checkpoint import read_checkpoint_config
from ..training.arguments import ModelArguments
from ..training.history import UNRECORDED_TOWER


def model_arguments_of_fold(
    arguments: ModelArguments, protocol: Protocol, corpus: Corpus, fold: int, seed: int
) -> ModelArguments:
    """Return the model arguments of a fold, with a checkpoint that was not trained on the fold's test speakers.

    Args:
        arguments: Model arguments of the run. If `init_from` is the run of a protocol, it is replaced by the
            checkpoint of a fold with the same seed that left out all test speakers or clips of this fold.
        protocol: Protocol of this run.
        corpus: Clips of this run.
        fold: Number of the fold.
        seed: Seed of the fold.

    Raises:
        ValueError: If there is no such checkpoint, or its training is not finished.
    """
    name = arguments.init_from or arguments.audio_model
    if not name:
        return arguments
    if not Path(name, "run.json").is_file():
        _check_unseen(arguments, name, protocol.test(corpus, fold), fold)
        return arguments
    if not arguments.init_from:
        raise ValueError(
            f"--audio_model {name} is the run of a protocol: --init_from takes it, with a checkpoint for each fold; "
            f"--audio_model takes the tower of one fold"
        )
    candidates = _folds_without(name, protocol, corpus, fold, seed)
    if not candidates:
        raise ValueError(
            f"--init_from {name}: with seed {seed} no fold left out all that fold {fold} tests; train it with the "
            f"same --protocol, --seeds and --exclude_speakers"
        )
    number = fold if fold in candidates else candidates[0]
    checkpoint = Path(name, f"fold_{number}", f"seed_{seed}")
    if not (checkpoint / "fold.json").is_file():
        raise ValueError(f"--init_from {checkpoint}: its training is not finished; run its train.py command again")
    return dataclasses.replace(arguments, init_from=str(checkpoint))


def _check_unseen(arguments: ModelArguments, name: str, test: Corpus, fold: int) -> None:
    """Check that the checkpoint that all folds start from was not trained on the test speakers of a fold."""
    if seen := heard_speakers(test, initial_training_data(arguments)).speakers:
        raise ValueError(
            f"{name} was trained on {', '.join(seen)}, which fold {fold} tests: give the run of a protocol whose "
            f"folds leave out the same speakers"
        )


def _folds_without(name: str, protocol: Protocol, corpus: Corpus, fold: int, seed: int) -> list[int]:
    """Return the folds of the protocol run in a folder that left out all test speakers or clips of a fold."""
    run = read_object(Path(name, "run.json"), protocols=dict, corpus=str)
    stored = run["protocols"].get(str(seed), {"folds": [], "by": protocol.by})
    require(stored, f"{name}/run.json, protocol of seed {seed}", folds=list, by=str)
    prefix = "" if run["corpus"] == corpus.name or corpus.parts else f"{corpus.name}/"  # of a mixture with this corpus
    tested = set(protocol.folds[fold])
    left_out = [
        {value.removeprefix(prefix) for value in values if value.startswith(prefix)} for values in stored["folds"]
    ]
    return [number for number, values in enumerate(left_out) if tested <= values and stored["by"] == protocol.by]


def initial_training_data(arguments: ModelArguments) -> list[dict] | None:
    """Return the training data of the weights that a run starts from, in `init_from` or `audio_model`.

    Returns:
        Records of training data: an empty list for weights from scratch, None for a checkpoint without a record.
    """
    if arguments.init_from:
        checkpoint = Path(arguments.init_from)
        if (checkpoint / "run.json").is_file():  # all folds of a protocol run read the same kind of labels
            checkpoint = next(checkpoint.glob("fold_*/seed_*"), checkpoint)
        return read_checkpoint_config(str(checkpoint)).training_data
    if not arguments.audio_model:
        return []
    path = Path(arguments.audio_model, "config.json")
    try:
        config = read_object(path) if path.is_file() else PretrainedConfig.get_config_dict(arguments.audio_model)[0]
    except OSError:  # loading the model reports the error
        config = {}
    if config.get("training_data") is not None:
        return config["training_data"]
    if config.get("model_type") == GEmoClapAudioConfig.model_type:
        return [{"unknown": UNRECORDED_TOWER}]
    return [{"encoder": arguments.audio_model}]


def seen_speakers_note(arguments: ModelArguments, corpus: Corpus | None) -> str:
    """Return a note for the model card, unless the initial weights were not trained on the speakers of `corpus`."""
    if corpus is None:
        return ""
    answer = heard_speakers(corpus, initial_training_data(arguments))
    if answer.speakers:
        return f", including speakers that the encoder was trained on ({', '.join(answer.speakers)})"
    return ", on whose speakers the encoder may have been trained (its record is incomplete)" if answer.unknown else ""
