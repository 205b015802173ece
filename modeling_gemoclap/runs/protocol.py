"""A protocol's folds and seeds, trained one after the other into `RUN/fold_k/seed_s/`; finished folds are skipped."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transformers.utils import logging

from ..command_line.commands import typed_words
from ..corpora.files import read_object, write_json
from ..corpora.protocols import Protocol, absent_classes, protocol_of, shuffled_labels
from ..fingerprint import IDENTITY, UNSET
from ..training.arguments import DataArguments, Recipe
from ..training.checkpoints import latest_complete_checkpoint
from ..training.gather import finish, release, run_on_main_process
from ..training.trainer import SpeechTrainer
from .folder import RunFolder, undo_unrecorded_begin
from .identity import read_identity, refuse_another_run, refuse_differing, refuse_earlier_layout
from .provenance import history_of_start, start_of_fold
from .run import Run, objective_of
from .selection import select_corpus, split, with_selection
from .train_run import train_run

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Fold:
    """A fold of a protocol with one seed, or its control on shuffled labels.

    Args:
        protocol: The protocol of this seed.
        number: The fold.
        seed: The seed of the training, with which the folds were dealt too.
        shuffled: Whether this is the control.
    """

    protocol: Protocol
    number: int
    seed: int
    shuffled: bool = False

    @property
    def plan(self) -> dict:
        """What `fold.json` says of it once it is finished."""
        return {"protocol_sha256": self.protocol.sha256, "fold": self.number, "seed": self.seed}

    def folder_in(self, root: Path) -> Path:
        """Its folder within the run's."""
        root = root / "shuffled_labels" if self.shuffled else root
        return root / f"fold_{self.number}" / f"seed_{self.seed}"


def train_protocol(recipe: Recipe) -> None:
    """Train every fold and seed of `--protocol`, and a control on shuffled labels; finished folds are skipped.

    Args:
        recipe: The options; `protocol`, `folds`, `seeds` and `control` say which folds.

    Raises:
        ValueError: If the protocol does not fit the corpus, or the folder holds another run.
    """
    data = recipe.data
    if data.speakers or data.dev_speakers:
        raise ValueError(
            "--protocol says which speakers are trained on: leave out --speakers and --dev_speakers "
            "(--num_dev_speakers deals some of each fold's training part; --exclude_speakers leaves some out of all)"
        )
    recipe = replace(recipe, training=with_selection(recipe.training, data))
    corpus, emotions = select_corpus(recipe, objective_of(recipe).reads_emotions)
    run = Run(recipe, corpus, None, emotions)
    record = run_on_main_process(recipe.training, read_record, run)
    protocols = plan_protocols(record, run)
    with RunFolder(run, lambda run: _begin(run, record, protocols)) as run:
        trainer = _train_folds(run, protocols)
    if recipe.training.process_index == 0:
        print_summary(run, protocols)
    if trainer is not None:
        finish(trainer)


def _train_folds(run: Run, protocols: dict[int, Protocol]) -> SpeechTrainer | None:
    """Train what is not finished; returns the last trainer."""
    trainer = None
    for fold in _folds(run, protocols):
        fold_run = run_of_fold(run, fold)
        if run_on_main_process(run.training, is_finished, fold_run, fold.plan):
            continue
        if trainer is not None:
            release(trainer)
        trainer = train_fold(fold_run, fold.plan)
    return trainer


def _folds(run: Run, protocols: dict[int, Protocol]) -> Iterator[Fold]:
    for seed, protocol in protocols.items():
        control = wants_control(run) and seed == min(protocols)
        for number in numbers_of_folds(run.recipe.data, protocol):
            for shuffled in (False, True) if control else (False,):
                yield Fold(protocol, number, seed, shuffled)


def numbers_of_folds(data: DataArguments, protocol: Protocol) -> list[int]:
    """The folds that are to be trained: all of them, or those of `--folds`."""
    return data.folds if data.folds is not None else list(range(len(protocol.folds)))


