"""Several processes that share the recordings of one command, started by `accelerate launch` or `torchrun`."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ..command_line.failures import UsageError
from .files import FilePredictor
from .predictions import predict
from .recordings import STDIN, Recordings, read_input

LONGEST_WAIT = timedelta(weeks=4)  # of a process for those that have more to do


@dataclass(frozen=True)
class Processes:
    """The processes of a launch.

    Args:
        rank: Number of this process; process 0 writes the results.
        count: Number of processes.
        local_rank: Number of this process on its machine, which is the number of its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def device(self, device: str | None) -> str | None:
        """The device of this process.

        Args:
            device: The device that was asked for; None selects a GPU if there is one.
        """
        if self.count == 1 or device not in (None, "cuda"):
            return device
        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else device

    def share(self, names: Sequence[str]) -> list[str]:
        """The recordings of this process, in their order. All processes have about as many bytes to read.

        Process 0 divides them: a file whose size changes must not be in two shares or in none.
        """
        return self.from_main(shares_by_size(names, self.count) if self.is_main else None)[self.rank]

    @contextmanager
    def connected(self):
        """Let the processes exchange results."""
        if self.count == 1 or dist.is_initialized():
            yield
            return
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def from_main(self, value):
        """The value of process 0, in every process."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def to_main(self, value) -> list:
        """The values of all processes, by rank, in process 0; in the others nothing."""
        if self.count == 1:
            return [value]
        values = [None] * self.count if self.is_main else None
        dist.gather_object(value, values)
        return values or []


def launched_processes() -> Processes:
    """The processes of the launch that started this one, from `RANK`, `WORLD_SIZE` and `LOCAL_RANK`."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if any(not os.environ.get(name, "").isdigit() for name in names) or int(os.environ["WORLD_SIZE"]) < 2:
        return Processes()
    return Processes(*(int(os.environ[name]) for name in names))


def refuse_unshared(processes: Processes, recordings: Recordings, output: str | None, report: str | None) -> None:
    """Refuse what several processes cannot share.

    Args:
        processes: The processes.
        recordings: The recordings.
        output: The file of the results.
        report: The page on the recordings.

    Raises:
        ValueError: If several processes would write to the standard output, read the standard input or make a report.
    """
    if processes.count == 1:
        return
    if output is None:
        raise UsageError(f"{processes.count} processes cannot share the standard output: give --output FILE")
    if STDIN in recordings.names:
        raise UsageError(f"{processes.count} processes cannot share the standard input: give files or folders")
    if report is not None:
        raise UsageError(
            f"--report needs one process, and {processes.count} were started: make it without the launcher"
        )


def shares_by_size(names: Sequence[str], count: int) -> list[list[str]]:
    """Divide files so that the shares have about the same number of bytes.

    Args:
        names: Paths.
        count: Number of shares.

    Returns:
        The shares, each in the order of `names`.
    """
    sizes = {name: os.path.getsize(name) if os.path.isfile(name) else 0 for name in names}
    places = {name: place for place, name in enumerate(names)}
    shares = [(0, 0, number, []) for number in range(count)]  # bytes, files, number
    for name in sorted(names, key=lambda name: -sizes[name]):
        size, files, number, share = shares[0]
        share.append(name)
        heapq.heapreplace(shares, (size + sizes[name], files + 1, number, share))
    return [sorted(share, key=places.__getitem__) for *_, share in sorted(shares, key=lambda share: share[2])]


class SharedPredictor(FilePredictor):
    """Predicts in several processes, each a share of the recordings, into one file in the order of the recordings.

    Each process writes its rows to a file of its own beside the output, as they are made. Process 0 merges these files
    at the end, or after an interruption at the beginning of the next run.

    Args:
        processes: The processes, which are connected.
        arguments: Those of `FilePredictor`.
    """

    def __init__(self, processes: Processes, *arguments):
        super().__init__(*arguments)
        self.processes = processes

    def run(self) -> None:
        """Predict and write; see `FilePredictor`. `errors` and counts of process 0 are those of all processes."""
        processes, todo = self.processes, None
        with ExitStack() as stack:
            try:
                if processes.is_main:
                    file = stack.enter_context(self.file.open())
                    todo = self.recordings.without(file.done).names
            finally:
                todo = processes.from_main(todo)
            if todo is None:
                return  # process 0 reports why it cannot write the file
            self.skipped = len(self.recordings) - len(todo)
            self._predict_share(processes.share(todo))
            results = processes.to_main((self.errors, self.rejected))
            if processes.is_main:
                self.errors = [error for errors, _ in results for error in errors]
                self.rejected = sum(rejected for _, rejected in results)
                self._refuse_missing(self.file.merge(self.recordings.names))

    def _refuse_missing(self, names: list[str]) -> None:
        if names:
            raise ValueError(
                f"{self.file.path}: {len(names)} recordings have no result, such as {names[0]!r}: all processes must "
                f"see the same folder of --output; start the command again, it continues the file"
            )

    def _predict_share(self, names: list[str]) -> None:
        answers = predict(self.pipe, list(map(read_input, names)), self.options, on_error="return")
        with self.file.open_part(self.processes.rank) as write:
            for name, answer in zip(self._with_progress(names), answers, strict=True):
                if isinstance(answer, str):
                    self.errors.append(answer)
                else:
                    self.rejected += answer.rejected
                write(name, answer)
