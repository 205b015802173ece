"""Run all attacks within a time limit, and write their records and the tables of docs/reliability.md.

    python attacks/run.py [--minutes 40] [--small] [ATTACK ...]

`make attack` runs this. `make attack SMALL=1` tries a few cases of each kind and writes nothing. Two programs run
at a time. The exit status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attack import RECORDS, ROOT
from reliability import ATTACKS, write_page

AT_A_TIME = 2
MARGIN = 300  # seconds that a program may need beyond its time limit


def run(name: str, minutes: float, record: Path, options: argparse.Namespace) -> tuple[str, int | None, str]:
    """Run one attack in a process of its own.

    Args:
        name: Name of the attack.
        minutes: Its time limit. A process that runs much longer is stopped.
        record: The JSON file that it writes.
        options: Options of this program.

    Returns:
        The name, the exit status (None: it was stopped), and what it printed.
    """
    command = [sys.executable, f"attacks/{name}.py", "--minutes", f"{minutes:.2f}", "--record", str(record)]
    command += ["--seed", str(options.seed), *(["--small"] if options.small else [])]
    # Parallel operations of torch hang in forked processes, and the programs share the cores.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=60 * minutes + MARGIN, **pipes)
    except subprocess.TimeoutExpired as error:
        output = error.stdout or ""
        return name, None, output if isinstance(output, str) else output.decode(errors="replace")
    return name, done.returncode, done.stdout


def main() -> None:
    """Run the attacks, longest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"some of {', '.join(ATTACKS)}; all by default")
    parser.add_argument("--minutes", type=float, default=40.0, help="time limit of all attacks together")
    parser.add_argument("--small", action="store_true", help="only a few cases of each kind; nothing is written")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is chosen at random")
    options = parser.parse_args()
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"unknown attacks: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    names = sorted(options.attacks or ATTACKS, key=lambda name: -ATTACKS[name].share)
    unit = options.minutes * min(AT_A_TIME, len(names)) / sum(ATTACKS[name].share for name in names)
    start, failed = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_A_TIME) as pool:
        records = Path(folder) if options.small else RECORDS
        jobs = [(name, unit * ATTACKS[name].share, records / f"{name}.json", options) for name in names]
        for name, status, output in pool.map(lambda job: run(*job), jobs):
            print(f"== {name}: {'stopped, far beyond its time limit' if status is None else f'status {status}'}")
            print(output.rstrip() if status else "\n".join(output.splitlines()[-20:]), flush=True)
            failed += [name] if status != 0 else []
    if not options.small:
        write_page()
    print(f"{len(names)} attacks in {(time.monotonic() - start) / 60:.1f} min; {', '.join(failed) or 'none'} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
