"""Measure the training of WavLM-large with RoBERTa-base on a GPU against the limits of the GPU.

    python benchmarks/gpu_training.py [--batch 32] [--rounds 5]

True shapes, random weights, objective SL, bf16, and noise with the lengths of IEMOCAP: log-normal with a mean of
4.5 s. The limits of the machine are measured first. Without a GPU, everything runs in small on the CPU, to show that
it runs; its figures say nothing about a GPU.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from functools import partial

import torch
from counting import meta_model, step_flop
from documents import render, write_section
from gpu_prediction import IEMOCAP
from gradient_caching import peak_memory
from harness import RATE, largest, measure_in_turn, parser_of
from limits import bandwidth, count_flop, default_device, matrix_peak, synchronize
from models import make_model
from torch.profiler import ProfilerActivity, profile

from modeling_gemoclap import GEmoClapTrainer
from modeling_gemoclap.command_line.compilers import compile_layers
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments

SPREAD, SHORTEST, LONGEST = 0.6, 0.6, 30.0  # of the logarithm of the length; in seconds
OPERATORS = 8  # rows of the profile
ON_GPU = torch.cuda.is_available()
# name -> attention, whether the Transformer layers are compiled
VARIANTS = {"eager": ("eager", False), "sdpa": ("sdpa", False)}
VARIANTS |= ({"flex_attention": ("flex_attention", False)} if ON_GPU else {}) | {"sdpa, compiled": ("sdpa", True)}


def seconds_of_clips(count: int, seed: int = 0) -> torch.Tensor:
    """Seeded lengths with the mean of IEMOCAP; the small shapes get a tenth of them."""
    normal = SPREAD * torch.randn(count, generator=torch.Generator().manual_seed(seed)) - SPREAD**2 / 2
    lengths = (IEMOCAP["seconds"] * normal.exp()).clamp(SHORTEST, LONGEST)
    return lengths if ON_GPU else lengths / 10 + 0.2


def batch_of(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A padded batch of noise with prompts and labels, on the device."""
    lengths = (seconds_of_clips(count, seed) * RATE).long()
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    labels = {"emotion_labels": torch.arange(count) % 4, "gender_labels": torch.arange(count) % 2}
    texts = {"input_ids": torch.randint(5, 400, (count, 12)), "attention_mask": torch.ones(count, 12).long()}
    batch = {"input_values": torch.randn(mask.shape) * mask, "audio_attention_mask": mask, **texts, **labels}
    return {name: value.to(default_device()) for name, value in batch.items()}


class Training:
    """A model with its trainer and Adam."""

    def __init__(self, variant: str, batch: int, chunk: int | None = None):
        attention, compiled = VARIANTS[variant]
        audio = {"layerdrop": 0.0, "attention_dropout": 0.0, "apply_spec_augment": False}
        fields = {"small": not ON_GPU, "audio": audio, "attn_implementation": {"audio_config": attention}}
        self.model = make_model("wavlm-large", **fields).to(default_device())
        options = {"per_device_train_batch_size": batch, "use_cpu": not ON_GPU, "bf16": True}
        arguments = GEmoClapTrainingArguments(tempfile.mkdtemp(), torch_compile=compiled, **options)
        self.trainer = GEmoClapTrainer(self.model, arguments, contrastive_chunk_size=chunk)
        compile_layers(self.trainer)
        self.trainer.current_gradient_accumulation_steps = 1  # what `train` sets
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5, fused=ON_GPU or None)

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Seconds of a forward pass, a backward pass and a step of Adam."""
        synchronize(default_device())
        start = time.perf_counter()
        self.trainer.training_step(self.model, batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize(default_device())
        return time.perf_counter() - start


def fits(batch: int, chunk: int | None) -> bool:
    """Whether two steps with a batch fit into memory; the second has the state of Adam."""
    try:
        training = Training("sdpa", batch, chunk)
        for seed in range(2):
            training.step(batch_of(batch, seed))
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        training = None
        gc.collect()
        torch.cuda.empty_cache()


def measure_variants(size: int, rounds: int, flop: float, peak: float) -> list[dict]:
    """Speed, utilisation and memory of each variant, measured in turn on the same batches."""
    trainings = {name: Training(name, size) for name in VARIANTS}
    runs = {name: lambda number, one=one: one.step(batch_of(size, number)) for name, one in trainings.items()}
    times, rows = measure_in_turn(runs, rounds), []
    for name, training in trainings.items():
        before = peak_memory(default_device().type, restart=True)
        training.step(batch_of(size))
        memory = peak_memory(default_device().type) - before
        rate = size / statistics.median(times[name])
        rows.append({"name": name, "rate": rate, "tflops": rate * flop / 1e12, "share": rate * flop / peak})
        rows[-1] |= {"mib": memory, "operators": operators_of(training, batch_of(size))}
        print(rows[-1], flush=True)
    return rows


def operators_of(training: Training, batch: dict[str, torch.Tensor]) -> list[tuple[str, float]]:
    """The operators or kernels with the most time of their own, and their share of the step."""
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if ON_GPU else [])]) as profiled:
        training.step(batch)
    name = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
    times = {event.key: getattr(event, name) for event in profiled.key_averages()}
    top = sorted(times, key=times.get, reverse=True)[:OPERATORS]
    return [(key[:60].replace("|", " "), times[key] / sum(times.values())) for key in top]


def main() -> None:
    """Measure everything and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch", type=int, default=32, help="clips in a batch")
    parser.add_argument("--chunk", type=int, default=8, help="--contrastive_chunk_size of the largest batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing")
    parser.add_argument("--most", type=int, default=4096 if ON_GPU else 8, help="largest batch that is tried")
    options = parser.parse_args()
    print("GPU" if ON_GPU else "no GPU: everything runs in small on the CPU", flush=True)
    limits = {"peak": matrix_peak(torch.bfloat16), "bandwidth": bandwidth()}
    flop = count_flop(lambda: Training("eager", options.batch).step(batch_of(options.batch))) / options.batch
    rows = measure_variants(options.batch, options.rounds, flop, limits["peak"])
    sizes = [largest(partial(fits, chunk=chunk), chunk or 2, options.most) for chunk in (None, options.chunk)]
    true_clip = step_flop(meta_model("wavlm-large"), "wavlm-large", 1, IEMOCAP["seconds"])[1]
    clips = IEMOCAP["folds"] * IEMOCAP["epochs"] * 0.8 * IEMOCAP["clips"]
    values = {**limits, "flop": flop, "rows": rows, "sizes": sizes, "true_clip": true_clip, "clips": clips}
    values |= {"aim": clips * true_clip / 3600, "gpu": ON_GPU, "seconds": IEMOCAP["seconds"]}
    write_section("python benchmarks/gpu_training.py", render("gpu_training", **values, **vars(options)))


if __name__ == "__main__":
    main()
