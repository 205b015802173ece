"""Checkpoints to resume from: record and check their files, find the latest complete one, remove old ones."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..command_line.failures import DISK_FULL, INCOMPLETE_WRITE, failure_message
from ..corpora.files import read_object, write_json
from ..fingerprint import file_sha256
from .gather import all_gather_object

logger = logging.get_logger(__name__)
SINGLE_PROCESS_STATE = "rng_state.pth"
FILES = "checkpoint_files.json"  # size and SHA-256 of all files of a checkpoint, once they are complete
UNFINISHED = {"files": None}  # what it has until then; checkpoints of earlier versions have no such file
WINDOWS = os.name == "nt"


@contextmanager
def whole_checkpoint(folder: Path, arguments: TrainingArguments, state: TrainerState) -> Iterator[None]:
    """Record the files of a checkpoint after all processes have written them within this context.

    Until then, the record says that the checkpoint is unfinished. Files that a killed run left in the folder are
    removed first, and surplus checkpoints after the record is written.

    Args:
        folder: The `checkpoint-N`.
        arguments: With `save_total_limit`, and `should_save`: whether this process writes the record.
        state: State of the training.

    Raises:
        OSError: If a process cannot write a file; in all processes. The error names the folder, which is removed.
    """
    saves, limit = arguments.should_save, arguments.save_total_limit
    arguments.save_total_limit = None  # transformers would remove old checkpoints before this one is complete
    try:
        with failing_together(folder):
            if saves:
                _begin_checkpoint(folder)
        with failing_together(folder):
            yield
        with failing_together(folder):
            if saves:
                record_files(folder)
    except Exception:  # SafetensorError has no other base
        if saves:
            _remove_checkpoint(folder)  # on a full disk, the part would leave no space for anything
        raise
    finally:
        arguments.save_total_limit = limit
    with failing_together(folder):
        if saves:
            remove_surplus_checkpoints(folder, limit, state)


@contextmanager
def failing_together(folder: Path) -> Iterator[None]:
    """Wait at the end for all processes. If one of them failed within this context, all of them raise an error.

    Args:
        folder: What is written within the context.

    Raises:
        OSError: If another process failed, or this one by the file system. The error names a file or `folder`.
        Exception: If this process failed otherwise.
    """
    raised = None
    try:
        yield
    except Exception as error:
        raised = _writing_error(error, folder)
        if raised is not error:
            raised.__cause__ = error
    failures = all_gather_object(raised and (failure_message(raised) or f"{type(raised).__name__}: {raised}"))
    if raised is not None:
        raise raised
    for process, failure in enumerate(failures):
        if failure:
            raise OSError(f"process {process}: {failure}")


def _writing_error(error: Exception, folder: Path) -> Exception:
    """The error with the name of the folder, if it is one of the file system; torch and safetensors name no file."""
    text = str(error)
    if DISK_FULL.search(text) or INCOMPLETE_WRITE.search(text):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, os.strerror(error.errno), error.filename or str(folder))
    return error


def _begin_checkpoint(folder: Path) -> None:
    _remove_checkpoint(folder)
    folder.mkdir(parents=True)
    write_json(folder / FILES, UNFINISHED)
    _flush_to_disk(folder / FILES)


def _remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint. What an interrupted removal leaves is neither complete nor one of an earlier version."""
    with suppress(OSError):
        for name in (TRAINER_STATE_NAME, FILES):
            (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def record_files(folder: Path) -> None:
    """Write all files of a checkpoint to the disk, then their sizes and SHA-256 to `checkpoint_files.json`.

    Args:
        folder: The `checkpoint-N`, complete.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILES)
    for path in paths:
        _flush_to_disk(path)
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, file_sha256(path)] for path in paths}
    write_json(folder / FILES, {"files": files})
    _flush_to_disk(folder / FILES)
    if not WINDOWS:  # which opens no folders
        with suppress(OSError):  # some network file systems flush no folders; the files are on the disk
            _flush_to_disk(folder)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # Windows flushes only what it may write
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damage_of(folder: str | Path) -> str | None:
    """Compare a checkpoint with the record of its files.

    Args:
        folder: The `checkpoint-N`.

    Returns:
        What is wrong with it; None if all files are as they were written.
    """
    try:
        recorded = read_object(Path(folder, FILES))
        if recorded == UNFINISHED:
            return "it was not written to its end"
        recorded = {name: (int(size), str(sha256)) for name, (size, sha256) in recorded["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{FILES} is missing or cannot be read"
    for name, (size, sha256) in recorded.items():
        path = Path(folder, name)
        try:
            present = path.stat().st_size
            if present != size:
                return f"{name} has {present} of {size} bytes"
            if file_sha256(path) != sha256:
                return f"{name} was changed after it was written"
        except OSError as error:
            return f"{name} is missing or cannot be read ({error.strerror})"
    return None


def _damage_if_recorded(folder: Path) -> str | None:
    """As `damage_of`, but a checkpoint without a record, as earlier versions wrote it, is only reported."""
    if folder.is_dir() and not (folder / FILES).is_file():
        logger.warning(f"{folder} has no {FILES}, so its files are not checked: an earlier version wrote it")
        return None
    return damage_of(folder)


def checkpoints_in(folder: str | Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, complete or not, in the order of their steps."""
    paths = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    return sorted((path for path in paths if re.fullmatch(r"\d+", path.name.rpartition("-")[2])), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step of a `checkpoint-N`."""
    return int(checkpoint.name.rpartition("-")[2])


def latest_complete_checkpoint(folder: str | Path) -> str | None:
    """Find the newest complete `checkpoint-N` of a run.

    Args:
        folder: The output folder of the run.

    Returns:
        The path of the checkpoint, or None if there is none.

    Raises:
        ValueError: If there is none but those of an earlier version, which recorded no files: a new start would
            overwrite them.
    """
    paths = checkpoints_in(folder)
    for path in reversed(paths):
        damage = damage_of(path)
        if damage is None:
            return str(path)
        logger.warning(f"{path} is incomplete and is ignored: {damage}")
    earlier = [path for path in paths if (path / TRAINER_STATE_NAME).is_file() and not (path / FILES).is_file()]
    if earlier:
        raise ValueError(
            f"{earlier[-1]} has no {FILES}: an earlier version wrote it, and it may be incomplete. To resume from it, "
            f"give --resume_from_checkpoint {earlier[-1]} (not with --protocol); to start anew, remove it"
        )
    return None


def settle_checkpoints(checkpoint: str | Path, arguments: TrainingArguments, state: TrainerState) -> None:
    """Before the first step of a resumed training, find its best checkpoint, and remove surplus checkpoints.

    Args:
        checkpoint: The checkpoint that it is resumed from.
        arguments: With the present folder of the run, and `save_total_limit`.
        state: State of the training; the path of its best checkpoint is corrected.

    Raises:
        ValueError: If `load_best_model_at_end` needs the best checkpoint, which is missing or damaged.
    """
    recorded = read_object(Path(checkpoint, TRAINER_STATE_NAME))
    if state.global_step >= state.max_steps:  # no epoch follows
        state.num_train_epochs = recorded.get("num_train_epochs", state.num_train_epochs)
    best = recorded.get("best_model_checkpoint")  # transformers 5 forgets in `state` a path that does not exist
    if best:
        state.best_model_checkpoint = _present_best_checkpoint(best, checkpoint, arguments)
    if arguments.should_save and Path(checkpoint).resolve().parent == Path(arguments.output_dir).resolve():
        remove_surplus_checkpoints(Path(checkpoint), arguments.save_total_limit, state)


def remove_surplus_checkpoints(present: Path, limit: int | None, state: TrainerState) -> None:
    """Remove the oldest checkpoints beside one, incomplete ones first. The best and later ones than it stay.

    Args:
        present: The checkpoint that was just saved or resumed from.
        limit: `save_total_limit`: how many checkpoints stay; None or 0: all.
        state: State of the training, with the path of the best checkpoint.
    """
    if not limit or limit < 0:
        return
    paths = sorted(checkpoints_in(present.parent), key=lambda path: (_is_finished(path), step_of(path)))
    kept = {Path(path).name for path in (present, state.best_model_checkpoint) if path}
    later = {path.name for path in paths if _is_finished(path) and step_of(path) > step_of(present)}
    removable = [path for path in paths if path.name not in kept | later]
    for path in removable[: max(0, len(paths) - max(limit, len(kept)))]:
        _remove_checkpoint(path)


def _is_finished(checkpoint: Path) -> bool:
    try:
        return (checkpoint / TRAINER_STATE_NAME).is_file() and read_object(checkpoint / FILES) != UNFINISHED
    except (OSError, ValueError):
        return False


def steps_of(checkpoint: str | Path) -> int:
    """The number of steps that a `checkpoint-N` has trained, from its state.

    Raises:
        OSError: If the state cannot be read.
        ValueError: If it is damaged.
    """
    return read_object(Path(checkpoint, TRAINER_STATE_NAME), global_step=int)["global_step"]


def _present_best_checkpoint(recorded: str, checkpoint: str | Path, arguments: TrainingArguments) -> str | None:
    """The path of the best checkpoint, also if the run was moved.

    With a wrong path, transformers would keep the last checkpoint instead of the best.

    Args:
        recorded: The path when the state was saved.
        checkpoint: The `checkpoint-N` that the training is resumed from.
        arguments: With the present folder of the run, and whether training ends with the best checkpoint.

    Returns:
        The path. None if the checkpoint is missing or damaged and not needed.

    Raises:
        ValueError: If the best checkpoint is needed, and missing or damaged.
    """
    name = Path(recorded).name
    places = (Path(arguments.output_dir, name), Path(checkpoint).resolve().with_name(name), Path(recorded))
    present = next(filter(Path.is_dir, places), places[0])
    damage = _damage_if_recorded(present) if present.is_dir() else "no such folder"
    if damage and arguments.load_best_model_at_end:
        raise ValueError(
            f"{present}, the best checkpoint so far, is missing or damaged ({damage}): start anew with "
            f"--overwrite_output true"
        )
    return None if damage else str(present)


class MissedEvaluation(TrainerCallback):
    """Makes up, on resumption, for the evaluation after the step of the checkpoint.

    SIGTERM, or the end of the process, leaves it out. An evaluation draws a random number for its reader, so it has to
    run before the next step, with the random state of the checkpoint: otherwise the weights would be others.

    Args:
        trainer: The `SpeechTrainer`.
    """

    def __init__(self, trainer):
        self.trainer, self.missed = trainer, False

    def on_train_begin(self, args, state, control, **kwargs):
        """Look whether it is missing. If no step follows, make up for it."""
        self.missed = self.trainer.resumed_from is not None and evaluation_is_missing(args, state)
        if state.global_step >= state.max_steps:
            self.on_step_begin(args, state, control)

    def on_step_begin(self, args, state, control, **kwargs):
        """Make up for it before the first step. The checkpoint may turn out to be the best one."""
        if not self.missed:
            return
        self.missed = False
        is_best = self.trainer._determine_best_metric(self.trainer._evaluate(None, None), None)
        if is_best and state.best_global_step == state.global_step:
            state.best_model_checkpoint = self.trainer.resumed_from


def evaluation_is_missing(arguments: TrainingArguments, state: TrainerState) -> bool:
    """Whether an evaluation was due after the latest step and is not in the log.

    Args:
        arguments: With `eval_strategy`, `eval_delay`.
        state: State of the training, as stored in a checkpoint.
    """
    step, flow, control = state.global_step, DefaultFlowCallback(), TrainerControl()
    if not step or any(entry.get("step") == step and "eval_runtime" in entry for entry in state.log_history):
        return False
    flow.on_step_end(arguments, state, control)  # transformers 4 evaluates at the end only after an interval
    if step >= state.max_steps or state.epoch == int(state.epoch):
        flow.on_epoch_end(arguments, state, control)
    return control.should_evaluate


def without_padding_state(processor) -> None:
    """Remove the padding and truncation of the latest call from a tokenizer, whose files would depend on them.

    Args:
        processor: A processor, with or without a tokenizer. Each call of its tokenizer sets them anew.
    """
    tokenizer = getattr(getattr(processor, "tokenizer", None), "backend_tokenizer", None)
    if tokenizer is not None:
        tokenizer.no_padding()
        tokenizer.no_truncation()


def refuse_partial_checkpoint(
    folder: str | Path, processes: int, process: int, scaled: bool, sharded: bool, reads: bool = True
) -> None:
    """Check that a checkpoint has the complete training state. transformers would initialise missing parts anew.

    A checkpoint without a record of its files, as earlier versions wrote it, is only reported.

    Args:
        folder: The `checkpoint-N`.
        processes: Number of processes.
        process: Index of this process.
        scaled: Whether gradients are scaled (fp16).
        sharded: Whether DeepSpeed stores the optimizer state, which it checks itself.
        reads: Whether this process reads all files and compares them with their record.

    Raises:
        ValueError: If a file is missing on any process, or is not as it was written. The message names the files.
    """
    present = {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()
    random_state = f"rng_state_{process}.pth" if processes > 1 else SINGLE_PROCESS_STATE
    needed = ["trainer_state.json", "scheduler.pt", random_state] + ["scaler.pt"] * scaled
    missing = [name for name in needed if name not in present]
    if not sharded and not any(name.startswith("optimizer") for name in present):
        missing.append("the optimizer state")
    missing = sorted({name for names in all_gather_object(missing) for name in names})
    if not missing:
        damage = next(filter(None, all_gather_object(_damage_if_recorded(Path(folder)) if reads else None)), None)
        if damage is None:
            return
        raise ValueError(
            f"{folder} is damaged: {damage}. Resume from another checkpoint: --resume_from_checkpoint true takes the "
            f"latest complete one"
        )
    states = sorted(name for name in present if name.startswith("rng_state"))
    saved_by = "one process" if states == [SINGLE_PROCESS_STATE] else f"{len(states)} processes"
    reason = f"; it was saved by {saved_by}" if states and random_state in missing else ""
    raise ValueError(
        f"{folder}: training cannot be resumed from it, because {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing{reason}. A checkpoint of --save_only_model true has only "
        f"weights: start anew with --overwrite_output true, or give a complete checkpoint"
    )
