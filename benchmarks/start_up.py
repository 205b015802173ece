"""Measure how long the package and the command take to start, and where the time of `gemoclap predict` goes.

    python benchmarks/start_up.py

Every measurement is a new process on one thread, and the alternatives are run in turn. The recording is a synthetic
tone of 3 s.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from documents import render, write_section
from harness import RATE, ROOT, measure_in_turn, parser_of, run_in_new_process

IMPORTS = ("torch", "transformers", "modeling_gemoclap")
PARTS = {  # of `gemoclap predict`, in the order in which a process runs them
    "import": "import modeling_gemoclap.inference.files, modeling_gemoclap.inference.loading",
    "load": "pipe = modeling_gemoclap.inference.loading.load_pipeline(MODEL)",
    "first": "answer = next(iter(pipe([CLIP], batch_size=1)))",
    "second": "answer = next(iter(pipe([CLIP], batch_size=1)))",
}
TIMED = """
import json, sys, time
MODEL, CLIP = sys.argv[1:]
times = {{}}
{}
print(json.dumps(times))
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def seconds_of(*arguments: str) -> float:
    """Time of a Python process, in seconds."""
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD})
    return time.perf_counter() - start


def parts_of_predict(model: str, clip: Path) -> dict[str, float]:
    """Times of the parts of a prediction within one process, in seconds."""
    steps = (
        f"start = time.perf_counter(); {code}; times[{part!r}] = time.perf_counter() - start"
        for part, code in PARTS.items()
    )
    return run_in_new_process("-c", TIMED.format("\n".join(steps)), model, clip, environment=ONE_THREAD)


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "tone.wav")
        soundfile.write(clip, 0.3 * np.sin(2 * np.pi * 200 * np.arange(3 * RATE) / RATE), RATE)
        predict = ("-m", "modeling_gemoclap", "predict", str(clip), "--quiet", "--model")
        processes = {name: ("-c", f"import {name}") for name in IMPORTS}
        processes |= {"help": ("-m", "modeling_gemoclap", "--help")}
        processes |= {model: (*predict, model) for model in ("base", "compact")}
        measured = measure_in_turn(
            {name: lambda _, words=words: seconds_of(*words) for name, words in processes.items()}, rounds
        )
        times = {name: statistics.median(values) for name, values in measured.items()}
        parts = [{model: parts_of_predict(model, clip) for model in ("base", "compact")} for _ in range(rounds)]
    medians = {
        model: {part: statistics.median(values[model][part] for values in parts) for part in PARTS}
        for model in ("base", "compact")
    }
    write_section("python benchmarks/start_up.py", render("start_up", times=times, parts=medians, rounds=rounds))
    print(json.dumps({"times": times, "parts": medians}))


if __name__ == "__main__":
    main()
