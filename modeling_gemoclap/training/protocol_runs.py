"""A protocol's folds, trained one after the other into `RUN/fold_k/seed_s/`; what is finished is not run again."""

from __future__ import annotations

import copy
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import read_object, write_json
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol, absent_classes, protocol_of, shuffled_labels
from ..fingerprint import UNSET
from .arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments
from .base_trainer import SpeechTrainer
from .checkpoints import latest_whole_checkpoint
from .gather import finish, of_main, release
from .identity import IDENTITY, Run, read_identity, refuse_another_run, refuse_differing
from .run import choosing_on_dev, select_corpus, split, train_and_save
from .run_folder import RunFolder, settle
from .start import history_of_start, start_of_fold

logger = logging.get_logger(__name__)


def open_run(run: Run) -> dict:
    """What `RUN/run.json` says, or would if there is none.

    Args:
        run: All clips and settings of the protocol's runs; its folder is the root.

    Raises:
        ValueError: If the folder holds another run, and may not be overwritten.
    """
    folder, overwrite, corpus = run.folder, run.arguments.overwrite_output, run.parts[0]
    settle(folder)
    path, empty = folder / "run.json", not folder.is_dir() or not any(folder.iterdir())
    shared = {
        name: value for name, value in run.identity.items() if name not in ("settings", "seed", "data_seed", "start")
    }
    mine = {"corpus": corpus.name, "manifest_sha256": corpus.manifest_sha256, "settings": run.identity["settings"]}
    mine["identity"] = shared
    if not empty and not path.is_file():
        raise ValueError(f"{folder} is not empty, and holds no protocol's run: give another --output_dir")
    if overwrite or empty:
        return mine | {"protocols": {}, "commands": []}
    found = read_object(path, protocols=dict, commands=list)
    refuse_differing(folder, {name: found.get(name, UNSET) for name in mine}, mine)
    return found


def train_protocol(
    model_args: ModelArguments,
    data_args: DataArguments,
    arguments: GEmoClapTrainingArguments,
    compute_metrics: Callable,
) -> None:
    """Train every fold and seed of `--protocol`, and a control of shuffled labels; what is finished is passed over.

    Args:
        model_args: What to train.
        data_args: On what; `protocol`, `folds`, `seeds` and `control` say which runs.
        arguments: How.
        compute_metrics: As for `transformers.Trainer`.

    Raises:
        ValueError: If the protocol does not fit the corpus, or the folder holds another run.
    """
    if data_args.speakers or data_args.dev_speakers:
        raise ValueError(
            "--protocol says which speakers are trained on: leave out --speakers and --dev_speakers "
            "(--num_dev_speakers deals some of each fold's training part; --exclude_speakers leaves some out of all)"
        )
    arguments = choosing_on_dev(arguments, data_args)
    corpus, emotions = select_corpus(data_args, model_args)
    run = Run((corpus, None), emotions, model_args, data_args, arguments, compute_metrics)
    begun = of_main(arguments, open_run, run)
    protocols = plan_protocols(begun, run)
    with RunFolder(arguments, lambda: _begin_protocols(run, begun, protocols)) as folder:
        trainer = _train_folds(run, protocols, folder.training_begins)
    if arguments.process_index == 0:
        told(run.folder, protocols, data_args, model_args)
    if trainer is not None:
        finish(trainer)


def _train_folds(run: Run, protocols: dict[int, Protocol], begin: Callable) -> SpeechTrainer | None:
    """Train what is not finished; the last trainer. `begin` is called when a training is about to begin."""
    trainer = None
    for seed, protocol in protocols.items():
        control = wants_control(run.model, run.data) and seed == min(protocols)
        for fold in folds_of(run.data, protocol):
            for shuffled in (False, True) if control else (False,):
                own = run_of_fold(run, protocol, fold, seed, shuffled)
                plan = {"protocol_sha256": protocol.sha256, "fold": fold, "seed": seed}
                if of_main(run.arguments, finished, own, plan):
                    continue
                if trainer is not None:
                    release(trainer)
                trainer = train_fold(own, plan, begin)
    return trainer


