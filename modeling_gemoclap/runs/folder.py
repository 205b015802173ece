"""The folder of a run: begun with its identity, cleared of an overwritten run, restored if the run cannot begin."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

from ..corpora.files import write_json
from ..fingerprint import IDENTITY
from ..training.arguments import GEmoClapTrainingArguments
from ..training.checkpoints import latest_complete_checkpoint
from ..training.gather import refuse_differences, run_on_main_process
from ..training.history import HISTORY
from .identity import read_identity, refuse_another_run
from .run import Run

logger = logging.get_logger(__name__)
CALIBRATION = "calibration"  # the folder of out-of-fold answers
ASIDE = ".overwritten"  # where an overwritten run lies until the new one trains
MOVING = ".overwritten_in_part"  # the same, until all of it has been moved
# What a folder that holds a run, or a part of one, has at least one of.
MARKS = (
    *(IDENTITY, "run.json", "trainer_state.json", "training_args.bin", "checkpoint-*/"),
    *(f"{CALIBRATION}/fold_*", ASIDE, MOVING),
)
# What a run leaves behind.
LEFT_BEHIND = (
    *("checkpoint-*", CALIBRATION, "frozen_frames", "adapter", "encoder", "fold_*", "shuffled_labels", "results"),
    *("model*.safetensors", "model.safetensors.index.json", "config.json", "processor_config.json"),
    *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "*_gemoclap.py", "README.md", "skipped_clips.json"),
    *("training_args.bin", "trainer_state.json", "fold.json", HISTORY, "run.json", IDENTITY),
)


def holds_a_run(folder: Path) -> bool:
    """Whether a folder holds a run, or a part of one."""
    return any(any(folder.glob(pattern)) for pattern in MARKS)


class RunFolder:
    """Context in which a run begins; an error before its first step leaves the folder as it was.

    An interrupt (Ctrl-C) is such an error too.

    With `overwrite_output` the files of the run in the folder are moved aside when the new run begins, and removed
    when its training begins: the new run must not use old checkpoints, calibration answers or frames, and until its
    own model is written, the old one would pass for it.

    Args:
        run: The run; its training arguments give `output_dir` and `overwrite_output`.
        begin: Records the run in the folder, in the main process; returns whether the run is new there.

    Raises:
        ValueError: As `begin`.
    """

    def __init__(self, run: Run, begin: Callable[[Run], bool]):
        self.run, self.begin, self.folder = run, begin, run.folder
        self._main = run.training.process_index == 0
        self._new = self._training = False

    def __enter__(self) -> Run:
        """Begin the run, and become its guard."""
        self._new = run_on_main_process(self.run.training, self._begin)
        self.run.guard = self
        return self.run

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and self._new and not self._training and self._main:
            self._restore()

    def training_begins(self) -> None:
        """Remove the overwritten run: the folder now belongs to the new one."""
        if not self._training and self._main:
            remove(self.folder / ASIDE)
        self._training = True

    def _begin(self) -> bool:
        undo_unrecorded_begin(self.folder)
        if not self.run.training.overwrite_output:
            return self.begin(self.run)
        try:
            put_aside(self.folder)
            return self.begin(self.run)
        except BaseException:
            self._restore()
            raise

    def _restore(self) -> None:
        if not (self.folder / MOVING).is_dir():  # else what lies in the folder is the rest of the old run
            remove_run(self.folder)
        restore_overwritten(self.folder)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def put_aside(folder: Path) -> None:
    """Put the run in a folder aside; one that was begun over it and never trained is removed instead.

    Args:
        folder: Of the run, settled.
    """
    if (folder / ASIDE).is_dir():
        remove_run(folder)
        return
    move_run(folder, folder / MOVING)
    if (folder / MOVING).is_dir():
        (folder / MOVING).rename(folder / ASIDE)


def restore_overwritten(folder: Path) -> None:
    """Move what was put aside back into its folder."""
    for aside in (folder / MOVING, folder / ASIDE):
        if aside.is_dir():
            move_run(aside, folder)
            if not any(aside.iterdir()):
                aside.rmdir()


def undo_unrecorded_begin(folder: Path) -> None:
    """Undo a beginning that was killed before the new run was written down: the old one is given back.

    Args:
        folder: Of a run, or any other.
    """
    begun = any((folder / name).is_file() for name in (IDENTITY, "run.json"))
    if (folder / MOVING).is_dir() or ((folder / ASIDE).is_dir() and not begun):
        restore_overwritten(folder)


def begin_run(run: Run, checkpoint: str | None) -> bool:
    """Write the identity of a run into its folder; going on with another run is refused.

    Args:
        run: The run.
        checkpoint: The `checkpoint-N` that it goes on from, or None.

    Returns:
        Whether the folder is new to the run.

    Raises:
        ValueError: If `checkpoint`, or the run that was begun in the folder, is another one; it says what differs.
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
    """Move all that a run left in a folder, its identity last; files of other names stay.

    Args:
        folder: Where it lies.
        target: Where it goes, in place of what has the same name there.
    """
    for pattern in LEFT_BEHIND:
        for path in sorted(folder.glob(pattern)):
            target.mkdir(exist_ok=True)
            remove(target / path.name)
            path.rename(target / path.name)


