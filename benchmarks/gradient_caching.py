"""Memory and time of gradient caching, WavLM-base and RoBERTa-base by shape, and what accumulation would get wrong.

    python benchmarks/gradient_caching.py [--seconds 1 4] [--device cuda]

Memory: each case in a process of its own, one training step; what the peak lies above the loaded model and the
collated batch. On a CPU (Linux) it is the process's resident memory, every large block given back as soon as it is
free (`MALLOC_MMAP_THRESHOLD_`), on a GPU torch's own count. Time: in turn, in one process. No weights are downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import results
import torch
from families import AUDIO, text_config
from paper_scale import batch_of

from modeling_gemoclap import GEmoClapAudioConfig, GEmoClapConfig, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments

CHUNK = 32


def trainer_for(model: GEmoClapModel, batch: int, chunk: int | None, device: str) -> GEmoClapTrainer:
    """The real trainer, ready for `training_step`."""
    options = {"per_device_train_batch_size": batch, "contrastive_chunk_size": chunk, "use_cpu": device == "cpu"}
    trainer = GEmoClapTrainer(model, GEmoClapTrainingArguments(tempfile.mkdtemp(), **options))
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    return trainer


def build(family: str, device: str) -> GEmoClapModel:
    """A model from configuration: true shape, no weights."""
    torch.manual_seed(0)
    # Without layer drop: otherwise what a step costs depends on what it has drawn.
    audio = GEmoClapAudioConfig() if family == "compact" else AUDIO[family].config(layerdrop=0.0)
    text = text_config(small=family == "compact")
    return GEmoClapModel(GEmoClapConfig(audio_config=audio, text_config=text)).train().to(device)


def memory(device: str, restart: bool = False) -> float:
    """MiB in use, if the count is to start anew, else the highest since then."""
    if device != "cpu":
        if restart:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if restart:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest resident memory begins anew
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


def case(batch: int, chunk: int | None, seconds: float, device: str) -> dict:
    """One step: memory above model and batch, and seconds."""
    model = build("wavlm-base", device)
    trainer = trainer_for(model, batch, chunk, device)
    inputs = {name: value.to(device) for name, value in batch_of("sl", batch, seconds).items()}
    before, start = memory(device, restart=True), time.perf_counter()
    trainer.training_step(model, inputs).item()
    return {"mib": memory(device) - before, "seconds": time.perf_counter() - start}


def in_its_own_process(*values) -> dict:
    """`case`, alone in a process."""
    command = [sys.executable, __file__, "--case", *map(str, values)]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def time_of(batch: int, seconds: float, device: str, rounds: int) -> tuple[float, float]:
    """Seconds of a plain step, and the ratio of a cached one of the same batch; medians, in turn."""
    model, took = build("wavlm-base", device), {None: [], CHUNK: []}
    inputs = {name: value.to(device) for name, value in batch_of("sl", batch, seconds).items()}
    for number in range(rounds + 1):
        for chunk in took:
            trainer = trainer_for(model, batch, chunk, device)
            start = time.perf_counter()
            trainer.training_step(model, inputs).item()
            if number:  # the first round warms up
                took[chunk].append(time.perf_counter() - start)
    ratios = [cached / plain for plain, cached in zip(*took.values(), strict=True)]
    return statistics.median(took[None]), statistics.median(ratios)


def accumulation(parts: int) -> float:
    """How far the mean of the parts' gradients is from the batch's, compact tower: difference over norm."""
    model, found = build("compact", "cpu").eval(), []
    batch = batch_of("sl", 32, 1.0)
    batch = {name: value for name, value in batch.items() if name not in ("input_values", "audio_attention_mask")}
    batch |= {"input_features": torch.randn(32, 100, 64), "input_ids": batch["input_ids"] % 400}
    for count in (1, parts):
        model.zero_grad()
        for rows in torch.arange(32).split(32 // count):
            (model(**{name: value[rows] for name, value in batch.items()}).loss / count).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return ((found[1] - found[0]).norm() / found[0].norm()).item()


def main(lengths: list[float], device: str, rounds: int) -> None:
    """Run all, and write the section."""
    table = ["| clips of | batch | chunks of | memory | over plain | a step |", "|---|---|---|---|---|---|"]
    for seconds in lengths:
        plain, cached = (in_its_own_process(*size, seconds, device) for size in ((CHUNK, None), (512, CHUNK)))
        table.append(f"| {seconds:g} s | {CHUNK} | (plain) | {plain['mib']:.0f} MiB | 1 | {plain['seconds']:.0f} s |")
        memory = f"{cached['mib']:.0f} MiB | {cached['mib'] / plain['mib']:.3f}"
        table.append(f"| {seconds:g} s | 512 | {CHUNK} | {memory} | {cached['seconds']:.0f} s |")
    step, ratio = time_of(2 * CHUNK, lengths[0], device, rounds)
    gradients = sum(p.numel() for p in build("wavlm-base", "cpu").parameters()) / 2**18
    off = ", ".join(f"{parts} parts {accumulation(parts):.0%}" for parts in (2, 4, 8))
    text = [
        f"WavLM-base and RoBERTa-base by shape, `sl`, float32, on {device}. One step of the trainer; memory above the "
        f"loaded model and the collated batch.",
        "\n".join(table),
        f"From the second chunk on the gradients of all parameters ({gradients:.0f} MiB) are there while a chunk goes "
        f"forward; in a plain step they come while the graph is being freed. So the ratio falls with longer clips.",
        f"Time: {2 * CHUNK} clips of {lengths[0]:g} s in chunks of {CHUNK} take {ratio:.2f} times as long as in one "
        f"piece ({step:.1f} s; median of {rounds} rounds in turn). Every clip is embedded twice and a backward "
        f"takes two forwards: 4/3 by operations, less where a forward without a graph and shorter padding save some.",
        f"Gradient accumulation in its place (compact tower, 32 clips; the mean of the parts' gradients against the "
        f"batch's, norm of the difference over norm): {off} off.",
    ]
    results.write("python benchmarks/gradient_caching.py", "\n\n".join(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", nargs=4)
    arguments = parser.parse_args()
    if arguments.case:
        batch, chunk, seconds, device = arguments.case
        print(json.dumps(case(int(batch), None if chunk == "None" else int(chunk), float(seconds), device)))
    else:
        main(arguments.seconds, arguments.device, arguments.rounds)