def _begin_protocols(run: Run, begun: dict, protocols: dict[int, Protocol]) -> bool:
    new = not (run.folder / "run.json").is_file()
    remember(begun, run.folder, protocols)
    for note in absent_classes(protocols[min(protocols)], run.parts[0]):
        logger.warning(note)
    return new


def folds_of(data: DataArguments, protocol: Protocol) -> Iterable[int]:
    """The folds that are asked for: all of them, or those of `--folds`."""
    return data.folds if data.folds is not None else range(len(protocol.folds))


def run_of_fold(run: Run, protocol: Protocol, fold: int, seed: int, shuffled: bool) -> Run:
    """The run of one fold and seed, or of its control, within a protocol's run.

    Raises:
        ValueError: If there is no checkpoint to start from that has heard none of the fold's test speakers, or
            training clips do not suffice.
    """
    corpus, data, labelled = run.parts[0], run.data, run.model.head != "speaker"
    folder = (run.folder / "shuffled_labels" if shuffled else run.folder) / f"fold_{fold}" / f"seed_{seed}"
    return replace(
        run,
        parts=fold_parts(protocol, corpus, fold, data, seed, shuffled, labelled),
        model=start_of_fold(run.model, protocol, corpus, fold, seed),
        arguments=for_fold(run.arguments, folder, seed),
    )


def train_fold(run: Run, plan: dict, begin: Callable = lambda: None) -> SpeechTrainer:
    """Train one fold, from its latest checkpoint if it was begun before.

    Args:
        run: The fold's run.
        plan: What `fold.json` says of it once it is finished.
        begin: Called when the training is about to begin.

    Returns:
        The trainer.

    Raises:
        ValueError: If its latest checkpoint is of another run.
    """
    start = time.perf_counter()
    of_main(run.arguments, begin_fold, run)
    checkpoint = latest_whole_checkpoint(run.folder)
    if checkpoint:
        of_main(run.arguments, refuse_another_run, checkpoint, run.identity)
    trainer = train_and_save(run, checkpoint, begin)
    if run.arguments.process_index == 0:
        dev = run.parts[1].speakers if run.parts[1] else []
        plan = plan | {"dev": dev, "seconds": time.perf_counter() - start}
        write_json(run.folder / "fold.json", plan)
        for resumable in run.folder.glob("checkpoint-*"):  # of no use to a fold that is finished
            shutil.rmtree(resumable)
        control = ", shuffled labels" if run.parts[0].labels_shuffled else ""
        print(f"fold {plan['fold']}, seed {plan['seed']}{control}: {plan['seconds']:.0f} s", flush=True)
    return trainer


def plan_protocols(begun: dict, run: Run) -> dict[int, Protocol]:
    """The protocol of each seed, before anything is trained or removed.

    Args:
        begun: What `open_run` gave.
        run: All clips and settings.

    Raises:
        ValueError: If one does not fit the corpus, seeds judge different clips, or the run has other folds.
    """
    root, corpus, data, head = run.folder, run.parts[0], run.data, run.model.head
    seeds = data.seeds or [run.arguments.seed]
    protocols = {seed: protocol_of(data.protocol, corpus, seed, data.folds_file) for seed in seeds}
    if head == "speaker" and not protocols[seeds[0]].speaker_independent:
        raise ValueError(f"{data.protocol} deals clips by their emotion, which head speaker does not read")
    for seed, protocol in protocols.items():
        known = begun["protocols"].get(str(seed), protocol.to_dict())
        others = {one["name"] for one in begun["protocols"].values()} - {protocol.name}
        if others or known != protocol.to_dict():
            names = ", ".join(others) or f"{protocol.name} of other folds"
            raise ValueError(f"{root} was begun with another protocol, {names}: give another --output_dir")
        every = range(len(protocol.folds))
        for fold in folds_of(data, protocol):
            if fold not in every:
                raise ValueError(f"--folds {fold}: {protocol.name} has folds 0 to {every[-1]}")
            run_of_fold(run, protocol, fold, seed, False)
    all_folds = [*begun["protocols"].values(), *(protocol.to_dict() for protocol in protocols.values())]
    if len({tuple(sorted(value for fold in one["folds"] for value in fold)) for one in all_folds}) > 1:
        raise ValueError(f"{root}: the seeds' folds judge different clips, so their figures have no mean")
    return protocols


