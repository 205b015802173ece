"""SIGTERM to a launcher of two processes, as a cluster sends it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

from attack import ROOT
from crash_content import refuse_difference
from crash_kills import Kills

TWO = "two processes"
# accelerate launch uses torchrun on several GPUs; without GPUs it starts a single process.
LAUNCHERS = {"torchrun": ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")}


def terminate_launcher(crashes: Kills, name: str) -> None:
    """Start a training by a launcher, send it SIGTERM after the first checkpoint, and resume the training."""
    whole, place = crashes.whole(TWO)[0], crashes.trainings.new_place()
    script = [str(ROOT / "train.py"), *crashes.trainings.options(TWO)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with open(place / "printed", "wb") as printed:
        command = [sys.executable, "-m", *LAUNCHERS[name], *script]
        launcher = subprocess.Popen(command, cwd=place, env=env, stdout=printed, stderr=printed)
        end = time.monotonic() + 120
        while not list(place.glob("run/checkpoint-*/trainer_state.json")):
            if launcher.poll() is not None or time.monotonic() > end:
                launcher.kill()
                raise RuntimeError(f"it did not start: {(place / 'printed').read_text()[-300:]}")
            time.sleep(0.01)
        launcher.send_signal(signal.SIGTERM)
        status = launcher.wait(timeout=60)
    text = (place / "printed").read_text()
    if status == 0 or "stopped by SIGTERM after step" not in text:
        raise AssertionError(f"no checkpoint for SIGTERM, status {status}: {text[-300:]}")
    crashes.trainings.finish(place, TWO)
    refuse_difference(place, whole, stopped=True)
    shutil.rmtree(place)
