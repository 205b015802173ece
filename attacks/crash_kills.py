"""Trainings that are killed, resumed, and compared with uninterrupted ones."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import crash_faults as faults
from crash_content import content_of, log_of, refuse_difference, wait_for_checkpoint
from crash_training import Trainings


class Kills:
    """Interrupted trainings.

    Args:
        trainings: Where they run.
        chance: Random numbers.
    """

    def __init__(self, trainings: Trainings, chance: random.Random):
        self.trainings, self.chance = trainings, chance
        self._operations: dict[tuple[str, bool], list[tuple[str, str]]] = {}
        self._whole: dict[str, tuple[dict[str, str], float, Path]] = {}

    def whole(self, variant: str) -> tuple[dict[str, str], float, Path]:
        """The files of an uninterrupted training, its seconds, and its folder."""
        if variant not in self._whole:
            place = self.trainings.new_place()
            start = time.monotonic()
            self.succeed(place, variant)
            self._whole[variant] = content_of(place), time.monotonic() - start, place
        return self._whole[variant]

    def succeed(self, place: Path, variant: str, *more: str) -> None:
        """Train without a disturbance."""
        if self.trainings.wait(self.trainings.start(place, variant, *more)):
            raise RuntimeError(f"it ends with an error: {log_of(place)[-300:]}")

    def operations(self, variant: str, cached: bool = True) -> list[tuple[str, str]]:
        """The operations on files of the main process: name, and path in the place of the training."""
        if (variant, cached) in self._operations:
            return self._operations[variant, cached]
        place, file = self.trainings.new_place(), self.trainings.folder / "operations"
        more = () if cached else ("--feature_cache_dir", str(place / "features"))
        watched = [place / "run", place / "features"]
        pids = self.trainings.start(place, variant, *more, before=lambda: faults.record(watched, file))
        if self.trainings.wait(pids):
            raise RuntimeError(log_of(place)[-300:])
        lines = (line.split("\t") for line in file.read_text().splitlines())
        self._operations[variant, cached] = [(name, os.path.relpath(path, place)) for name, path in lines]
        return self._operations[variant, cached]

    def kill_at_random(self, variant: str) -> None:
        """SIGKILL of all processes at a random moment."""
        whole, seconds, _ = self.whole(variant)
        place = self.trainings.new_place()
        pids = self.trainings.start(place, variant)
        time.sleep(self.chance.uniform(0.1, seconds))
        self._kill(pids)
        self.finish(place, variant, whole)

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.trainings.wait(pids)

    def kill_at(self, variant: str, number: int, part: float | None, cached: bool = True) -> None:
        """SIGKILL before an operation on a file, or within the writing of the previous file."""
        whole, place = self.whole(variant)[0], self.trainings.new_place()
        more = () if cached else ("--feature_cache_dir", str(place / "features"))
        watched = [place / "run", place / "features"]
        status = self.trainings.wait(
            self.trainings.start(place, variant, *more, before=lambda: faults.kill_at(watched, number, part))
        )
        if status != -signal.SIGKILL:
            raise AssertionError(f"it was not killed: {status}")
        self.finish(place, variant, whole, more)

    def resume_at_end(self, variant: str) -> None:
        """A training is resumed after its last step."""
        whole, _, source = self.whole(variant)
        place = self.trainings.new_place()
        shutil.copytree(source / "run", place / "run")
        (place / "run/model.safetensors").unlink()
        self.finish(place, variant, whole)

    def move(self, variant: str) -> None:
        """SIGKILL after the first checkpoint; the folder is moved before it is resumed. Only weights are compared."""
        whole, first, second = self.whole(variant)[0], self.trainings.new_place(), self.trainings.new_place()
        pids = self.trainings.start(first, variant, "--output_dir", str(first / "run"))
        wait_for_checkpoint(first)
        time.sleep(self.chance.uniform(0, 0.3))
        self._kill(pids)
        (first / "run").rename(second / "run")
        self.trainings.finish(second, variant, "--output_dir", str(second / "run"))
        if content_of(second)["model.safetensors"] != whole["model.safetensors"]:
            raise AssertionError("other weights than those of the uninterrupted run")

    def finish(self, place: Path, variant: str, whole: dict[str, str], more: tuple[str, ...] = ()) -> None:
        """Resume, compare with the whole training, and remove the folder."""
        self.trainings.finish(place, variant, *more)
        refuse_difference(place, whole)
        shutil.rmtree(place)
