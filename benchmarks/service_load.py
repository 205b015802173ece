"""Load the HTTP service with clients that stay, go away or are slow, and compare every answer with the quiet one.

    python benchmarks/service_load.py

The service runs in a process of its own, on the loopback. The recordings are clips of the corpora in GEMOCLAP_CORPORA,
otherwise synthetic tones of 0.5 to 8 s.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
from documents import render, write_section
from harness import parser_of
from service_clients import TOLERANCE, run_round, send_zeros
from service_process import header_of_a_pipe, peak_during, recordings, service

from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.predictions import PredictionOptions, predict

LARGE = 2 * 2**30
OPTIONS = ("--upload-timeout", "4", "--max-concurrent-requests", "128")


def measure_round(process: psutil.Process, address: str, clips: list, options) -> dict:
    """One round: its outcomes, throughput, latencies, mean batch, and the memory of the service after it."""
    before = httpx.get(f"{address}/health").json()["queue"]
    numbers = {"stay": options.clients - 50, "leave": 40, "trickle": 10}
    start, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
    found = asyncio.run(run_round(address, clips, numbers, options.requests))
    seconds = time.perf_counter() - start
    cpu = sum(process.cpu_times()[:2]) - cpu
    time.sleep(1)
    after = httpx.get(f"{address}/health").json()["queue"]
    assert after["requests"] == after["waiting"] == 0, after
    assert found.lost == found.wrong == 0 and found.slow == numbers["trickle"], found
    assert found.answered == numbers["stay"] * options.requests
    latency = {share: float(np.percentile(found.latencies, share)) for share in (50, 95, 99)}
    processed = after["recordings"] - before["recordings"]
    values = {"rate": found.answered / seconds, "batch": processed / (after["batches"] - before["batches"])}
    values |= {"cpu": cpu / processed, "mib": process.memory_info().rss / 2**20}
    return values | {"found": found, "latency": latency}


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="base")
    parser.add_argument("--clients", type=int, default=200, help="clients at the same time, 50 of them not staying")
    parser.add_argument("--requests", type=int, default=4, help="requests of each client in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    random.seed(0)
    data, kind = recordings(160)
    pipe, bare, rounds = load_pipeline(options.model, "cpu"), [], []
    with tempfile.TemporaryDirectory() as folder, service(options.model, folder, *OPTIONS) as (process, address):
        with httpx.Client(base_url=address, timeout=60) as client:
            quiet = [client.post("/predict", files={"file": clip}).json()["scores"] for clip in data]
        for _ in range(options.rounds):
            start, cpu = time.perf_counter(), time.process_time()
            answers = list(predict(pipe, data, PredictionOptions()))
            cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
            bare.append({"rate": len(data) / seconds, "cpu": cpu / len(data)})
            rounds.append(measure_round(process, address, list(zip(data, quiet, strict=True)), options))
        difference = max(abs(q[key] - a.scores[key]) for q, a in zip(quiet, answers, strict=True) for key in q)
        assert difference <= TOLERANCE, difference
        large = peak_during(process, lambda: send_zeros(address, LARGE))
        long = peak_during(process, lambda: send_zeros(address, 120 * 2**20, header_of_a_pipe()))
        left = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert large[0] == (413, "upload_too_large") and long[0] == (413, "audio_too_long") and not left
    values = {"bare": bare, "rounds": rounds, "kind": kind, "difference": difference, "options": options}
    write_section("python benchmarks/service_load.py", render("service_load", **values, large=large[1], long=long[1]))


if __name__ == "__main__":
    main()