def run_of_fold(run: Run, fold: Fold) -> Run:
    """The run of one fold within a protocol's run.

    Args:
        run: All clips and options.
        fold: The fold.

    Raises:
        ValueError: If no checkpoint to start from has left out all test speakers of the fold, training clips do not
            suffice, or a test speaker is trained on.
    """
    protocol, data = fold.protocol, run.recipe.data
    labelled = run.objective.reads_emotions
    train, dev = split(protocol.training(run.train, fold.number), data, fold.seed, labelled)
    overlap = set(train.speakers) & set(protocol.test(run.train, fold.number).speakers)
    if protocol.speaker_independent and overlap:
        raise ValueError(
            f"{protocol.name}, fold {fold.number}: speakers {', '.join(sorted(overlap))} are trained on and judged"
        )
    if fold.shuffled:
        train, dev = (part and shuffled_labels(part, fold.seed) for part in (train, dev))
    model = start_of_fold(run.recipe.model, protocol, run.train, fold.number, fold.seed)
    started = replace(run, recipe=replace(run.recipe, model=model))
    return started.within(fold.folder_in(run.folder), train, dev, seed=fold.seed, data_seed=None)


def train_fold(run: Run, plan: dict) -> SpeechTrainer:
    """Train one fold, from its latest checkpoint if there is one.

    Args:
        run: The fold's run.
        plan: What `fold.json` says of it once it is finished.

    Returns:
        The trainer.

    Raises:
        ValueError: If its latest checkpoint is of another run.
    """
    start = time.perf_counter()
    run_on_main_process(run.training, record_fold, run)
    checkpoint = latest_complete_checkpoint(run.folder)
    if checkpoint:
        run_on_main_process(run.training, refuse_another_run, checkpoint, run.identity)
    trainer = train_run(run, checkpoint)
    if run.training.process_index == 0:
        dev = run.dev.speakers if run.dev else []
        plan = plan | {"dev": dev, "seconds": time.perf_counter() - start}
        write_json(run.folder / "fold.json", plan)
        for resumable in run.folder.glob("checkpoint-*"):  # not needed once the fold is finished
            shutil.rmtree(resumable)
        control = ", shuffled labels" if run.train.labels_shuffled else ""
        print(f"fold {plan['fold']}, seed {plan['seed']}{control}: {plan['seconds']:.0f} s", flush=True)
    return trainer


def read_record(run: Run) -> dict:
    """What `RUN/run.json` says, or what it will say if there is none.

    Args:
        run: All clips and options of the protocol's runs; its folder is the root.

    Raises:
        ValueError: If the folder holds another run that may not be overwritten.
    """
    folder, overwrite = run.folder, run.training.overwrite_output
    undo_unrecorded_begin(folder)
    path, empty = folder / "run.json", not folder.is_dir() or not any(folder.iterdir())
    not_shared = ("settings", "seed", "data_seed", "start")
    identity = {name: value for name, value in run.identity.items() if name not in not_shared}
    record = {"corpus": run.train.name, "manifest_sha256": run.train.manifest_sha256}
    record |= {"settings": run.identity["settings"], "identity": identity}
    if not empty and not path.is_file():
        raise ValueError(f"{folder} is not empty, and holds no protocol's run: give another --output_dir")
    if overwrite or empty:
        return record | {"protocols": {}, "commands": []}
    stored = read_object(path, protocols=dict, commands=list)
    refuse_earlier_layout(folder, stored.get("identity") or {})
    refuse_differing(folder, {name: stored.get(name, UNSET) for name in record}, record)
    return stored


def _begin(run: Run, record: dict, protocols: dict[int, Protocol]) -> bool:
    new = not (run.folder / "run.json").is_file()
    write_record(record, run.folder, protocols)
    for note in absent_classes(protocols[min(protocols)], run.train):
        logger.warning(note)
    return new


