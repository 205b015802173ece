"""Run one step of the paper's twelve cells at true size: four audio encoders with RoBERTa-base, three objectives.

    python benchmarks/paper_scale.py [--batch 2] [--seconds 4]       each cell in a process of its own
    python benchmarks/paper_scale.py --compare wavlm-large           the three objectives in turn, in one process

Shapes and costs are the true ones; weights are random, and nothing is downloaded. Forward, backward and a plain Adam
step are timed on the CPU. The peak is the resident memory of the process.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass

import torch
from documents import table_row
from families import PAPER
from harness import measure_in_turn, parser_of, peak_mib, run_in_new_process
from models import make_model, training_batch

from modeling_gemoclap import GEmoClapModel

OBJECTIVES = ("emo", "ml", "sl")
COLUMNS = ("audio encoder", "objective", "parameters (audio + text, all)", "build", "forward", "backward")
COLUMNS += ("Adam", "peak")


@dataclass
class StepTime:
    """Seconds of a forward and a backward pass, and the loss."""

    forward: float
    backward: float
    loss: float


def timed_step(model: GEmoClapModel, objective: str, batch: int, seconds: float) -> StepTime:
    """Time one forward and backward pass on new noise."""
    model.config.objective = objective
    model.zero_grad()
    inputs = training_batch(objective, batch, seconds)
    start = time.perf_counter()
    loss = model(**inputs).loss
    middle = time.perf_counter()
    loss.backward()
    return StepTime(middle - start, time.perf_counter() - middle, loss.item())


def measure_cell(family: str, objective: str, batch: int, seconds: float) -> dict:
    """Build a model and train it for one step: parameters in millions, seconds and peak GiB."""
    start = time.perf_counter()
    model = make_model(family)
    build, peak_of_build = time.perf_counter() - start, peak_mib()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-5)
    step = timed_step(model, objective, batch, seconds)
    start = time.perf_counter()
    optimizer.step()
    parts = {"audio": model.audio_model, "text": model.text_model, "all": model}
    return {
        "parameters": {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()},
        "seconds": [build, step.forward, step.backward, time.perf_counter() - start],
        "gib": [peak_of_build / 2**10, peak_mib() / 2**10],
        "loss": step.loss,
    }


def print_cells(batch: int, seconds: float) -> None:
    """Print the table; each cell is measured in a new process, because a process has only one peak."""
    print(table_row(*COLUMNS), "|---" * len(COLUMNS) + "|", sep="\n")
    for family in PAPER:
        for objective in OBJECTIVES:
            options = ("--cell", family, objective, "--batch", batch, "--seconds", seconds)
            cell = run_in_new_process(__file__, *options)
            count = cell["parameters"]
            parameters = f"{count['audio']:.1f} + {count['text']:.1f}, {count['all']:.1f} M"
            times = (f"{value:.1f} s" for value in cell["seconds"])
            print(table_row(family, objective, parameters, *times, f"{cell['gib'][1]:.2f} GiB"), flush=True)


def compare_objectives(family: str, batch: int, seconds: float, rounds: int) -> None:
    """Print the median seconds of each objective, measured in turn in this process."""
    model = make_model(family)

    def seconds_of(objective: str) -> float:
        step = timed_step(model, objective, batch, seconds)
        return step.forward + step.backward

    measurements = {name: lambda _, name=name: seconds_of(name) for name in OBJECTIVES}
    medians = {name: statistics.median(times) for name, times in measure_in_turn(measurements, rounds).items()}
    ratios = [f"{name} {value:.2f} s ({value / medians['sl']:.3f} of sl)" for name, value in medians.items()]
    print(f"{family}, batch {batch} x {seconds:g} s, forward and backward, medians of {rounds}: {', '.join(ratios)}")


def main() -> None:
    """Measure all cells, one cell, or the objectives in turn."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch", type=int, default=2, help="clips in a batch")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each clip")
    parser.add_argument("--cell", nargs=2, metavar=("FAMILY", "OBJECTIVE"), help="measure one cell and print JSON")
    parser.add_argument("--compare", nargs="+", metavar="FAMILY", choices=PAPER, help=", ".join(PAPER))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --compare")
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measure_cell(*options.cell, options.batch, options.seconds)))
    elif options.compare:
        for family in options.compare:
            compare_objectives(family, options.batch, options.seconds, options.rounds)
    else:
        print_cells(options.batch, options.seconds)


if __name__ == "__main__":
    main()
