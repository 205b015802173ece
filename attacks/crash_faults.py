"""Faults within a training: it is killed, or an operation fails, at a certain operation on its files."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPERATIONS = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.truncate": 0, "shutil.rmtree": 0}


class Watch:
    """Calls a function before each operation of this process that changes files below some folders.

    It is an audit hook of Python; of torch and safetensors, whose own code writes files, the functions are wrapped.

    Args:
        folders: The folders.
        report: Function of the number of the operation, its name and its path.
    """

    def __init__(self, folders: list[Path], report: Callable[[int, str, str], None]):
        self._roots, self._report = [str(folder) + os.sep for folder in folders], report
        self._count, self._busy = 0, False
        sys.addaudithook(self._hook)
        import safetensors.torch
        import torch

        for module, name, place in ((torch, "save", 1), (safetensors.torch, "save_file", 1)):
            self._wrap(module, name, place)

    def _wrap(self, module, name: str, place: int) -> None:
        function = getattr(module, name)

        def wrapped(*args, **kwargs):
            self._see("write", args[place] if len(args) > place else kwargs.get("filename", kwargs.get("f", "")))
            return function(*args, **kwargs)

        for other in list(sys.modules.values()):  # also where it was imported by name
            if getattr(other, "__dict__", {}).get(name) is function:
                setattr(other, name, wrapped)

    def _hook(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)) and isinstance(flags, int) and flags & WRITING:
                self._see("open", path)
        elif event in OPERATIONS:
            self._see(event, arguments[OPERATIONS[event]])

    def _see(self, operation: str, path) -> None:
        if self._busy or not isinstance(path, (str, bytes, os.PathLike)):
            return
        path = os.path.abspath(os.fsdecode(path))
        if any(path.startswith(root) for root in self._roots):
            self._busy = True
            try:
                self._count += 1
                self._report(self._count, operation, path)
            finally:
                self._busy = False


def record(folders: list[Path], file: Path) -> None:
    """Write all operations of this process to a file, one in a line: operation and path."""
    written = open(file, "w", buffering=1)  # noqa: SIM115
    Watch(folders, lambda number, operation, path: written.write(f"{operation}\t{path}\n"))


def kill_at(folders: list[Path], number: int, part: float | None = None) -> None:
    """Kill this process before an operation.

    Args:
        folders: The folders whose operations count.
        number: Number of the operation, from 1.
        part: Part of the file of the previous operation that stays, as if this process were killed while it wrote
            it; None: all of it.
    """
    last: list[str] = []

    def report(count: int, operation: str, path: str) -> None:
        if count == number:
            if part is not None and last and os.path.isfile(last[0]):
                os.truncate(last[0], int(part * os.path.getsize(last[0])))
            os.kill(os.getpid(), signal.SIGKILL)
        last[:] = [path] if operation in ("open", "write") else []

    Watch(folders, report)


def fail_at(folders: list[Path], number: int, code: int, always: bool = True) -> None:
    """Let an operation fail.

    Args:
        folders: The folders whose operations count.
        number: Number of the operation, from 1.
        code: Number of the error, for example `errno.ENOSPC`.
        always: Whether all later operations that need space or a folder that can be written fail, too.
    """

    def report(count: int, operation: str, path: str) -> None:
        removes = operation in ("os.remove", "os.rmdir", "shutil.rmtree")
        if count == number or (always and count > number and not (removes and code == errno.ENOSPC)):
            raise OSError(code, os.strerror(code), path)

    Watch(folders, report)
