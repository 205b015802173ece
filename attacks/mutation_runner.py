"""Runs tests against mutants: pytest collects once, and a process is forked for each mutant.

The tests that killed other mutants of a function run first, then the shortest.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import mutants
import pytest
from attack import ROOT
from mutation_process import forked

SLOW_TEST = 1.0  # seconds: longer tests are left out
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
        self.killers: dict[tuple[str, str], list[str]] = {}
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
            with forked(self, items, None) as answer:
                if "failed" in answer or "seconds" not in answer:
                    raise RuntimeError(f"{answer.get('failed', prefixes)} fails without mutants: {answer.get('why')}")
                self.seconds |= answer["seconds"]
            quick = [item for item in items if self.seconds[item.nodeid] <= SLOW_TEST]
            self.orders[prefixes] = sorted(quick, key=lambda item: self.seconds[item.nodeid])
        return self.orders[prefixes]

    def judge(self, mutant: mutants.Mutant, prefixes: tuple[str, ...]) -> str:
        """Run tests against a mutant: `KILLED`, `TIMEOUT` or `SURVIVED`."""
        killers = self.killers.setdefault((mutant.module, mutant.function), [])
        ranks = {name: rank for rank, name in enumerate(killers)}
        items = sorted(self.tests_of(prefixes), key=lambda item: ranks.get(item.nodeid, len(ranks)))  # stable
        with forked(self, items, mutant) as answer:
            if "not made" in answer:
                raise RuntimeError(f"{mutant.key} cannot be put in place: {answer['not made']}")
            if "failed" in answer:
                killers[:] = [answer["failed"], *(name for name in killers if name != answer["failed"])]
                return KILLED
            if "seconds" in answer:
                return SURVIVED
            return TIMEOUT if answer["signal"] in (signal.SIGPROF, signal.SIGKILL) else KILLED


def run(files: list[str], work: Callable[[Runner], None], root: Path = ROOT) -> None:
    """Collect the quick tests of files, and do the work.

    Args:
        files: The files, relative to `root`.
        work: Called with the runner.
        root: The folder that pytest runs in.

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
        os.chdir(root)
        status = pytest.main([*options, *files], plugins=[Runner(guarded)])
    finally:
        os.chdir(folder)
        shutil.rmtree(scratch, ignore_errors=True)
    if failures:
        raise failures[0]
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {status!r}: see its output above")
