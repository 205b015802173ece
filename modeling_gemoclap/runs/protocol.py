"""Training all folds and seeds of a protocol into `RUN/fold_k/seed_s/`. Finished folds are skipped."""

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
from .folder import RunFolder
from .identity import read_identity, refuse_another_run, refuse_differing, refuse_earlier_layout
from .lock import is_empty
from .provenance import earlier_training_data, recipe_of_fold
from .run import Run, objective_of
from .selection import select_corpus, split, with_selection
from .train_run import train_run

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Fold:
    """A fold of a protocol with one seed, or its control with shuffled labels.

    Args:
        protocol: The protocol with this seed.
        number: Number of the fold.
        seed: Seed of the training and of the assignment to folds.
        shuffled: Whether this is the control.
    """

    protocol: Protocol
    number: int
    seed: int
    shuffled: bool = False

    @property
    def plan(self) -> dict:
        """The content of `fold.json`, which marks a finished fold."""
        return {"protocol_sha256": self.protocol.sha256, "fold": self.number, "seed": self.seed}

    def folder_in(self, root: Path) -> Path:
        """Return the folder of the fold in the folder of the run."""
        root = root / "shuffled_labels" if self.shuffled else root
        return root / f"fold_{self.number}" / f"seed_{self.seed}"


def train_protocol(recipe: Recipe) -> None:
    """Train all folds and seeds of a protocol, and a control with shuffled labels. Finished folds are skipped.

    Args:
        recipe: The options; `protocol`, `folds`, `seeds` and `control` define the folds.

    Raises:
        ValueError: If the protocol does not fit the corpus, or the folder contains another run.
    """
    data = recipe.data
    if data.speakers or data.dev_speakers:
        raise ValueError(
            "--protocol defines the training speakers: leave out --speakers and --dev_speakers (--num_dev_speakers "
            "chooses development speakers in each fold, --exclude_speakers leaves speakers out of all folds)"
        )
    recipe = replace(recipe, training=with_selection(recipe.training, data))
    corpus, emotions = select_corpus(recipe, objective_of(recipe).reads_emotions)
    run = Run(recipe, corpus, None, emotions)
    with RunFolder(recipe.training) as folder:
        record = run_on_main_process(recipe.training, read_run_record, run)
        protocols = plan_protocols(record, run)
        run = folder.begin(run, lambda run: _begin(run, record, protocols))
        trainer = _train_folds(run, protocols)
    if recipe.training.process_index == 0:
        print_summary(run, protocols)
    if trainer is not None:
        finish(trainer)


def _train_folds(run: Run, protocols: dict[int, Protocol]) -> SpeechTrainer | None:
    """Train all folds that are not finished, and return the last trainer."""
    trainer = None
    for fold in _folds(run, protocols):
        fold_run = run_of_fold(run, fold)
        if run_on_main_process(run.training, is_finished, fold_run, fold.plan):
            remove_checkpoints(fold_run)  # of a run that was killed while it removed them
            continue
        if trainer is not None:
            release(trainer)
        trainer = train_fold(fold_run, fold.plan)
    return trainer


def _folds(run: Run, protocols: dict[int, Protocol]) -> Iterator[Fold]:
    """Yield the folds to train, each with its control if the seed is the first."""
    for seed, protocol in protocols.items():
        control = trains_control(run) and seed == min(protocols)
        for number in fold_numbers(run.recipe.data, protocol):
            for shuffled in (False, True) if control else (False,):
                yield Fold(protocol, number, seed, shuffled)


def fold_numbers(data: DataArguments, protocol: Protocol) -> list[int]:
    """Return the numbers of the folds to train: those of `--folds`, or all."""
    return data.folds if data.folds is not None else list(range(len(protocol.folds)))


