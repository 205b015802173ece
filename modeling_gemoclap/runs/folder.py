"""The folder of a run: it records the identity, is cleared of an overwritten run, and is restored after an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from transformers.utils import logging

from ..configuration_gemoclap import SENTENCE_TRANSFORMERS_FILES
from ..corpora.files import write_json
from ..fingerprint import IDENTITY, TRAINING_CLIPS
from ..publishing.facts import CARD_FACTS
from ..publishing.notebook import NOTEBOOK
from ..training.arguments import GEmoClapTrainingArguments
from ..training.checkpoints import latest_complete_checkpoint
from ..training.gather import refuse_differences, run_on_main_process
from ..training.history import HISTORY
from ..training.trainer_options import refuse_lone_processes
from .identity import read_identity, refuse_another_run
from .lock import is_empty, lock_folder, unlock_folder
from .run import Run

logger = logging.get_logger(__name__)
CALIBRATION = "calibration"  # folder of out-of-fold logits
BACKUP = ".overwritten"  # folder of an overwritten run until the new run trains
PARTIAL_BACKUP = ".overwritten_in_part"  # the same, while files are still being moved
# Every folder that contains a run, or a part of one, has at least one of these.
RUN_MARKERS = (
    *(IDENTITY, "run.json", "trainer_state.json", "training_args.bin", "checkpoint-*/"),
    *(f"{CALIBRATION}/fold_*", BACKUP, PARTIAL_BACKUP),
)
# All files and folders that a run writes. The identity is last, so it is moved and removed last.
RUN_FILES = (
    *("checkpoint-*", CALIBRATION, "adapter", "encoder", "fold_*", "shuffled_labels", "results"),
    *("model*.safetensors", "model.safetensors.index.json", "config.json", "processor_config.json"),
    *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    *(
        "special_tokens_map.json",
        "added_tokens.json",
        "*_gemoclap.py",
        "README.md",
        CARD_FACTS,
        NOTEBOOK,
        TRAINING_CLIPS,
    ),
    *SENTENCE_TRANSFORMERS_FILES,
    *(".eval_results", "skipped_clips.json"),
    *("training_args.bin", "trainer_state.json", "fold.json", HISTORY, "run.json", IDENTITY),
)


def contains_run(folder: Path) -> bool:
    """Return whether a folder contains a run, or a part of one."""
    return any(any(folder.glob(pattern)) for pattern in RUN_MARKERS)


class RunFolder:
    """Context that locks the folder of a run. An error before its first step, or Ctrl-C, restores the folder.

    What the folder contains is read within the context, since a training that just ends may still change it.

    With `overwrite_output`, the files of the earlier run are moved to a backup when the new run begins, and removed
    when its training starts. The new run must not use checkpoints, calibration logits or frames of the earlier run,
    and the earlier model must not be mistaken for the new one.

    Args:
        arguments: `output_dir` and `overwrite_output`.

    Raises:
        ValueError: If there is no output folder, another process is writing to it, or several processes were started
            without a process group.
    """

    def __init__(self, arguments: GEmoClapTrainingArguments):
        self.arguments, self.folder = arguments, output_folder(arguments)
        self._lock = None
        self._created: list[Path] = []
        self._main = arguments.process_index == 0
        self._new = self._training = False

    def __enter__(self) -> RunFolder:
        """Lock the folder, and restore the overwritten run if a new one was killed before it began."""
        refuse_lone_processes(self.arguments)  # each of them would wait for the lock of another one
        run_on_main_process(self.arguments, self._enter)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and self._new and not self._training and self._main:
            self._restore()
        self._unlock()

    def on_training_start(self) -> None:
        """Remove the backup of the overwritten run."""
        if not self._training and self._main:
            remove(self.folder / BACKUP)
        self._training = True

    def begin(self, run: Run, record: Callable[[Run], bool]) -> Run:
        """Begin the run, and register for the start of its training.

        Args:
            run: The run.
            record: Function that records the run in the folder, called on the main process. Returns whether it is new.

        Returns:
            The run.

        Raises:
            ValueError: If `record` raises it.
        """
        self._new = run_on_main_process(self.arguments, self._begin, run, record)
        run.run_folder = self
        return run

    def _enter(self) -> None:
        self._created = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self._lock = lock_folder(self.folder)
        try:
            undo_interrupted_begin(self.folder)
        except BaseException:
            self._unlock()
            raise

    def _begin(self, run: Run, record: Callable[[Run], bool]) -> bool:
        overwrite = self.arguments.overwrite_output
        try:
            if overwrite:
                back_up_run(self.folder)
            return record(run)
        except BaseException:
            if overwrite:
                self._restore()
            raise

    def _restore(self) -> None:
        if not (self.folder / PARTIAL_BACKUP).is_dir():  # otherwise the folder still has files of the earlier run
            remove_run(self.folder)
        restore_backup(self.folder)

    def _unlock(self) -> None:
        """Release the lock, and remove the folder if nothing else is in it, and its parents if they are new too."""
        if self._lock is not None:
            unlock_folder(self._lock)
            self._lock = None
            with suppress(OSError):  # not empty, or removed already
                for path in self._created or [self.folder]:
                    path.rmdir()


def back_up_run(folder: Path) -> None:
    """Move the run in a folder to its backup. If there is a backup already, the run never trained and is removed.

    Args:
        folder: Folder of a run, after `undo_interrupted_begin`.
    """
    if (folder / BACKUP).is_dir():
        remove_run(folder)
        return
    move_run(folder, folder / PARTIAL_BACKUP)
    if (folder / PARTIAL_BACKUP).is_dir():
        (folder / PARTIAL_BACKUP).rename(folder / BACKUP)


def restore_backup(folder: Path) -> None:
    """Move the files of the backup back to the folder."""
    for backup in (folder / PARTIAL_BACKUP, folder / BACKUP):
        if backup.is_dir():
            move_run(backup, folder)
            if not any(backup.iterdir()):
                backup.rmdir()


def undo_interrupted_begin(folder: Path) -> None:
    """Restore the overwritten run if the new run was killed before its identity was written.

    Args:
        folder: Folder of a run, or any other folder.
    """
    is_recorded = any((folder / name).is_file() for name in (IDENTITY, "run.json"))
    if (folder / PARTIAL_BACKUP).is_dir() or ((folder / BACKUP).is_dir() and not is_recorded):
        restore_backup(folder)


def begin_run(run: Run, checkpoint: str | None) -> bool:
    """Write the identity of a run to its folder, or check that the folder and the checkpoint belong to this run.

    Args:
        run: The run.
        checkpoint: The `checkpoint-N` to resume from, or None.

    Returns:
        Whether the folder had no identity.

    Raises:
        ValueError: If the folder or the checkpoint belongs to another run. The error names the differences.
    """
    if checkpoint:
        refuse_another_run(checkpoint, run.identity)
    if read_identity(run.folder) is not None:
        refuse_another_run(run.folder, run.identity)
        return False
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / IDENTITY, run.identity)
    return True


def move_run(folder: Path, target: Path) -> None:
    """Move all files of a run, its identity last. Other files stay.

    Args:
        folder: Folder of the run.
        target: Folder to move to. Files with the same names there are replaced.
    """
    for pattern in RUN_FILES:
        for path in sorted(folder.glob(pattern)):
            target.mkdir(exist_ok=True)
            remove(target / path.name)
            path.rename(target / path.name)


def remove_run(folder: Path) -> None:
    """Remove all files of a run, its identity last. Other files stay."""
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, folder or link if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def output_folder(arguments: GEmoClapTrainingArguments) -> Path:
    """Return the folder of a run.

    Raises:
        ValueError: If there is no `output_dir`.
    """
    if arguments.output_dir in (None, "trainer_output"):  # the second is transformers' default
        raise ValueError("give --output_dir, a folder for the checkpoint")
    return Path(arguments.output_dir)


def resume_point(arguments: GEmoClapTrainingArguments) -> str | None:
    """Return the checkpoint that a run resumes from, before any clip is read. The folder is locked.

    `begin_run` checks later that the checkpoint belongs to the same run.

    Args:
        arguments: `output_dir`, `overwrite_output`, and `resume_from_checkpoint`: a path, or `true` for the latest
            complete checkpoint.

    Returns:
        The path of the checkpoint; None to start with the first step.

    Raises:
        ValueError: If there is no output folder, the folder contains other files, there is no checkpoint, or processes
            would resume from different checkpoints.
    """
    folder = output_folder(arguments)
    resume = _parse_resume(arguments.resume_from_checkpoint)
    if resume and arguments.overwrite_output:
        raise ValueError(
            "--resume_from_checkpoint resumes the run in the folder, --overwrite_output replaces it: give one of them"
        )
    checkpoint = latest_complete_checkpoint(folder) if resume is True else resume
    if checkpoint and not Path(checkpoint).is_dir():
        raise ValueError(
            f"--resume_from_checkpoint {checkpoint}: no such folder; give a checkpoint-N of the run, or true for the "
            f"latest one"
        )
    has_identity = read_identity(folder) is not None
    if resume is True and checkpoint is None:
        _check_begun(folder, has_identity)
    in_folder = resume and not (checkpoint and Path(checkpoint).resolve().parent != folder.resolve())
    if not is_empty(folder) and not in_folder:
        _refuse_filled_folder(folder, arguments.overwrite_output)
    refuse_differences(Path(checkpoint).name if checkpoint else "none", "the checkpoint to resume from")
    return checkpoint


def _parse_resume(resume: str | bool | None) -> str | bool | None:
    """Return a path, True for the latest checkpoint, or None."""
    return {"true": True, "false": None}.get(resume.lower(), resume) if isinstance(resume, str) else resume or None


def _check_begun(folder: Path, has_identity: bool) -> None:
    """Check that a folder without a complete checkpoint at least has the identity of a run."""
    if not has_identity:
        raise ValueError(
            f"{folder} has no complete checkpoint to resume from: leave out --resume_from_checkpoint, "
            f"and give --overwrite_output true if the folder is not empty"
        )
    logger.warning(f"{folder} has no complete checkpoint yet: the run in it starts with the first step")


def _refuse_filled_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with files, unless it contains a run that may be overwritten."""
    if not overwrite:
        raise ValueError(
            f"{folder} is not empty: give another --output_dir, --resume_from_checkpoint true to resume the run in "
            f"it, or --overwrite_output true"
        )
    if not contains_run(folder):
        raise ValueError(
            f"{folder} contains files but no run, and --overwrite_output removes only runs: give another --output_dir"
        )
