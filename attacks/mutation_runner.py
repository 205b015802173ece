"""Runs tests against mutants: pytest collects once, and a process is forked for each mutant.

Tests begin with those that killed mutants last. The limit is processor time, so that a busy machine does not make
mutants time out.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import mutants
import pytest
from attack import ROOT

LIMIT = 5.0  # seconds of processor time of a test, and five times what it needs without mutants
WALL = 180  # seconds of a mutant, for tests that wait
MEMORY = 3 * 2**30  # bytes that a mutant may allocate beyond what is loaded
SLOW_TEST = 2.5  # seconds: longer tests are left out
KILLED, TIMEOUT, SURVIVED = "killed", "timeouts", "survived"


class Runner:
    """A pytest plugin whose loop over the tests is `work`.

    Args:
        work: Called with the runner after collection.
    """

    def __init__(self, work: Callable[[Runner], None]):
        self.work = work
        self.items: list[pytest.Item] = []
        self.seconds: dict[str, float] = {}
        self.orders: dict[tuple[str, ...], list[pytest.Item]] = {}
        self.result: Path | None = None  # in the forked process: where the name of a failed test is written

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the work in place of running the tests."""
        self.items = session.items
        self.work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """End the forked process at the first failure."""
        if self.result and report.failed:
            self.result.write_text(json.dumps({"failed": report.nodeid, "why": str(report.longrepr)[-2000:]}))
            os._exit(1)

    def tests_of(self, prefixes: tuple[str, ...]) -> list[pytest.Item]:
        """The tests whose names begin so, shortest first, except those that take long. They pass without mutants."""
        if prefixes not in self.orders:
            items = [item for item in self.items if item.nodeid.startswith(prefixes)]
            with _forked(self, items, None) as answer:
                if "failed" in answer or "seconds" not in answer:
                    raise RuntimeError(f"{answer.get('failed', prefixes)} fails without mutants: {answer.get('why')}")
                self.seconds |= answer["seconds"]
            quick = [item for item in items if self.seconds[item.nodeid] <= SLOW_TEST]
            self.orders[prefixes] = sorted(quick, key=lambda item: self.seconds[item.nodeid])
        return self.orders[prefixes]

    def judge(self, mutant: mutants.Mutant, prefixes: tuple[str, ...]) -> str:
        """Run tests against a mutant: `KILLED`, `TIMEOUT` or `SURVIVED`."""
        items = self.tests_of(prefixes)
        with _forked(self, items, mutant) as answer:
            if "failed" in answer:
                [killer] = [item for item in items if item.nodeid == answer["failed"]]
                items.remove(killer)
                items.insert(0, killer)
                return KILLED
            if "seconds" in answer:
                return SURVIVED
            return TIMEOUT if answer["signal"] in (signal.SIGPROF, signal.SIGKILL) else KILLED


def run(files: list[str], work: Callable[[Runner], None]) -> None:
    """Collect the quick tests of files, and do the work.

    Raises:
        RuntimeError: If pytest cannot collect, or tests fail without mutants.
    """
    scratch = Path(tempfile.mkdtemp())
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # the smallest failure is of no interest
    hypothesis.settings.register_profile("attack", phases=phases, database=None, derandomize=True)
    hypothesis.settings.load_profile("attack")
    options = ["-q", "-s", "-m", "not slow", "-p", "no:cacheprovider", "--basetemp", str(scratch / "pytest")]
    options += ["-W", "ignore"]
    failures: list[BaseException] = []

    def guarded(runner: Runner) -> None:
        try:
            work(runner)
        except Exception as error:
            failures.append(error)

    folder = os.getcwd()
    try:
        os.chdir(ROOT)
        status = pytest.main([*options, *files], plugins=[Runner(guarded)])
    finally:
        os.chdir(folder)
        shutil.rmtree(scratch, ignore_errors=True)
    if failures:
        raise failures[0]
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {status!r}: see its output above")


@contextmanager
def _forked(runner: Runner, items: list[pytest.Item], mutant: mutants.Mutant | None) -> Iterator[dict]:
    """Run tests in a forked process, and remove its files. Yields what it wrote, and the signal that ended it."""
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
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _kill_group(process: int) -> None:
    """End what a mutant started and left behind."""
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _child(runner: Runner, items: list[pytest.Item], mutant: mutants.Mutant | None, scratch: Path) -> None:
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