def run_of_fold(run: Run, fold: Fold) -> Run:
    """Return the run of one fold.

    Args:
        run: The run of the protocol, with all clips.
        fold: The fold.

    Raises:
        ValueError: If no initial checkpoint or teacher left out all test speakers of the fold, if training clips do
            not suffice, or if a training speaker is a test speaker.
    """
    protocol, data = fold.protocol, run.recipe.data
    reads_emotions = run.objective.reads_emotions
    train, dev = split(protocol.training(run.train, fold.number), data, fold.seed, reads_emotions)
    overlap = set(train.speakers) & set(protocol.test(run.train, fold.number).speakers)
    if protocol.speaker_independent and overlap:
        raise ValueError(
            f"{protocol.name}, fold {fold.number}: speakers {', '.join(sorted(overlap))} are in the training and in "
            f"the test part; give a protocol that separates speakers"
        )
    if fold.shuffled:
        train, dev = (part and shuffled_labels(part, fold.seed) for part in (train, dev))
    recipe = recipe_of_fold(run.recipe, protocol, run.train, fold.number, fold.seed)
    return replace(run, recipe=recipe).within(fold.folder_in(run.folder), train, dev, seed=fold.seed, data_seed=None)


def train_fold(run: Run, plan: dict) -> SpeechTrainer:
    """Train one fold, from its latest checkpoint if there is one.

    Args:
        run: The run of the fold.
        plan: The fold's `Fold.plan`.

    Returns:
        The trainer.

    Raises:
        ValueError: If the latest checkpoint belongs to another run.
    """
    start = time.perf_counter()
    run_on_main_process(run.training, write_fold_identity, run)
    checkpoint = latest_complete_checkpoint(run.folder)
    if checkpoint:
        run_on_main_process(run.training, refuse_another_run, checkpoint, run.identity)
    trainer = train_run(run, checkpoint)
    if run.training.process_index == 0:
        dev = run.dev.speakers if run.dev else []
        plan = plan | {"dev": dev, "seconds": time.perf_counter() - start}
        write_json(run.folder / "fold.json", plan)
        remove_checkpoints(run)
        control = ", shuffled labels" if run.train.labels_shuffled else ""
        print(f"fold {plan['fold']}, seed {plan['seed']}{control}: {plan['seconds']:.0f} s", flush=True)
    return trainer


def remove_checkpoints(run: Run) -> None:
    """Remove the checkpoints of a fold, which are not needed after it is finished. The main process does so."""
    if run.training.process_index == 0:
        for checkpoint_folder in run.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint_folder)


def read_run_record(run: Run) -> dict:
    """Return the content of `RUN/run.json`, or its future content if there is none. The folder is locked.

    Args:
        run: The run of the protocol, with all clips.

    Raises:
        ValueError: If the folder contains another run that may not be overwritten.
    """
    folder, overwrite = run.folder, run.training.overwrite_output
    path, empty = folder / "run.json", is_empty(folder)
    specific = ("settings", "seed", "data_seed", "start")  # stored separately, or different in each fold
    identity = {name: value for name, value in run.identity.items() if name not in specific}
    record = {"corpus": run.train.name, "manifest_sha256": run.train.manifest_sha256}
    record |= {"settings": run.identity["settings"], "identity": identity}
    if not empty and not path.is_file():
        raise ValueError(f"{folder} is not empty and contains no run of a protocol: give another --output_dir")
    if overwrite or empty:
        return record | {"protocols": {}, "commands": []}
    stored = read_object(path, protocols=dict, commands=list)
    refuse_earlier_layout(folder, stored.get("identity") or {})
    refuse_differing(folder, {name: stored.get(name, UNSET) for name in record}, record)
    return stored


def _begin(run: Run, record: dict, protocols: dict[int, Protocol]) -> bool:
    new = not (run.folder / "run.json").is_file()
    write_run_record(record, run.folder, protocols)
    for note in absent_classes(protocols[min(protocols)], run.train):
        logger.warning(note)
    return new


def plan_protocols(record: dict, run: Run) -> dict[int, Protocol]:
    """Return the protocol of each seed, after checking all folds before anything is trained or removed.

    Args:
        record: The record that `read_run_record` returned.
        run: The run of the protocol, with all clips.

    Raises:
        ValueError: If a protocol does not fit the corpus, if seeds test different clips, or if the folder was started
            with other folds.
    """
    data = run.recipe.data
    seeds = data.seeds or [run.training.seed]
    protocols = {seed: protocol_of(data.protocol, run.train, seed, data.folds_file) for seed in seeds}
    if not run.objective.reads_emotions and not protocols[seeds[0]].speaker_independent:
        raise ValueError(
            f"{data.protocol} assigns clips to folds by emotion labels, which {run.objective.title} does not read; "
            f"give a protocol by speaker"
        )
    for seed, protocol in protocols.items():
        _refuse_other_protocol(record, run.folder, protocol, seed)
        _check_folds(run, protocol, seed)
    _refuse_different_tests(record, run.folder, protocols)
    return protocols


