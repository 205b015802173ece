"""The training data of the weights that a run starts from, and the checkpoint that each fold starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import PretrainedConfig

from ..configuration_gemoclap import GEmoClapAudioConfig
from ..corpora.files import read_object, require
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol
from ..corpora.provenance import NO_RECORD, heard_speakers
from ..objectives.initial_checkpoint import read_checkpoint_config
from ..training.arguments import ModelArguments, Recipe
from ..training.history import UNRECORDED_TOWER


def recipe_of_fold(recipe: Recipe, protocol: Protocol, corpus: Corpus, fold: int, seed: int) -> Recipe:
    """Return the recipe of a fold, whose initial checkpoint and teacher have not heard the fold's test speakers.

    Args:
        recipe: Recipe of the run. If its teacher (`distil_from`) is the run of a protocol, it is replaced by a fold of
            this run: of the same seed, or of its only seed.
        protocol: Protocol of this run.
        corpus: Clips of this run.
        fold: Number of the fold.
        seed: Seed of the fold.

    Raises:
        ValueError: If there is no such checkpoint or teacher, or its training is not finished.
    """
    model, options = model_arguments_of_fold(recipe.model, protocol, corpus, fold, seed), recipe.options
    if name := getattr(options, "distil_from", None):
        teacher = name
        if Path(name, "run.json").is_file():
            seeds = list(read_object(Path(name, "run.json"), protocols=dict)["protocols"])
            seed = int(seeds[0]) if len(seeds) == 1 else seed
            teacher = _checkpoint_of_fold(("--distil_from", name), protocol, corpus, fold, seed)
        records = read_checkpoint_config(teacher, "--distil_from").training_data
        if protocol.speaker_independent or teacher == name:  # else the fold left out clips instead of speakers
            _refuse_heard(teacher, records, protocol.test(corpus, fold), fold)
        options = dataclasses.replace(options, distil_from=teacher)
    return dataclasses.replace(recipe, model=model, options=options)


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
        _refuse_heard(name, initial_training_data(arguments), protocol.test(corpus, fold), fold)
        return arguments
    if not arguments.init_from:
        raise ValueError(
            f"--audio_model {name} is the run of a protocol: --init_from takes it, with a checkpoint for each fold; "
            f"--audio_model takes the tower of one fold"
        )
    checkpoint = _checkpoint_of_fold(("--init_from", name), protocol, corpus, fold, seed)
    return dataclasses.replace(arguments, init_from=checkpoint)


def _checkpoint_of_fold(source: tuple[str, str], protocol: Protocol, corpus: Corpus, fold: int, seed: int) -> str:
    """Return the checkpoint, in the protocol run that an option names, which left out the test clips of a fold."""
    option, name = source
    candidates = _folds_without(name, protocol, corpus, fold, seed)
    if not candidates:
        raise ValueError(
            f"{option} {name}: with seed {seed} no fold left out all that fold {fold} tests; train it with the "
            f"same --protocol, --seeds and --exclude_speakers"
        )
    number = fold if fold in candidates else candidates[0]
    checkpoint = Path(name, f"fold_{number}", f"seed_{seed}")
    if not (checkpoint / "fold.json").is_file():
        raise ValueError(f"{option} {checkpoint}: its training is not finished; run its train.py command again")
    return str(checkpoint)


def _refuse_heard(name: str, records: list[dict] | None, test: Corpus, fold: int) -> None:
    """Check that a checkpoint with these records of training data was not trained on the test speakers of a fold."""
    if seen := heard_speakers(test, records).speakers:
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


def earlier_training_data(recipe: Recipe) -> list[dict] | None:
    """Return the records of `initial_training_data`, and those of the teacher (`distil_from`)."""
    records, teacher = initial_training_data(recipe.model), getattr(recipe.options, "distil_from", None)
    if not teacher:
        return records
    if Path(teacher, "run.json").is_file():
        teacher = str(next(Path(teacher).glob("fold_*/seed_*"), teacher))
    taught = read_checkpoint_config(teacher, "--distil_from").training_data
    unknown = [{"unknown": NO_RECORD}]
    return [*(unknown if records is None else records), *(unknown if taught is None else taught)]


def seen_speakers_note(recipe: Recipe, corpus: Corpus | None) -> str:
    """Return a note for the model card, unless initial weights and teacher have not heard the speakers of `corpus`."""
    if corpus is None:
        return ""
    answer = heard_speakers(corpus, earlier_training_data(recipe))
    what = "the encoder or its teacher" if getattr(recipe.options, "distil_from", None) else "the encoder"
    if answer.speakers:
        return f", including speakers that {what} was trained on ({', '.join(answer.speakers)})"
    return f", on whose speakers {what} may have been trained (its record is incomplete)" if answer.unknown else ""
