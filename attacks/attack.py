"""What the attacks share: the command line, the time limit, and the record of what was tried and what was lost."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORDS, FINDINGS = ROOT / "attacks" / "records", ROOT / "attacks" / "findings"
MESSAGE = 400  # characters of a message in a record

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # scripts also run where the package is not installed


class Attack:
    """One attack: it counts the cases that were tried, and keeps those in which a promise was broken.

    Args:
        name: Name of the program without `.py`.
        options: The options of `parse_options`.

    Attributes:
        tried: Number of cases by their kind.
        lost: One sentence for each case in which something was lost: data, an answer, equality, or the process.
        figures: Other figures that were measured, by their names.
    """

    def __init__(self, name: str, options: argparse.Namespace):
        self.name, self.options = name, options
        self.tried: Counter[str] = Counter()
        self.lost: list[str] = []
        self.figures: dict[str, float | int | str] = {}
        self.start = time.monotonic()

    def seconds_left(self) -> float:
        """Seconds until the time limit of the options; negative after it."""
        return self.start + 60 * self.options.minutes - time.monotonic()

    @contextmanager
    def case(self, kind: str, what: str = "") -> Iterator[None]:
        """Count a case. An exception within this context is recorded as a loss, and the attack goes on.

        Args:
            kind: Kind of the case; a row of the table.
            what: What distinguishes this case from others of its kind, for the record.
        """
        self.tried[kind] += 1
        try:
            yield
        except Exception as error:
            message = f"{type(error).__name__}: {error}".replace(f"{tempfile.gettempdir()}/", "").strip()[:MESSAGE]
            self.lost.append(f"{kind}{f' ({what})' if what else ''}: {message}")
            print(f"LOST {self.lost[-1]}", flush=True)

    def finish(self) -> None:
        """Print the record, write it to `--record`, and exit with status 1 if anything was lost or nothing tried."""
        seconds = round(time.monotonic() - self.start, 1)
        record = {"attack": self.name, "seed": self.options.seed, "small": self.options.small, "seconds": seconds}
        record |= {"tried": dict(self.tried), "lost": self.lost, "figures": self.figures}
        if self.options.record:
            record["run"] = self._run()
            self.options.record.parent.mkdir(parents=True, exist_ok=True)
            self.options.record.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for kind, number in self.tried.items():
            print(f"{self.name}: {kind}: {number} tried")
        for name, value in self.figures.items():
            print(f"{self.name}: {name}: {value}")
        print(f"{self.name}: {self.tried.total()} tried, {len(self.lost)} lost, {seconds} s", flush=True)
        sys.exit(bool(self.lost) or not self.tried)

    def _run(self) -> dict[str, str]:
        """Where a record comes from."""
        from harness import machine  # imports torch

        command = f"python attacks/{self.name}.py --minutes {self.options.minutes:g} --seed {self.options.seed}"
        return {"command": command, "date": date.today().isoformat(), "commit": commit(), "machine": machine()}


def commit() -> str:
    """The commit of this tree, and whether files other than the results of attacks differ from it."""
    git = ["git", "-C", str(ROOT)]
    results = (f":!{RECORDS.relative_to(ROOT)}", ":!docs/reliability.md")
    head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno", "--", ".", *results], capture_output=True)
    if head.returncode or changed.returncode:
        return "unknown"
    return head.stdout.strip() + (" with changes" if changed.stdout else "")


def parse_options(documentation: str, *arguments: tuple[tuple, dict]) -> argparse.Namespace:
    """Parse the options of an attack.

    Args:
        documentation: The docstring of the program, for its help.
        arguments: Arguments of `add_argument` for options of this attack alone.
    """
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="time limit: no new case begins after it")
    parser.add_argument("--small", action="store_true", help="only a few cases of each kind")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is chosen at random")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    for names, options in arguments:
        parser.add_argument(*names, **options)
    return parser.parse_args()