def _refuse_other_protocol(record: dict, root: Path, protocol: Protocol, seed: int) -> None:
    """Check that a run was started with the same protocol and the same folds."""
    stored = record["protocols"].get(str(seed), protocol.to_dict())
    other_names = {other["name"] for other in record["protocols"].values()} - {protocol.name}
    if other_names or stored != protocol.to_dict():
        names = ", ".join(other_names) or f"{protocol.name} with other folds"
        raise ValueError(f"{root} was started with another protocol, {names}: give another --output_dir")


def _check_folds(run: Run, protocol: Protocol, seed: int) -> None:
    """Check that the folds to train exist, and that each has a valid run."""
    last = len(protocol.folds) - 1
    for number in fold_numbers(run.recipe.data, protocol):
        if not 0 <= number <= last:
            raise ValueError(f"--folds {number}: {protocol.name} has folds 0 to {last}")
        fold = run_of_fold(run, Fold(protocol, number, seed))
        fold.objective.check_clips(fold.train)


def _refuse_different_tests(record: dict, root: Path, protocols: dict[int, Protocol]) -> None:
    """Check that all seeds, also those trained earlier, test the same speakers or clips."""
    stored = [*record["protocols"].values(), *(protocol.to_dict() for protocol in protocols.values())]
    if len({tuple(sorted(value for fold in protocol["folds"] for value in fold)) for protocol in stored}) > 1:
        raise ValueError(
            f"{root}: the folds of the seeds test different clips, so their results cannot be averaged; give another "
            f"--output_dir"
        )


def write_run_record(record: dict, root: Path, protocols: dict[int, Protocol]) -> None:
    """Write the protocols and the command line to `RUN/run.json`, and print the hashes of the protocols."""
    record["protocols"] |= {str(seed): protocol.to_dict() for seed, protocol in protocols.items()}
    command = shlex.join(typed_words())
    record["commands"] += [command] if command not in record["commands"] else []
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "run.json", record)
    for seed, protocol in protocols.items():
        print(f"{protocol.name} of {protocol.corpus}, seed {seed}: protocol {protocol.sha256[:16]}", flush=True)


def print_summary(run: Run, protocols: dict[int, Protocol]) -> None:
    """Print the number of trained folds, and the next command after all are trained."""
    folds = [
        Fold(protocol, number, seed) for seed, protocol in protocols.items() for number in range(len(protocol.folds))
    ]
    unfinished = [fold for fold in folds if not (fold.folder_in(run.folder) / "fold.json").is_file()]
    if unfinished:
        print(f"{run.folder}: {len(folds) - len(unfinished)} of {len(folds)} folds are trained")
        return
    data = run.recipe.data
    options = ["--protocol", next(iter(protocols.values())).name]
    options += ["--folds_file", data.folds_file] if data.folds_file else []
    print(f"{run.folder}: {run.objective.next_step(str(run.folder), options)}")


def trains_control(run: Run) -> bool:
    """Return whether to train controls: `--control`, unless the encoder or its teacher may know the true labels."""
    if not run.objective.predicts_emotions:
        return False
    history = earlier_training_data(run.recipe)
    unknown = history is None or any("unknown" in record for record in history)
    labelled = unknown or any("speakers" in record and "unlabelled" not in record for record in history)
    if run.recipe.data.control and labelled:
        verb = "may have been" if unknown else "was"
        logger.warning(
            f"no control with shuffled labels: the encoder or its teacher {verb} trained on the true labels"
        )
    return run.recipe.data.control and not labelled


def write_fold_identity(run: Run) -> None:
    """Write the identity of a fold to its folder. A folder of another run is removed."""
    if read_identity(run.folder) != run.identity and run.folder.is_dir():
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / IDENTITY, run.identity)


def is_finished(run: Run, plan: dict) -> bool:
    """Return whether the training of a fold is finished.

    Raises:
        ValueError: If the fold was trained by another run or protocol.
    """
    path = run.folder / "fold.json"
    if not path.is_file():
        return False
    stored = read_object(path)
    refuse_differing(run.folder, {name: stored.get(name, UNSET) for name in plan}, plan)
    refuse_another_run(run.folder, run.identity)
    return True
