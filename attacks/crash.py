"""Attack on training: it is killed, its files are damaged, its disk is full, and it gets SIGTERM.

    python attacks/crash.py --minutes 8 --record attacks/records/crash.json

Each training has a tiny model on a CPU. After each case it is resumed with `--resume_from_checkpoint true`. Then its
folder must be that of an uninterrupted training: the same files, with the same SHA-256 but for times in the log.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

from attack import Attack, parse_options
from crash_cases import DAMAGES, Disturbances
from crash_launchers import LAUNCHERS, terminate_launcher
from crash_training import Trainings
from crash_variants import VARIANTS

RANDOM, WRITING = "SIGKILL at a random moment", "SIGKILL at an operation on a file"
FILES = ("optimizer.pt", "model.safetensors", "trainer_state.json", "checkpoint_files.json", "scheduler.pt")
FILES += ("rng_state.pth", "training_data.json", "run_identity.json", "config.json", "batches.json")
PLAIN, TWO, BEST = "one process", "two processes", "the best epoch kept"
STOPPED = ("gradient caching", "streamed Parquet shards", "a last step within an epoch")  # by SIGTERM, too
Case = tuple[str, str, Callable[[], object]]


def operations(crashes: Disturbances, variant: str, cached: bool = True) -> list[Case]:
    """A kill before each operation on a file, and within the writing of each file."""
    seen = crashes.operations(variant, cached)
    kind = WRITING + ("" if cached else ", while features are cached") + ("" if variant == PLAIN else f", {variant}")
    cases = []
    for number, (name, path) in enumerate(seen, 1):
        before = seen[number - 2] if number > 1 else ("", "")
        parts = (None, 0.0, 0.5) if before[0] in ("open", "write") and "lock" not in before[1] else (None,)
        for part in parts:
            what = f"{name} {path}" if part is None else f"{part:.0%} of {before[1]}"
            cases.append((kind, what, lambda n=number, p=part: crashes.kill_at(variant, n, p, cached)))
    return cases


def disk_cases(crashes: Disturbances, each: int, variants: tuple[str, ...] = (PLAIN,)) -> list[Case]:
    """Failing operations of the main process, and as root a file system that is too small."""
    cases: list[Case] = []
    for variant in variants:
        number, of = len(crashes.operations(variant)), "" if variant == PLAIN else f", {variant}"
        for code, kind in (
            (errno.ENOSPC, f"no space left from an operation on{of}"),
            (errno.EROFS, f"read-only from then on{of}"),
        ):
            cases += [
                (kind, f"operation {n}", lambda n=n, c=code, v=variant: crashes.fail_at(v, n, c))
                for n in sorted(crashes.chance.sample(range(2, number), each))
            ]
    if os.geteuid() == 0 and sys.platform == "linux":
        sizes = crashes.chance.sample(range(40, 2500), each)
        cases += [("full disk (tmpfs)", f"{size} KB", lambda s=size: crashes.full_disk(PLAIN, s)) for size in sizes]
    return cases


def terminations(crashes: Disturbances, attack: Attack, variants: tuple[str, ...]) -> Iterator[Case]:
    """SIGTERM, and how many trainings saved a checkpoint because of it."""

    def terminate(variant: str) -> None:
        attack.figures["trainings that SIGTERM stopped with a checkpoint"] = attack.figures.get(
            "trainings that SIGTERM stopped with a checkpoint", 0
        ) + (crashes.terminate(variant) == 143)

    for variant in variants:
        yield f"SIGTERM, {variant}", "", lambda v=variant: terminate(v)


def cases_of(crashes: Disturbances, attack: Attack) -> Iterator[Case]:
    """A few cases of each kind, in rounds without end."""
    small, chance = attack.options.small, crashes.chance
    shared = [
        ("two trainings in one folder", "", lambda: crashes.two_in_one_folder(PLAIN)),
        ("two trainings with one cache", "", lambda: crashes.two_with_one_cache(PLAIN)),
    ]
    every = operations(crashes, PLAIN)
    in_checkpoint = [case for case in every if "run/checkpoint-4" in case[1]]
    damages = [
        ("a damaged file in the last checkpoint", f"{name} {how}", lambda n=name, h=how: crashes.damage(PLAIN, n, h))
        for name in FILES
        for how in DAMAGES
    ]
    if small:
        yield from chance.sample(in_checkpoint, 1)
        yield f"{RANDOM}, {PLAIN}", "", lambda: crashes.kill_at_random(PLAIN)
        yield from chance.sample(damages, 1)
        yield from disk_cases(crashes, 1)
        yield shared[0]
        yield from terminations(crashes, attack, (PLAIN,))
        return
    others = (operations(crashes, TWO), operations(crashes, PLAIN, cached=False))
    for number in count():
        for variant in VARIANTS:
            for _ in range(4 if variant == PLAIN else 1):
                yield f"{RANDOM}, {variant}", "", lambda v=variant: crashes.kill_at_random(v)
        yield from chance.sample(in_checkpoint, 4)
        for cases in (every, damages, damages, *others):
            yield from chance.sample(cases, 1)
        yield from disk_cases(crashes, 1, (PLAIN, f"{TWO}, {BEST}"))
        for variant in (BEST, f"{TWO}, {BEST}"):
            yield f"SIGKILL, then moved, {variant}", "", lambda v=variant: crashes.move(v)
        if not number:
            for variant in VARIANTS:
                yield "resumed after its last step", variant, lambda v=variant: crashes.resume_at_end(v)
            yield from shared
            for name in LAUNCHERS:
                yield "SIGTERM to a launcher, two processes", name, lambda n=name: terminate_launcher(crashes, n)
        yield from terminations(crashes, attack, (PLAIN, TWO, *STOPPED))


def main() -> None:
    """Run the cases."""
    only = ("--only",), {"default": "", "help": "only the cases whose kind has this text"}
    attack = Attack("crash", parse_options(__doc__, only))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no folder behind
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        crashes = Disturbances(Trainings(Path(folder)), random.Random(attack.options.seed))
        for kind, what, run in islice(cases_of(crashes, attack), 20 if attack.options.small else None):
            if attack.seconds_left() < 0:
                break
            if attack.options.only not in kind:
                continue
            with attack.case(kind, what):
                run()
    attack.finish()


if __name__ == "__main__":
    main()
