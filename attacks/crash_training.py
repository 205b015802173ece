"""Trainings of tiny models in processes that are forked from this one."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from attack import ROOT
from crash_content import log_of
from crash_variants import OPTIONS, TWO_CORPORA, VARIANTS

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
TIMEOUT = 120.0  # seconds of a training that hangs
GRACE = 5.0  # seconds that the other processes have when one has failed, to say what they know


class Trainings:
    """Trains in folders below one, from corpora and caches that all trainings share.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path):
        sys.path[:0] = [str(ROOT / "tests")]
        from conftest import write_corpus

        from modeling_gemoclap.command_line.failures import run_main
        from modeling_gemoclap.corpora.shards import main as write_shards
        from modeling_gemoclap.runs.train import main

        self.folder, self._main, self._run_main, self.count = folder, main, run_main, 0
        self._write_corpus, self._write_shards = write_corpus, write_shards
        os.environ["HF_HOME"] = str(folder / "hf")
        write_corpus(folder / "tones", clips=3)

    def corpus(self, name: str) -> str:
        """The folder of `tones`, of `others` by other speakers, or of `shards` of the tones."""
        path = self.folder / name
        if not path.exists() and name == "others":
            self._write_corpus(path, clips=3, salt="x")
        elif not path.exists():
            self.in_child(lambda: self._write_shards([str(self.folder / "tones"), str(path)]), self.folder / "log")
        return str(path)

    def options(self, variant: str, *more: str) -> list[str]:
        """The options of a variant; the output folder is `run` in the present folder of the process."""
        options, _, corpus = VARIANTS[variant]
        corpora, more = (
            (("tones", "others"), more) if corpus == TWO_CORPORA else ((corpus,), ("--exclude_speakers", "04", *more))
        )
        data = ("--data_dir", *map(self.corpus, corpora), "--output_dir", "run")
        cache = () if "--feature_cache_dir" in more else ("--feature_cache_dir", str(self.folder / "features"))
        return [*OPTIONS, *options, *data, *cache, *more]

    def new_place(self) -> Path:
        """A new empty folder for a training."""
        self.count += 1
        place = self.folder / f"place-{self.count}"
        place.mkdir()
        return place

    def start(self, place: Path, variant: str, *more: str, before: Callable[[], None] | None = None) -> list[int]:
        """Start the processes of a training in a folder, and return their ids. `before` is called in the first."""
        processes = VARIANTS[variant][1]
        sys.argv = ["train.py", *self.options(variant, *more)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        pids = []
        for rank in range(processes):
            variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), **address}

            def work(rank=rank, variables=variables if processes > 1 else {}):
                os.environ.update(variables)
                os.chdir(place)
                if before is not None and not rank:
                    before()
                self._run_main("train.py", self._main)

            pids.append(self._fork(work, place / f"log-{rank}"))
        return pids

    def wait(self, pids: list[int]) -> int:
        """Wait for processes and return the exit status of the first that fails, or 0; a signal is negative.

        If one fails, the others are ended after a while, as a launcher does.
        """
        waiting, status, failed, end = list(pids), 0, None, time.monotonic() + TIMEOUT
        while waiting:
            for pid in tuple(waiting):
                done, code = os.waitpid(pid, os.WNOHANG)
                if done:
                    waiting.remove(pid)
                    status = status or os.waitstatus_to_exitcode(code)
            failed = failed or (status not in (0, 128 + signal.SIGTERM) and time.monotonic())
            late = time.monotonic() > end
            if waiting and (late or failed and time.monotonic() > failed + GRACE):
                for pid in waiting:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if late:
                    raise TimeoutError(f"a training hangs after {TIMEOUT:.0f} s")
                break
            time.sleep(0.005)
        return status

    def finish(self, place: Path, variant: str, *more: str) -> None:
        """Resume the training in a folder until it is finished. One without a checkpoint is started again."""
        for options in (("--resume_from_checkpoint", "true"), ()):
            if self.wait(self.start(place, variant, *options, *more)) == 0:
                return
            log = log_of(place)
            if "leave out --resume_from_checkpoint" not in log:
                break
        raise RuntimeError(f"it cannot be resumed: {log[-300:]}")

    def in_child(self, work: Callable[[], None], log: Path) -> None:
        """Do something in a process of its own, which prints to a file."""
        if self.wait([self._fork(work, log)]):
            raise RuntimeError(log.read_text()[-500:])

    @staticmethod
    def _fork(work: Callable[[], None], log: Path) -> int:
        pid = os.fork()
        if pid:
            return pid
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = 1
        try:
            work()
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
