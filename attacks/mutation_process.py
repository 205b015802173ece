"""The forked process in which the tests of one mutant run.

The limit is processor time, so that a busy machine does not make mutants time out.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mutants
import pytest

LIMIT = 5.0  # seconds of processor time of a test, and five times what it needs without mutants
WALL = 180  # seconds of a mutant, for tests that wait
MEMORY = 3 * 2**30  # bytes that a mutant may allocate beyond what is loaded


@contextmanager
def forked(runner, items: list[pytest.Item], mutant: mutants.Mutant | None) -> Iterator[dict]:
    """Run tests in a forked process, and remove its files.

    Args:
        runner: The `Runner` that collected the tests.
        items: The tests.
        mutant: What replaces the original, if anything.

    Yields:
        What the process wrote, and the `signal` that ended it.
    """
    scratch = Path(tempfile.mkdtemp())
    process = os.fork()
    if not process:
        try:
            os.setsid()
            _child(runner, items, mutant, scratch)
        finally:
            os._exit(2)
    try:
        deadline, ended, status = time.monotonic() + WALL, 0, 0
        pause = 0.002
        while not ended and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(0.05, 1.2 * pause)
            ended, status = os.waitpid(process, os.WNOHANG)
        _kill_group(process)
        if not ended:
            status = os.waitpid(process, 0)[1]
        result = scratch / "result.json"
        yield (json.loads(result.read_text()) if result.exists() else {}) | {"signal": os.WTERMSIG(status)}
    except BaseException:  # such as an interruption by the user
        _kill_group(process)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _kill_group(process: int) -> None:
    """End what a mutant started and left behind."""
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _child(runner, items: list[pytest.Item], mutant: mutants.Mutant | None, scratch: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    runner.result = scratch / "result.json"
    items[0].config._tmp_path_factory._basetemp = (scratch / "tmp").resolve()
    (scratch / "tmp").mkdir()
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    seconds, following = {}, [*items[1:], None]
    try:
        if mutant:
            mutants.put_in_place(mutant)
    except Exception as error:  # outside of functions, a mutant may make the import fail
        runner.result.write_text(json.dumps({"not made" if mutant.function else "failed": repr(error)}))
        os._exit(1)
    try:
        for item, next_item in zip(items, following, strict=True):
            before = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, LIMIT + 5 * runner.seconds.get(item.nodeid, 60))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
            seconds[item.nodeid] = time.process_time() - before
    except BaseException as error:  # a mutant may end pytest itself
        runner.result.write_text(json.dumps({"failed": items[0].nodeid, "why": repr(error)}))
        os._exit(1)
    runner.result.write_text(json.dumps({"seconds": seconds}))
    os._exit(0)
