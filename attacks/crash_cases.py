"""Trainings that are disturbed: by damaged files, a full disk, another training, a signal."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import crash_faults as faults
from crash_content import log_of, refuse_difference, wait_for_checkpoint
from crash_kills import Kills

LAST = "checkpoint-6"  # the trainings have six steps, and save every second
RESUME = ("--resume_from_checkpoint", "true")
DAMAGES = ("emptied", "halved", "changed", "removed")


class Disturbances(Kills):
    """Disturbed trainings; arguments as for `Kills`."""

    def damage(self, variant: str, name: str, how: str) -> None:
        """A file of the last checkpoint is damaged, as by a power loss. It is named, and passed over.

        Without the record of its files, the checkpoint is used with a warning, since its path is given.
        """
        whole, _, source = self.whole(variant)
        place = self.trainings.new_place()
        shutil.copytree(source / "run", place / "run")
        path = place / "run" / LAST / name
        data = path.read_bytes()
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"emptied": b"", "halved": data[:middle], "changed": changed, "removed": b""}[how])
        if how == "removed":
            path.unlink()
        status = self.trainings.wait(self.trainings.start(place, variant, "--resume_from_checkpoint", f"run/{LAST}"))
        if (name, how) == ("checkpoint_files.json", "removed"):
            if status or f"{LAST} has no {name}, so its files are not checked" not in log_of(place):
                raise AssertionError(f"no warning, status {status}: {log_of(place)[-300:]}")
        else:
            self._refused(place, status, LAST)
        self.finish(place, variant, whole)

    @staticmethod
    def _refused(place: Path, status: int, *named: str) -> None:
        """Check that a training ended with status 1, and each process with one sentence that names something."""
        log = log_of(place)
        logs = [path.read_text(errors="replace").splitlines() for path in place.glob("log-*")]
        sentences = [line for lines in logs for line in lines if line.startswith("train.py: ")]
        named_in = [line for line in sentences if all(name in line for name in named)]
        others = [line for line in sentences if "another process ended" in line]  # one that wrote nothing then
        clear = named_in and len(sentences) == len(logs) == len(named_in) + len(others)
        if status != 1 or not clear or "Traceback" in log:
            raise AssertionError(f"no clear sentence with {named}, status {status}: {log[-300:]}")

    def fail_at(self, variant: str, number: int, code: int) -> None:
        """All operations on files fail from a certain one on, as on a full disk or in a read-only folder."""
        whole, place = self.whole(variant)[0], self.trainings.new_place()
        pids = self.trainings.start(
            place, variant, before=lambda: faults.fail_at([place / "run"], number, code, always=True)
        )
        self._refused(place, self.trainings.wait(pids), str(place) if code != errno.ENOSPC else "the disk is full")
        self.finish(place, variant, whole)

    def full_disk(self, variant: str, kilobytes: int) -> None:
        """A file system that is too small; needs the rights of root. It is enlarged afterwards."""
        whole, place = self.whole(variant)[0], self.trainings.new_place()
        (place / "run").mkdir()
        small = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place / "run"]
        subprocess.run(small, check=True)  # as root
        try:
            status = self.trainings.wait(self.trainings.start(place, variant))
            self._refused(place, status, "the disk is full (")
            subprocess.run(["mount", "-o", "remount,size=64m", place / "run"], check=True)  # as root  # nosec B607
            self.trainings.finish(place, variant)
            refuse_difference(place, whole)
        finally:
            subprocess.run(["umount", place / "run"], check=True)  # as root  # nosec B607

    def two_in_one_folder(self, variant: str) -> None:
        """A training begins in the folder of another that is suspended."""
        whole, place = self.whole(variant)[0], self.trainings.new_place()
        number = 3 + self.chance.randrange(60)

        def suspend(count: int, operation: str, path: str) -> None:
            if count == number:
                os.kill(os.getpid(), signal.SIGSTOP)

        pids = self.trainings.start(place, variant, before=lambda: faults.Watch([place / "run"], suspend))
        os.waitpid(pids[0], os.WUNTRACED)
        log = place / "log-0"
        log.rename(place / "first")
        for more in (RESUME, ()):
            status = self.trainings.wait(self.trainings.start(place, variant, *more, before=_be_impatient))
            self._refused(place, status, "run")
        os.kill(pids[0], signal.SIGCONT)
        if self.trainings.wait(pids):
            raise AssertionError(f"the first training was disturbed: {(place / 'first').read_text()[-300:]}")
        refuse_difference(place, whole)

    def two_with_one_cache(self, variant: str) -> None:
        """Two trainings fill one cache of features at the same time."""
        whole, cache = self.whole(variant)[0], self.trainings.new_place() / "features"
        places = [self.trainings.new_place() for _ in range(2)]
        running = [self.trainings.start(place, variant, "--feature_cache_dir", str(cache)) for place in places]
        for place, pids in zip(places, running, strict=True):
            if self.trainings.wait(pids):
                raise AssertionError(f"it ends with an error: {log_of(place)[-300:]}")
            refuse_difference(place, whole)

    def terminate(self, variant: str) -> int:
        """SIGTERM to one process after the first checkpoint; returns the exit status."""
        whole, place = self.whole(variant)[0], self.trainings.new_place()
        pids = self.trainings.start(place, variant)
        wait_for_checkpoint(place)
        time.sleep(self.chance.uniform(0, 0.1))
        os.kill(self.chance.choice(pids), signal.SIGTERM)
        status = self.trainings.wait(pids)
        log = log_of(place)
        if status == 143:
            sentences = [line for line in log.splitlines() if "stopped by SIGTERM after step" in line]
            if not sentences or "Traceback" in log:
                raise AssertionError(f"no clear sentence: {log[-300:]}")
        elif status not in (0, -signal.SIGTERM):  # it had finished, or was writing the finished model
            raise AssertionError(f"status {status}: {log[-300:]}")
        self.trainings.finish(place, variant)
        refuse_difference(place, whole, stopped=True)
        return status


def _be_impatient() -> None:
    """A training that waits only a moment for the lock of a folder."""
    from modeling_gemoclap.runs import lock

    lock.SECONDS = 0.2
