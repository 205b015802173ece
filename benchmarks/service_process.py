"""A service in a process of its own, and recordings to send, for `service_load.py` and the programs in attacks."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import soundfile
from harness import RATE, ROOT


def synthetic(seed: int) -> bytes:
    """A noisy tone of 0.5 to 8 s, as FLAC."""
    numbers = np.random.default_rng(seed)
    times = np.arange(int(numbers.uniform(0.5, 8) * RATE)) / RATE
    wave = 0.2 * np.sin(2 * np.pi * numbers.uniform(100, 900) * times) + 0.02 * numbers.standard_normal(len(times))
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="FLAC")
    return file.getvalue()


def recordings(count: int) -> tuple[list[bytes], str]:
    """The recordings, and what they are."""
    folder = os.environ.get("GEMOCLAP_CORPORA")
    if not folder:
        return [synthetic(seed) for seed in range(count)], "synthetic tones of 0.5 to 8 s"
    paths = sorted(path for path in Path(folder).rglob("*.*") if path.suffix in (".flac", ".wav"))
    return [path.read_bytes() for path in random.sample(paths, count)], "clips of Emo-DB, RAVDESS and nEMO"


@contextmanager
def service(model: str, folder: str, *options: str):
    """The process and the address of the service, whose temporary files are in `folder`."""
    command = [sys.executable, "-m", "modeling_gemoclap", "serve", "--model", model, "--port", "0", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield psutil.Process(process.pid), re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.terminate()
        assert process.wait(60) == 0, "the service did not end by itself"


def peak_during(process: psutil.Process, call) -> tuple:
    """The result of a call, and the peak of a process's memory above that before it, in MiB."""
    before, done, samples = process.memory_info().rss, threading.Event(), []

    def sample():
        while not done.is_set():
            samples.append(process.memory_info().rss)
            time.sleep(0.005)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        result = call()
    finally:
        done.set()
        thread.join()
    return result, (max(samples) - before) / 2**20


def header_of_a_pipe() -> bytes:
    """The header of a WAV that does not tell its length."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1), RATE, format="WAV")
    header = bytearray(file.getvalue()[:44])
    header[4:8] = header[40:44] = b"\xff" * 4
    return bytes(header)
