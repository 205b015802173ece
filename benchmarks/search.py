"""Measure an index of many recordings: writing, loading, searching, size and memory.

    python benchmarks/search.py

The embeddings are random and of unit length. Each part runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from documents import render, write_section
from harness import measure_in_turn, parser_of, peak_mib, run_in_new_process

from modeling_gemoclap.inference.index import FLOAT_BYTES, Header, Index, Recording, list_array, rows_of, write_rows
from modeling_gemoclap.inference.loading import load_config, load_pipeline
from modeling_gemoclap.inference.search import TOP, embed_query, nearest

SEGMENT = 256  # rows that are made and written together
QUERY = "a furious woman"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def unit_rows(rows: int, dimensions: int, seed: int) -> np.ndarray:
    """Random vectors of unit length, `(rows, dimensions)`."""
    values = np.random.default_rng(seed).standard_normal((rows, dimensions), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def seconds_of(action) -> float:
    """Time of a call, in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def write(path: Path, rows: int) -> dict:
    """Write an index segment by segment, and the same numbers with NumPy."""
    size = load_config("base").projection_dim
    header = Header("base", None, str(path.parent), size, {"model": {}})

    def tables():
        for number in range(-(-rows // SEGMENT)):
            part = unit_rows(SEGMENT, size, number)
            start = number * SEGMENT
            count = min(SEGMENT, rows - start)
            names = (f"speaker-{row % 100:02d}/recording-{row:06d}.wav" for row in range(start, start + count))
            recordings = [Recording(name, 96044, row, os.urandom(32)) for row, name in enumerate(names)]
            yield rows_of(recordings, list_array(part[:count], header), header)

    generate = seconds_of(lambda: [None for _ in tables()])
    before = peak_mib()
    seconds = seconds_of(lambda: write_rows(path, header, tables())) - generate
    peak = peak_mib() - before
    matrix = unit_rows(rows, size, 0)
    plain = seconds_of(lambda: np.save(path.with_suffix(".npy"), matrix))
    return {"seconds": seconds, "plain": plain, "peak": peak, "bytes": path.stat().st_size, "dimensions": size}


def load(path: Path, rows: int) -> dict:
    """Load an index, and the same numbers with NumPy."""
    before = peak_mib()
    seconds = seconds_of(lambda: Index(path))
    peak = peak_mib() - before
    plain = seconds_of(lambda: np.load(path.with_suffix(".npy"), allow_pickle=False))
    return {"seconds": seconds, "plain": plain, "peak": peak}


def query(path: Path, rows: int, rounds: int) -> dict:
    """Search and compute the bare matrix product, in turn; then embed a query."""
    index = Index(path)
    queries = unit_rows(rounds + 1, index.header.dimensions, rows)
    before = peak_mib()
    measured = measure_in_turn(
        {
            "product": lambda number: seconds_of(lambda: index.embeddings @ queries[number]),
            "search": lambda number: seconds_of(lambda: nearest(index, queries[number])),
        },
        rounds,
    )
    peak, pipe = peak_mib() - before, load_pipeline("base", "cpu")
    measured |= measure_in_turn({"text": lambda number: seconds_of(lambda: embed_query(pipe, QUERY))}, rounds)
    return {name: statistics.median(values) for name, values in measured.items()} | {"peak": peak}


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="number of recordings")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the timing of queries")
    parser.add_argument("--part", choices=["write", "load", "query"], help="measure this part in this process")
    parser.add_argument("--path", type=Path, help="the index, with --part")
    given = parser.parse_args()
    if given.part:
        rounds = {"query": (given.rounds,)}.get(given.part, ())
        print(json.dumps(globals()[given.part](given.path, given.rows, *rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options = ("--path", Path(folder, "index.parquet"), "--rows", given.rows, "--rounds", given.rounds)
        parts = {
            part: run_in_new_process(__file__, "--part", part, *options, environment=ONE_THREAD)
            for part in ("write", "load", "query")
        }
    matrix = given.rows * parts["write"]["dimensions"] * FLOAT_BYTES
    values = {"rows": given.rows, "rounds": given.rounds, "top": TOP, "matrix": matrix, "text": QUERY}
    write_section("python benchmarks/search.py", render("search", **parts, **values))
    print(json.dumps(parts), file=sys.stderr)


if __name__ == "__main__":
    main()
