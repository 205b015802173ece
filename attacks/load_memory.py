"""Memory, files and threads of a process over many requests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import psutil

GROWTH = 2.0  # MiB per 1,000 requests that the lower end of the interval may not exceed
FEWEST = 6  # measurements for a slope


@dataclass
class Measured:
    """What a process uses after each round of requests.

    Args:
        process: The process.
        requests: Number of requests so far, at each measurement.
        mib: Its resident memory.
        files: Its open files and connections.
        threads: Its threads.
    """

    process: psutil.Process
    requests: list[int] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def add(self, requests: int) -> None:
        """Measure after so many more requests."""
        self.requests.append(requests + (self.requests[-1] if self.requests else 0))
        self.mib.append(self.process.memory_info().rss / 2**20)
        self.files.append(self.process.num_fds())
        self.threads.append(self.process.num_threads())

    def slope(self) -> tuple[float, float]:
        """The growth of the memory in MiB per 1,000 requests by least squares, and its standard error.

        The first third of the measurements is left out: caches and the allocator fill in it.
        """
        start = len(self.requests) // 3
        x, y = np.array(self.requests[start:]) / 1000, np.array(self.mib[start:])
        centred = x - x.mean()
        slope = float(centred @ y / (centred @ centred))
        residuals = y - y.mean() - slope * centred
        return slope, float(np.sqrt(residuals @ residuals / (len(x) - 2) / (centred @ centred)))

    def figures(self, name: str) -> dict[str, float | int]:
        """The figures of a record."""
        found = {f"{name}: requests": self.requests[-1], f"{name}: memory at the end, MiB": round(self.mib[-1])}
        if len(self.requests) >= FEWEST:
            slope, error = self.slope()
            found[f"{name}: growth of the memory, MiB per 1,000 requests"] = round(slope, 2)
            found[f"{name}: standard error of it"] = round(error, 2)
        return found

    def check(self, pool: int = 8) -> None:
        """Check that neither memory nor files nor threads grow.

        Args:
            pool: Threads that may be added: the size of the pools of the server, which start a thread when needed.

        Raises:
            AssertionError: If they do.
        """
        assert self.files[-1] <= self.files[0] + 8, f"{self.files[0]} files at first, {self.files[-1]} at the end"
        assert max(self.threads) <= self.threads[0] + pool, f"threads: {self.threads[0]}, later {max(self.threads)}"
        if len(self.requests) >= FEWEST:
            slope, error = self.slope()
            assert slope - 2 * error < GROWTH, f"{slope:.2f} ± {error:.2f} MiB per 1,000 requests"
