"""Memory and time of gradient caching, WavLM-base and RoBERTa-base by shape, and what accumulation would get wrong.

    python benchmarks/gradient_caching.py [--seconds 1] [--device cuda]

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


def case(family: str, batch: int, chunk: int | None, seconds: float, device: str) -> dict:
    """One step: memory above model and batch, and seconds."""
    model = build(family, device)
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


def time_of(family: str, batch: int, seconds: float, device: str, rounds: int) -> tuple[float, float]:
    """Seconds of a plain step, and the ratio of a cached one of the same batch; medians, in turn."""
    model, took = build(family, device), {None: [], CHUNK: []}
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
    batch["input_features"] = torch.randn(32, 100, 64, generator=torch.Generator().manual_seed(0))
    del batch["input_values"], batch["audio_attention_mask"]
    batch["input_ids"] %= 400
    for count in (1, parts):
        model.zero_grad()
        for rows in torch.arange(32).split(32 // count):
            (model(**{name: value[rows] for name, value in batch.items()}).loss / count).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return ((found[1] - found[0]).norm() / found[0].norm()).item()


def main(seconds: float, device: str, rounds: int) -> None:
    """Run all, and write the section."""
    sizes = [(CHUNK, None), (512, CHUNK)]
    (plain, cached) = (in_its_own_process("wavlm-base", *size, seconds, device) for size in sizes)
    step, ratio = time_of("wavlm-base", 2 * CHUNK, seconds, device, rounds)
    off = ", ".join(f"{parts} parts {accumulation(parts):.0%}" for parts in (2, 4, 8))
    results.write(
        "python benchmarks/gradient_caching.py",
        f"""WavLM-base and RoBERTa-base by shape, `sl`, clips of {seconds:g} s, float32, on {device}. One step of the
trainer; memory above the loaded model and the collated batch.

| batch | chunks of | memory | over plain {CHUNK} | a step |
|---|---|---|---|---|
| {CHUNK} | (plain) | {plain["mib"]:.0f} MiB | 1 | {plain["seconds"]:.1f} s |
| 512 | {CHUNK} | {cached["mib"]:.0f} MiB | {cached["mib"] / plain["mib"]:.3f} | {cached["seconds"]:.1f} s |

Time: a batch of {2 * CHUNK} in chunks of {CHUNK} takes {ratio:.2f} times as long as in one piece ({step:.1f} s; median
of {rounds} rounds in turn). Every clip is embedded twice: with a backward of two forwards, 4/3 is what to expect.

Gradient accumulation in its place (compact tower, 32 clips, the mean of the parts' gradients against the batch's, norm
of the difference over norm): {off} off.""",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", nargs=5)
    arguments = parser.parse_args()
    if arguments.case:
        family, batch, chunk, *_ = arguments.case
        chunk = None if chunk == "None" else int(chunk)
        print(json.dumps(case(family, int(batch), chunk, float(arguments.case[3]), arguments.case[4])))
    else:
        main(arguments.seconds, arguments.device, arguments.rounds)
