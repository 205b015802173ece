"""What the benchmarks share: folders, the command line, a process for each case, rounds in turn, and the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
RATE = 16000  # Hz

sys.path.insert(0, str(ROOT))  # scripts also run where the package is not installed


def parser_of(documentation: str) -> argparse.ArgumentParser:
    """A parser whose help shows a script's docstring as it is written."""
    return argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_in_new_process(*arguments, environment: dict[str, str] | None = None) -> dict:
    """Run a Python script in a new process, so that its memory and its caches start empty.

    Args:
        arguments: Arguments of the Python interpreter: the script and its options.
        environment: Variables to add to those of this process.

    Returns:
        The JSON object in the last line that the script printed.

    Raises:
        CalledProcessError: If the script fails; its error is printed.
    """
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, **(environment or {})}
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(process.stdout.splitlines()[-1])


def measure_in_turn(measurements: dict[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """Measure alternatives in turn, so that a slow phase of the machine affects all of them.

    Args:
        measurements: Functions that take the number of the round and return a measurement.
        rounds: Number of rounds; one more is run before them and not counted.

    Returns:
        The measurements of each function, one for each round.
    """
    results = {name: [] for name in measurements}
    for number in range(rounds + 1):
        for name, measure in measurements.items():
            value = measure(number)
            if number:
                results[name].append(value)
    return results


def largest(is_possible: Callable[[int], bool], least: int, most: int) -> int:
    """The largest number from `least` to `most` that is possible, to about 5 %; 0 if `least` is not.

    Args:
        is_possible: Whether a number is possible; if one is, all smaller ones are.
        least: The smallest number that is tried.
        most: The largest number that is tried.
    """
    if not is_possible(least):
        return 0
    low, high = least, 2 * least
    while high <= most and is_possible(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        low, high = (middle, high) if is_possible(middle) else (low, middle)
    return low


def peak_mib() -> float:
    """Peak resident memory of this process so far, in MiB.

    On Linux it is read from the process's own status: `ru_maxrss` begins with the memory of the process that started
    this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def machine() -> str:
    """The machine and the versions of the libraries, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{len(os.sched_getaffinity(0))} {platform.machine()} cores, {torch.get_num_threads()} of them used"
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    return f"{cores}, {memory:.0f} GiB of memory, {gpu}; {versions}"
