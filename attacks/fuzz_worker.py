"""Runs inputs in forked processes, so that a crash or a hang has one input as its cause."""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ADDRESSES = 4 * 2**30  # bytes of address space beyond that of the parent
HANG = 40  # seconds without progress after which a process is killed


class Outcome(NamedTuple):
    """The outcome of one input.

    Args:
        index: Its number.
        verdict: `"answered"`, `"refused"` or `"broken"`.
        message: The error, or which promise was broken.
        place: Where in the package the error was raised.
    """

    index: int
    verdict: str
    message: str = ""
    place: str = ""


def run_isolated(job: Callable[[int], tuple[str, str, str]], start: int, stop: int, seconds: float) -> list[Outcome]:
    """Run inputs in forked processes; the input in which one dies or hangs is recorded, and the others follow.

    Args:
        job: Runs the input of a number, and returns verdict, message and place.
        start: First number.
        stop: Number after the last.
        seconds: No input begins after so many seconds.
    """
    end, outcomes = time.monotonic() + seconds, []
    with mmap.mmap(-1, 8) as progress, tempfile.NamedTemporaryFile("r", suffix=".jsonl") as records:
        while start < stop and time.monotonic() < end:
            progress[:] = start.to_bytes(8, "little")
            pid = os.fork()
            if pid == 0:
                _child(job, start, stop, end, progress, records.name)
            reason = _wait(pid, progress)
            outcomes += [Outcome(*json.loads(line)) for line in records]
            index = int.from_bytes(progress[:], "little")
            if reason is None:
                break
            outcomes.append(Outcome(index, "broken", reason))
            start = index + 1
    return outcomes


def _child(job, start: int, stop: int, end: float, progress: mmap.mmap, records: str) -> None:
    """The life of a forked process, which never returns."""
    try:
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + ADDRESSES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        pass
    status = 1
    try:
        sys.stderr = open(os.devnull, "w")
        for stream in (1, 2):  # libsndfile prints, and so do its callbacks
            os.dup2(sys.stderr.fileno(), stream)
        with open(records, "a") as file:
            for index in range(start, stop):
                if time.monotonic() > end:
                    break
                progress[:] = index.to_bytes(8, "little")
                file.write(json.dumps([index, *job(index)]) + "\n")
                file.flush()
        status = 0
    finally:
        os._exit(status)


def _wait(pid: int, progress: mmap.mmap) -> str | None:
    """Wait for a process; the reason for which it ended early, or None."""
    last, since = progress[:], time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if progress[:] != last:
            last, since = progress[:], time.monotonic()
        elif time.monotonic() - since > HANG:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"no progress in {HANG} s"
        time.sleep(0.02)
    if os.WIFSIGNALED(status):
        return f"the interpreter died of {signal.Signals(os.WTERMSIG(status)).name}"
    return None if status == 0 else "the process ended with an error outside of the input"
