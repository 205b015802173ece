"""The lock of a run's folder, so that two trainings do not write to it at the same time."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout
from transformers.utils import logging

from ..fingerprint import IDENTITY

logger = logging.get_logger(__name__)
LOCK = ".run.lock"
SECONDS = 8  # a training that was just stopped or killed ends within them
WINDOWS = os.name == "nt"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of some network file systems
LEFTOVERS = (LOCK, f".{IDENTITY}.part", ".run.json.part")  # of a training that was killed before it began


def lock_folder(folder: Path) -> FileLock:
    """Lock a folder until `unlock_folder`. The system releases the lock of a process that ends in any way.

    Args:
        folder: The folder of a run, which is created.

    Returns:
        The lock. On a file system without locks it is not held, and a warning says so.

    Raises:
        ValueError: If another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=SECONDS)
    except Timeout:
        if not isinstance(lock, SoftFileLock):
            raise ValueError(
                f"{folder}: another training is writing to this folder: wait until it ends, or give another "
                f"--output_dir"
            ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    except NotImplementedError:  # filelock's own error for ENOSYS in earlier versions
        pass
    if isinstance(lock, SoftFileLock):  # its fallback, a file that would stay after a training was killed
        lock.release()
    if not lock.is_locked:
        logger.warning(f"{folder} is on a file system without locks: start no other training in it")
    return lock


def unlock_folder(lock: FileLock) -> None:
    """Remove the file of a lock, and release it."""
    if WINDOWS:  # where an open file cannot be removed
        lock.release()
    with suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


def is_empty(folder: Path) -> bool:
    """Whether a folder has no files, except those of a training that was killed before it began."""
    return not folder.is_dir() or all(path.name in LEFTOVERS for path in folder.iterdir())
