"""Measure WavLM's implementations of attention: time in turn, and peak memory in processes of their own.

    python benchmarks/attention.py [--layers 2] [--rounds 3]

The Transformer of WavLM-base and -large in its true width, with random weights, on random frames. On a GPU
`flex_attention` is measured too, and the kernel that took most of the time of each implementation is named.
"""

from __future__ import annotations

import json
import statistics
import time

import torch
from documents import render, write_blocks, write_section
from families import AUDIO
from gradient_caching import RETURN_FREED_BLOCKS, peak_memory
from harness import ROOT, measure_in_turn, parser_of, run_in_new_process
from limits import default_device, synchronize

from modeling_gemoclap.encoding_gemoclap import mask_padding_leaks
from modeling_gemoclap.towers_gemoclap import build_audio_tower

FAMILIES, SECONDS, BATCH = ("wavlm-base", "wavlm-large"), (4.0, 15.0), 2
PASSES = ("forward", "forward and backward")
FRAMES_PER_SECOND = 50


def implementations() -> list[str]:
    """What runs on this machine, beginning with what the others are compared to."""
    return ["eager", "sdpa", *(["flex_attention"] if torch.cuda.is_available() else [])]


def make_encoder(family: str, layers: int) -> torch.nn.Module:
    """The Transformer of a tower, with the first of its layers, without the convolutions on the signal."""
    torch.manual_seed(0)
    config = AUDIO[family].config(num_hidden_layers=layers, layerdrop=0.0, attention_dropout=0.0)
    return mask_padding_leaks(build_audio_tower(config)).to(default_device())


class Case:
    """One pass over a padded batch."""

    def __init__(self, family: str, seconds: float, layers: int):
        self.tower = make_encoder(family, layers)
        frames, width, device = round(seconds * FRAMES_PER_SECOND), self.tower.config.hidden_size, default_device()
        self.frames = torch.randn(BATCH, frames, width, device=device)
        self.mask = (
            torch.arange(frames, device=device) < torch.linspace(0.6, 1, BATCH, device=device)[:, None] * frames
        )

    def run(self, implementation: str, kind: str) -> float:
        """Seconds of the pass."""
        self.tower.config._attn_implementation = implementation
        self.tower.train(kind != PASSES[0]).zero_grad()
        synchronize(self.frames.device)
        start = time.perf_counter()
        with torch.set_grad_enabled(kind != PASSES[0]):
            output = self.tower.encoder(self.frames.clone(), attention_mask=self.mask).last_hidden_state
            if kind != PASSES[0]:
                output.square().mean().backward()
        synchronize(self.frames.device)
        return time.perf_counter() - start

    def kernel(self, implementation: str) -> str:
        """The name of the attention kernel that took most of the time on the GPU."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self.run(implementation, PASSES[1])
        names = ("attention", "fmha", "flash", "softmax", "flex", "sdpa")
        events = [event for event in profile.key_averages() if any(name in event.key.lower() for name in names)]
        return max(events, key=lambda event: event.self_device_time_total).key if events else "none found"


def measure_peak(family: str, seconds: float, layers: int, kind: str, implementation: str) -> float:
    """Peak memory in MiB of a second pass, above weights, gradients and input."""
    case = Case(family, seconds, layers)
    case.run(implementation, kind)
    device = case.frames.device.type
    before = peak_memory(device, restart=True)
    case.run(implementation, kind)
    return peak_memory(device) - before


def rows_of(family: str, seconds: float, layers: int, rounds: int) -> list[dict]:
    """A row for each kind of pass."""
    case, rows = Case(family, seconds, layers), []
    for kind in PASSES:
        times = measure_in_turn(
            {name: lambda _, name=name, kind=kind: case.run(name, kind) for name in implementations()}, rounds
        )
        row = {"family": family, "seconds": seconds, "pass": kind, "time": {}, "ratio": {}, "mib": {}, "kernel": {}}
        for name, values in times.items():
            options = ("--case", family, seconds, layers, kind, name)
            peak = run_in_new_process(__file__, *options, environment=RETURN_FREED_BLOCKS)
            row["mib"][name] = peak["mib"]
            row["time"][name] = statistics.median(values)
            pairs = zip(times["eager"], values, strict=True)
            row["ratio"][name] = statistics.median(eager / value for eager, value in pairs)
            if torch.cuda.is_available():
                row["kernel"][name] = case.kernel(name)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Measure and write the sections of RESULTS.md and docs/encoders.md, or measure one peak."""
    parser = parser_of(__doc__)
    parser.add_argument("--layers", type=int, default=2, help="layers of the Transformer")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the timing")
    parser.add_argument("--case", nargs=5, metavar=("FAMILY", "SECONDS", "LAYERS", "PASS", "IMPLEMENTATION"))
    options = parser.parse_args()
    if options.case:
        family, seconds, layers, kind, name = options.case
        print(json.dumps({"mib": measure_peak(family, float(seconds), int(layers), kind, name)}))
        return
    cases = [(family, seconds) for family in FAMILIES for seconds in SECONDS]
    rows = [row for case in cases for row in rows_of(*case, options.layers, options.rounds)]
    values = {"rows": rows, "names": implementations(), "gpu": torch.cuda.is_available()}
    text = render("attention", **values, layers=options.layers, rounds=options.rounds, batch=BATCH)
    write_section("python benchmarks/attention.py", text)
    write_blocks(ROOT / "docs" / "encoders.md", lambda name: text if name == "attention" else None)


if __name__ == "__main__":
    main()
