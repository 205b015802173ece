"""The pipeline in one process, called from 200 threads at the same time."""

from __future__ import annotations

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from attack import Attack
from load_memory import Measured
from service_clients import TOLERANCE
from service_process import recordings

from modeling_gemoclap.command_line.memory import return_free_memory
from modeling_gemoclap.inference.loading import load_pipeline

ANSWERS = "pipeline: a call among 200 threads has the answer that it has alone"
OWN_LABELS = ["furious", "gloomy", "cheerful"]


def _scores(answer: list[dict]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in answer}


def run(attack: Attack, place: Path, until: float) -> None:
    """Rounds of calls until a time, half of them with labels of their own."""
    small = attack.options.small
    data, _ = recordings(6 if small else 60)
    count, rounds = (8, 1) if small else (200, None)
    pipe, measured = load_pipeline("compact", "cpu"), Measured(psutil.Process())
    calls = [(clip, {"candidate_labels": OWN_LABELS} if number % 2 else {}) for number, clip in enumerate(data)]
    quiet = [_scores(pipe(clip, **options)) for clip, options in calls]
    before = threading.active_count()
    while rounds is None or rounds > len(measured.requests):
        if measured.requests and time.monotonic() >= until:
            break
        numbers = [number % len(calls) for number in range(count)]
        start = threading.Barrier(count)

        def call(number: int, start=start) -> dict[str, float]:
            start.wait(60)
            clip, options = calls[number]
            return _scores(pipe(clip, **options))

        attack.tried[ANSWERS] += count - 1
        with attack.case(ANSWERS), ThreadPoolExecutor(count) as threads:
            for number, found in zip(numbers, threads.map(call, numbers), strict=True):
                wanted = quiet[number]
                assert found.keys() == wanted.keys(), found
                assert all(abs(found[key] - wanted[key]) <= TOLERANCE for key in wanted), (found, wanted)
        gc.collect()
        return_free_memory()  # what the C library keeps for later is a random walk
        measured.add(count)
    with attack.case("pipeline: memory, files and threads over all rounds"):
        assert threading.active_count() <= before, threading.enumerate()
        measured.check()
    with attack.case("pipeline: files that are left"):
        assert not os.listdir(place)
    attack.figures |= measured.figures("pipeline")