def remove_run(folder: Path) -> None:
    """Remove all that a run left in a folder, its identity last; files of other names stay."""
    for pattern in LEFT_BEHIND:
        for path in folder.glob(pattern):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def resume_point(arguments: GEmoClapTrainingArguments) -> str | None:
    """The checkpoint that a run goes on from, before anything is read; a folder that holds something else is refused.

    Whether the checkpoint is of the same run is for `RunFolder` to tell.

    Args:
        arguments: `output_dir`, `overwrite_output`, and `resume_from_checkpoint`: a path, or `true` for the latest
            checkpoint that is whole.

    Returns:
        Its path; None to start with the first step.

    Raises:
        ValueError: If there is no folder to write to, it holds something else, there is nothing to go on from, or
            processes would go on from different checkpoints.
    """
    if arguments.output_dir in (None, "trainer_output"):  # the second is transformers' default
        raise ValueError("give --output_dir, a folder for the checkpoint")
    folder, wanted = Path(arguments.output_dir), _wanted(arguments.resume_from_checkpoint)
    if wanted and arguments.overwrite_output:
        raise ValueError(
            "--resume_from_checkpoint goes on with the run in the folder, --overwrite_output begins anew: give one"
        )
    found = latest_complete_checkpoint(folder) if wanted is True else wanted
    if found and not Path(found).is_dir():
        raise ValueError(
            f"--resume_from_checkpoint {found}: no such folder; give a checkpoint-N of the run, or true for the latest"
        )
    begun = read_identity(folder) is not None
    if wanted is True and found is None and not begun:
        raise ValueError(
            f"{folder} has no whole checkpoint to go on from: leave out --resume_from_checkpoint, "
            f"and give --overwrite_output true if the folder is not empty"
        )
    if wanted is True and found is None:
        logger.warning(f"{folder} has no whole checkpoint yet: the run in it begins with the first step")
    elsewhere = found and Path(found).resolve().parent != folder.resolve()
    if _is_filled(folder) and (elsewhere or not wanted) and not arguments.overwrite_output:
        raise ValueError(
            f"{folder} is not empty: give another --output_dir, --resume_from_checkpoint true to go on "
            f"with the run in it, or --overwrite_output true"
        )
    if _is_filled(folder) and arguments.overwrite_output and not holds_a_run(folder):
        raise ValueError(
            f"{folder} holds files but no run, and --overwrite_output removes runs alone: give another --output_dir"
        )
    refuse_differences(Path(found).name if found else "none", "the checkpoint to go on from")
    return found


def _wanted(resume: str | bool | None) -> str | bool | None:
    return {"true": True, "false": None}.get(resume.lower(), resume) if isinstance(resume, str) else resume or None


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
