"""Cost as work grows: operations, memory, bytes between processes, checked here; what they predict for GPUs.

    python benchmarks/scaling.py

Writes the tables of docs/scaling.md; what is measured is measured on this machine, on one thread.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import results
import torch
import torch.distributed as dist
from counting import FIXED, counted_flop, formula_flop, gathered, model_of, prediction, saved_bytes, step_flop
from families import AUDIO
from gradient_caching import build, in_its_own_process
from paper_scale import batch_of

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
SECONDS = 4.0


def encoders() -> str:
    """Operations by counting and by formula, and the activations of a clip."""
    lines = ["| encoder | GFLOP a second of audio | by formula | activations of a clip of 4 s, with its text |"]
    lines += ["|---|---|---|---|"]
    for family in AUDIO:
        counted, frames = counted_flop(family, SECONDS)
        ratio = formula_flop(family, SECONDS, frames) / counted
        rate = f"{counted / SECONDS / 1e9:.2f}"
        if family in FIXED:
            rate = f"{counted / 1e9:.0f} a clip, which is always {FIXED[family]:g} s"
        lines.append(f"| {family} | {rate} | {ratio:.3f} | {_activations(family)} |")
    return "\n".join(lines)


def _activations(family: str) -> str:
    try:
        model = model_of(family)
        two, one = (saved_bytes(model, family, batch, SECONDS) for batch in (4, 2))
    except (RuntimeError, NotImplementedError) as error:
        return f"not counted: {type(error).__name__}"
    return f"{(two - one) / 2 / 2**20:.0f} MiB"


def memory() -> str:
    """Predicted and measured memory that a further clip of 1 s takes, WavLM-base."""
    model = model_of("wavlm-base")
    predicted = (saved_bytes(model, "wavlm-base", 32, 1.0) - saved_bytes(model, "wavlm-base", 16, 1.0)) / 16 / 2**20
    large, small = (in_its_own_process(batch, None, 1.0, "cpu")["mib"] for batch in (32, 16))
    measured = (large - small) / 16
    return f"{predicted:.1f} MiB | {measured:.1f} MiB | {measured / predicted:.2f}"


def seconds_a_step(family: str, batch: int, rounds: int = 3) -> float:
    """Forward and backward of a plain step in one piece; median of rounds."""
    model, inputs, took = build(family, "cpu"), batch_of("sl", batch, SECONDS), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        model(**inputs).loss.backward()
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def speed() -> str:
    """The step of WavLM-large predicted from that of WavLM-base by operations alone, and measured."""
    work = {family: 3 * step_flop(model_of(family), family, 2, SECONDS)[0] for family in ("wavlm-base", "wavlm-large")}
    base = seconds_a_step("wavlm-base", 2)
    predicted, measured = base * work["wavlm-large"] / work["wavlm-base"], seconds_a_step("wavlm-large", 2)
    return f"{predicted:.1f} s | {measured:.1f} s | {measured / predicted:.2f}"


def count_bytes() -> None:
    """In each of two processes: what the real trainer hands to the group, of which the others' share is received."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/training"))
    from accelerate import Accelerator
    from distributed_worker import loss_of, make, parts, whole_batch

    Accelerator(cpu=True)
    seen, others = [], dist.get_world_size() - 1
    for name in ("all_gather", "all_reduce"):
        original = getattr(dist, name)
        measure = lambda *args, f=original: seen.append(_received(args, others)) or f(*args)  # noqa: E731
        setattr(dist, name, measure)
    for objective in ("sl", "ml"):
        model = make(objective, "cross", torch.float32)
        _, part = parts(whole_batch(objective, torch.float32), dist.get_rank(), others + 1, "even")
        seen.clear()
        loss_of(model, model, part, dist.get_rank(), others + 1).backward()
        if dist.get_rank() == 0:
            print("BYTES", objective, sum(seen), gathered(4, 12, 1 + (objective == "ml"), others + 1), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def _received(args: tuple, others: int) -> int:
    tensor = args[1] if isinstance(args[0], list) else args[0]
    share = others if isinstance(args[0], list) else 2 * others / (others + 1)  # a ring's all_reduce
    return round(tensor.numel() * tensor.element_size() * share)


def communication() -> str:
    """Bytes counted in two processes over those of the formula."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([*command, "--count"], capture_output=True, text=True, check=True, env=env)
    found = re.findall(r"BYTES (\w+) (\d+) (\d+)", done.stdout)
    return ", ".join(f"`{name}` {counted} of {formula} bytes" for name, counted, formula in found)


def main() -> None:
    """Count, measure, and write the page's tables."""
    checks = ["| what | predicted | measured | measured over predicted |", "|---|---|---|---|"]
    checks.append(f"| memory of a further clip of 1 s, WavLM-base and RoBERTa-base | {memory()} |")
    checks.append(f"| step of WavLM-large, 2 clips of 4 s, from that of WavLM-base | {speed()} |")
    future = [
        "| H100s | one cell of Table 1 | an epoch over 50,000 hours | of it communication |",
        "|---|---|---|---|",
    ]
    for gpus in (1, 8, 64):
        cell, epoch, share = prediction(gpus)
        future.append(f"| {gpus} | {cell:.2g} h | {epoch:.2g} h | {share:.0%} |")
    tables = {"encoders": encoders(), "checks": "\n".join(checks), "communication": communication()}
    tables |= {"prediction": "\n".join(future), "machine": results.machine()}
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.S
        )
    PAGE.write_text(text, encoding="utf-8")
    print(json.dumps(tables, indent=2))


if __name__ == "__main__":
    count_bytes() if sys.argv[1:] == ["--count"] else main()