def plan_protocols(record: dict, run: Run) -> dict[int, Protocol]:
    """The protocol of each seed, before anything is trained or removed.

    Args:
        record: As `read_record` returns it.
        run: All clips and options.

    Raises:
        ValueError: If one does not fit the corpus, seeds judge different clips, or the run has other folds.
    """
    root, data = run.folder, run.recipe.data
    seeds = data.seeds or [run.training.seed]
    protocols = {seed: protocol_of(data.protocol, run.train, seed, data.folds_file) for seed in seeds}
    if not run.objective.reads_emotions and not protocols[seeds[0]].speaker_independent:
        raise ValueError(f"{data.protocol} deals clips by their emotion, which {run.objective.title} does not read")
    for seed, protocol in protocols.items():
        recorded = record["protocols"].get(str(seed), protocol.to_dict())
        others = {other["name"] for other in record["protocols"].values()} - {protocol.name}
        if others or recorded != protocol.to_dict():
            names = ", ".join(others) or f"{protocol.name} of other folds"
            raise ValueError(f"{root} was begun with another protocol, {names}: give another --output_dir")
        last = len(protocol.folds) - 1
        for number in numbers_of_folds(data, protocol):
            if not 0 <= number <= last:
                raise ValueError(f"--folds {number}: {protocol.name} has folds 0 to {last}")
            run_of_fold(run, Fold(protocol, number, seed))
    all_folds = [*record["protocols"].values(), *(protocol.to_dict() for protocol in protocols.values())]
    if len({tuple(sorted(value for fold in deal["folds"] for value in fold)) for deal in all_folds}) > 1:
        raise ValueError(f"{root}: the seeds' folds judge different clips, so their figures have no mean")
    return protocols


def write_record(record: dict, root: Path, protocols: dict[int, Protocol]) -> None:
    """Write protocols and the command into `RUN/run.json`, and print the protocols' hashes."""
    record["protocols"] |= {str(seed): protocol.to_dict() for seed, protocol in protocols.items()}
    command = shlex.join(typed_words())
    record["commands"] += [command] if command not in record["commands"] else []
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "run.json", record)
    for seed, protocol in protocols.items():
        print(f"{protocol.name} of {protocol.corpus}, seed {seed}: protocol {protocol.sha256[:16]}", flush=True)


def print_summary(run: Run, protocols: dict[int, Protocol]) -> None:
    """Print how many folds are trained, and what to do once all are."""
    folds = [
        Fold(protocol, number, seed) for seed, protocol in protocols.items() for number in range(len(protocol.folds))
    ]
    left = [fold for fold in folds if not (fold.folder_in(run.folder) / "fold.json").is_file()]
    if left:
        print(f"{run.folder}: {len(folds) - len(left)} of {len(folds)} folds are trained")
        return
    data = run.recipe.data
    options = ["--protocol", next(iter(protocols.values())).name]
    options += ["--folds_file", data.folds_file] if data.folds_file else []
    print(f"{run.folder}: {run.objective.next_step(str(run.folder), options)}")


def wants_control(run: Run) -> bool:
    """Whether a training on shuffled labels belongs to the run: not if the encoder may have heard the true labels."""
    if not run.objective.predicts_emotions:
        return False
    history = history_of_start(run.recipe.model)
    unknown = history is None or any("unknown" in record for record in history)
    labelled = unknown or any("speakers" in record and "unlabelled" not in record for record in history)
    if run.recipe.data.control and labelled:
        may = "may have heard" if unknown else "has heard"
        logger.warning(f"no control of shuffled labels: the encoder {may} the true ones")
    return run.recipe.data.control and not labelled


def record_fold(run: Run) -> None:
    """Write the identity of a fold into its folder; what another run left there is removed."""
    if read_identity(run.folder) != run.identity and run.folder.is_dir():
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / IDENTITY, run.identity)


def is_finished(run: Run, plan: dict) -> bool:
    """Whether a fold was trained to its end, as planned.

    Raises:
        ValueError: If it was trained as another run, or by another protocol.
    """
    path = run.folder / "fold.json"
    if not path.is_file():
        return False
    stored = read_object(path)
    refuse_differing(run.folder, {name: stored.get(name, UNSET) for name in plan}, plan)
    refuse_another_run(run.folder, run.identity)
    return True
