"""The lock of a run's folder, so that two trainings do not write to it at the same time."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout
from transformers.utils import logging

from ..fingerprint import IDENTITY

logger = logging.get_logger(__name__)
LOCK = ".run.lock"
# Workers of a killed training end within seconds, and until then they hold its lock.
SECONDS = 8
LEFTOVERS = (LOCK, f".{IDENTITY}.part", ".run.json.part")  # of a training that was killed before it began


def lock_folder(folder: Path) -> FileLock:
    """Lock a folder until `unlock_folder`. The system releases the lock of a process that ends in any way.

    Args:
        folder: The folder of a run, which is created.

    Returns:
        The lock.

    Raises:
        ValueError: If another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=SECONDS)
    except Timeout:
        raise ValueError(
            f"{folder}: another training is writing to this folder: wait until it ends, or give another --output_dir"
        ) from None
    except NotImplementedError:  # some network file systems
        logger.warning(f"{folder} is on a file system without locks: start no other training in it")
    return lock


def unlock_folder(lock: FileLock) -> None:
    """Remove the file of a lock, and release it."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def is_empty(folder: Path) -> bool:
    """Whether a folder has no files, except those of a training that was killed before it began."""
    return not folder.is_dir() or all(path.name in LEFTOVERS for path in folder.iterdir())
