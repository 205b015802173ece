"""Measure memory and time of gradient caching, and the error that gradient accumulation would make instead.

    python benchmarks/gradient_caching.py [--seconds 1 4] [--device cuda]

WavLM-base and RoBERTa-base by shape; no weights are downloaded. Memory is measured for one training step in a process
of its own: the peak above the loaded model and the collated batch. On a CPU (Linux) this is resident memory, with
`MALLOC_MMAP_THRESHOLD_` set so that large blocks are returned as soon as they are free; on a GPU it is torch's own
count. Time is measured in turn, in one process.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch
from documents import render, write_section
from harness import measure_in_turn, parser_of, run_in_new_process
from models import make_model, training_batch

from modeling_gemoclap import GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments

CHUNK, LARGE = 32, 512  # clips in a chunk, and in a batch that is trained in chunks
RETURN_FREED_BLOCKS = {name: str(2**20) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}


def make_wavlm(device: str = "cpu") -> GEmoClapModel:
    """WavLM-base with RoBERTa-base; layer drop is off, because with it the cost of a step is random."""
    return make_model("wavlm-base", audio={"layerdrop": 0.0}).to(device)


def batch_on(device: str, batch: int, seconds: float) -> dict[str, torch.Tensor]:
    """A batch for `sl` on a device."""
    return {name: value.to(device) for name, value in training_batch("sl", batch, seconds).items()}


def trainer_of(model: GEmoClapModel, batch: int, chunk: int | None, device: str) -> GEmoClapTrainer:
    """A trainer that is ready for `training_step`."""
    options = {"per_device_train_batch_size": batch, "use_cpu": device == "cpu"}
    arguments = GEmoClapTrainingArguments(tempfile.mkdtemp(), **options)
    trainer = GEmoClapTrainer(model, arguments, contrastive_chunk_size=chunk)
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    return trainer


def peak_memory(device: str, restart: bool = False) -> float:
    """The peak since the last restart in MiB; with `restart`, the peak starts again at the memory in use."""
    if device != "cpu":
        if restart:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if restart:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak of resident memory
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


def measure_step(batch: int, chunk: int | None, seconds: float, device: str) -> dict:
    """Memory above model and batch in MiB, and seconds, of one step."""
    model = make_wavlm(device)
    trainer, inputs = trainer_of(model, batch, chunk, device), batch_on(device, batch, seconds)
    before, start = peak_memory(device, restart=True), time.perf_counter()
    trainer.training_step(model, inputs).item()
    return {"mib": peak_memory(device) - before, "seconds": time.perf_counter() - start}


def measure_step_alone(batch: int, chunk: int | None, seconds: float, device: str) -> dict:
    """`measure_step` in a new process."""
    options = ("--case", batch, chunk or 0, seconds, device)
    return run_in_new_process(__file__, *options, environment=RETURN_FREED_BLOCKS)


def time_of(batch: int, seconds: float, device: str, rounds: int) -> tuple[float, float]:
    """Seconds of a plain step, and the ratio of a cached step to it; medians over rounds."""
    model, inputs = make_wavlm(device), batch_on(device, batch, seconds)

    def step(chunk: int | None) -> float:
        trainer = trainer_of(model, batch, chunk, device)
        start = time.perf_counter()
        trainer.training_step(model, inputs).item()
        return time.perf_counter() - start

    times = measure_in_turn({"plain": lambda _: step(None), "cached": lambda _: step(CHUNK)}, rounds)
    ratios = [cached / plain for plain, cached in zip(times["plain"], times["cached"], strict=True)]
    return statistics.median(times["plain"]), statistics.median(ratios)


def accumulation_error(parts: int) -> float:
    """Relative error of the mean of the parts' gradients against the gradient of the batch, compact encoder."""
    model, gradients = make_model("compact", small_text=True).eval(), []
    batch = training_batch("sl", 32, 1.0)
    batch = {name: value for name, value in batch.items() if name not in ("input_values", "audio_attention_mask")}
    batch |= {"input_features": torch.randn(32, 100, 64), "input_ids": batch["input_ids"] % 400}
    for count in (1, parts):
        model.zero_grad()
        for rows in torch.arange(32).split(32 // count):
            (model(**{name: value[rows] for name, value in batch.items()}).loss / count).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return ((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item()


def section(lengths: list[float], device: str, rounds: int) -> str:
    """Measure everything; the text of the section."""
    sizes = {"plain": (CHUNK, None), "cached": (LARGE, CHUNK)}
    cases = {
        seconds: {name: measure_step_alone(*size, seconds, device) for name, size in sizes.items()}
        for seconds in lengths
    }
    step, ratio = time_of(2 * CHUNK, lengths[0], device, rounds)
    return render(
        "gradient_caching",
        **{"cases": cases, "step": step, "ratio": ratio, "device": device, "rounds": rounds},
        **{"chunk": CHUNK, "large": LARGE, "timed_batch": 2 * CHUNK, "timed_seconds": lengths[0]},
        gradients=sum(parameter.numel() for parameter in make_wavlm().parameters()) / 2**18,
        errors={parts: accumulation_error(parts) for parts in (2, 4, 8)},
    )


def main() -> None:
    """Measure and write the section of RESULTS.md, or measure one case."""
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0], help="lengths of the clips")
    parser.add_argument("--device", default="cpu", help="a device of torch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing")
    parser.add_argument("--case", nargs=4, metavar=("BATCH", "CHUNK", "SECONDS", "DEVICE"), help="measure one step")
    options = parser.parse_args()
    if options.case:
        batch, chunk, seconds, device = options.case
        print(json.dumps(measure_step(int(batch), int(chunk) or None, float(seconds), device)))
    else:
        text = section(options.seconds, options.device, options.rounds)
        write_section("python benchmarks/gradient_caching.py", text)


if __name__ == "__main__":
    main()
