"""The folder of a run: begun with its identity, cleared of what another left, given back if nothing comes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ..corpora.files import write_json
from .arguments import GEmoClapTrainingArguments
from .gather import of_main
from .history import HISTORY
from .identity import IDENTITY, Run, read_identity, refuse_another_run

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
    """The folder of a run that begins; used as a context, an error before the first step leaves it as it was.

    An interrupt (Ctrl-C) is such an error too.

    With `overwrite_output` all that another run left is put aside when the new one begins, and removed when it
    trains: the new run must not go on from old checkpoints, calibration answers or frames, and until its own model is
    written, the old one would pass for it.

    Args:
        arguments: Of the run: `output_dir` and `overwrite_output`.
        begin: Writes down in the folder what the run is, in the main process; returns whether the folder is new to
            the run, which did not begin there before.

    Raises:
        ValueError: What `begin` raises.
    """

    def __init__(self, arguments: GEmoClapTrainingArguments, begin: Callable[[], bool]):
        self.arguments, self.begin, self.folder = arguments, begin, Path(arguments.output_dir)
        self._main = arguments.process_index == 0
        self._new = self._training = False

    def __enter__(self) -> RunFolder:
        self._new = of_main(self.arguments, self._begin)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and self._new and not self._training and self._main:
            self._give_back()

    def training_begins(self) -> None:
        """From here on the folder is the new run's: what was put aside is removed."""
        if not self._training and self._main:
            remove(self.folder / ASIDE)
        self._training = True

    def _begin(self) -> bool:
        settle(self.folder)
        if not self.arguments.overwrite_output:
            return self.begin()
        try:
            put_aside(self.folder)
            return self.begin()
        except BaseException:
            self._give_back()
            raise

    def _give_back(self) -> None:
        if not (self.folder / MOVING).is_dir():  # else what lies in the folder is the rest of the old run
            remove_run(self.folder)
        give_back(self.folder)
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


def give_back(folder: Path) -> None:
    """Move what was put aside back into its folder."""
    for aside in (folder / MOVING, folder / ASIDE):
        if aside.is_dir():
            move_run(aside, folder)
            if not any(aside.iterdir()):
                aside.rmdir()


def settle(folder: Path) -> None:
    """Undo a beginning that was killed before the new run was written down: the old one is given back.

    Args:
        folder: Of a run, or any other.
    """
    begun = any((folder / name).is_file() for name in (IDENTITY, "run.json"))
    if (folder / MOVING).is_dir() or ((folder / ASIDE).is_dir() and not begun):
        give_back(folder)


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
