"""Count the bytes that a process receives for one loss and its gradient, in two processes of the trainer's code.

    torchrun --standalone --nproc_per_node 2 benchmarks/communication.py

Prints a JSON object: for each objective the bytes that were counted and those of the formula. `scaling.py` runs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from accelerate import Accelerator
from gpu_prediction import gathered_bytes
from harness import ROOT

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "training")]
from distributed_worker import loss_of, make, parts, whole_batch  # noqa: E402

BATCH, WIDTH = 4, 12  # of the model in tests/training/distributed_worker.py


def counted(original: Callable, counts: list[int], others: int) -> Callable:
    """A collective operation that also notes the bytes that it receives from the other processes."""

    def collective(*args):
        gathers = isinstance(args[0], list)
        tensor = args[1] if gathers else args[0]
        share = others if gathers else 2 * others / (others + 1)  # all_reduce in a ring
        counts.append(round(tensor.numel() * tensor.element_size() * share))
        return original(*args)

    return collective


def main() -> None:
    """Count in each process; the first prints."""
    Accelerator(cpu=True)
    rank, processes = dist.get_rank(), dist.get_world_size()
    counts, results = [], {}
    for name in ("all_gather", "all_reduce"):
        setattr(dist, name, counted(getattr(dist, name), counts, processes - 1))
    for objective in ("sl", "ml"):
        model = make(objective, "cross", torch.float32)
        _, part = parts(whole_batch(objective, torch.float32), rank, processes, "even")
        counts.clear()
        loss_of(model, model, part, rank, processes).backward()
        formula = gathered_bytes(BATCH, WIDTH, 1 + (objective == "ml"), processes)
        results[objective] = {"counted": sum(counts), "formula": formula}
    if rank == 0:
        print(json.dumps(results), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