def remember(run: dict, root: Path, protocols: dict[int, Protocol]) -> None:
    """Put protocols and the command into `RUN/run.json`, and print the protocols' hashes."""
    run["protocols"] |= {str(seed): protocol.to_dict() for seed, protocol in protocols.items()}
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    run["commands"] += [command] if command not in run["commands"] else []
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "run.json", run)
    for seed, protocol in protocols.items():
        print(f"{protocol.name} of {protocol.corpus}, seed {seed}: protocol {protocol.sha256[:16]}", flush=True)


def told(root: Path, protocols: dict[int, Protocol], data: DataArguments, model: ModelArguments) -> None:
    """Print what is trained, and how it is judged."""
    wanted = [
        root / f"fold_{fold}" / f"seed_{seed}" / "fold.json"
        for seed, protocol in protocols.items()
        for fold in range(len(protocol.folds))
    ]
    left = [path for path in wanted if not path.is_file()]
    if left:
        print(f"{root}: {len(wanted) - len(left)} of {len(wanted)} folds are trained")
        return
    name = next(iter(protocols.values())).name
    more = ["--folds_file", data.folds_file] if data.folds_file else []
    if model.head == "speaker":
        print(f"{root}: all folds are pretrained. Go on from them: train.py --init_from {root}, by the same protocol")
        return
    judged = ["--protocol", name, *more]
    if model.head == "supcon":
        judged = ["--layer_similarity", *(["--before", model.audio_model] if model.audio_model else [])]
    command = shlex.join(["--model", str(root), "--data_dir", *data.data_dir, *judged])
    print(f"{root}: all folds are trained. Judge them: python evaluate.py {command}")


def wants_control(model: ModelArguments, data: DataArguments) -> bool:
    """Whether a training on shuffled labels belongs to the run: not where an encoder may have heard the true ones."""
    if model.head in ("supcon", "speaker"):  # nothing is judged that it could stand beside
        return False
    history = history_of_start(model)
    unknown = history is None or any("unknown" in record for record in history)
    labelled = unknown or any("speakers" in record and "unlabelled" not in record for record in history)
    if data.control and labelled:
        may = "may have heard" if unknown else "has heard"
        logger.warning(f"no control of shuffled labels: the encoder {may} the true ones")
    return data.control and not labelled


def begin_fold(run: Run) -> None:
    """Write down what a fold's run is; a part of another that was left in its folder is removed."""
    if read_identity(run.folder) != run.identity and run.folder.is_dir():
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / IDENTITY, run.identity)


def finished(run: Run, plan: dict) -> bool:
    """Whether a fold was trained to its end, as planned.

    Raises:
        ValueError: If it was, as another run or by another protocol.
    """
    path = run.folder / "fold.json"
    if not path.is_file():
        return False
    found = read_object(path)
    refuse_differing(run.folder, {name: found.get(name, UNSET) for name in plan}, plan)
    refuse_another_run(run.folder, run.identity)
    return True


def fold_parts(
    protocol: Protocol,
    corpus: Corpus,
    fold: int,
    data: DataArguments,
    seed: int,
    shuffled: bool,
    labelled: bool = True,
) -> tuple[Corpus, Corpus | None]:
    """The training clips of a fold and its development clips; for the control, the labels of both are shuffled.

    `labelled` is whether emotions are asked for.
    """
    train, dev = split(protocol.training(corpus, fold), data, seed, labelled)
    overlap = set(train.speakers) & set(protocol.test(corpus, fold).speakers)
    if protocol.speaker_independent and overlap:
        raise ValueError(
            f"{protocol.name}, fold {fold}: speakers {', '.join(sorted(overlap))} are trained on and judged"
        )
    return tuple(part and shuffled_labels(part, seed) for part in (train, dev)) if shuffled else (train, dev)


def for_fold(arguments: GEmoClapTrainingArguments, folder: Path, seed: int) -> GEmoClapTrainingArguments:
    """The same arguments for another folder and seed."""
    own = copy.copy(arguments)
    own.output_dir, own.seed, own.data_seed = str(folder), seed, None
    return own
