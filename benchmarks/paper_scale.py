"""The paper's twelve cells at true size, one step each: four audio encoders and RoBERTa-base by three objectives.

    python benchmarks/paper_scale.py [--batch 2] [--seconds 4]       every cell in a process of its own
    python benchmarks/paper_scale.py --compare wavlm-large           the three objectives in turn, in one process

No weights are downloaded: shapes and costs are the true ones, the numbers are random. Forward, loss, backward and a
plain Adam step are run and timed on the CPU; the peak is that of the process's resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from families import AUDIO, PAPER, text_config

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel

OBJECTIVES = ("emo", "ml", "sl")


def peak_gib() -> float:
    """Peak resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(family: str) -> GEmoClapModel:
    """A true-size model in training mode."""
    torch.manual_seed(0)
    return GEmoClapModel(GEmoClapConfig(audio_config=AUDIO[family].config(), text_config=text_config())).train()


def batch_of(objective: str, batch: int, seconds: float) -> dict[str, torch.Tensor]:
    """Noise, prompts and labels."""
    waves = torch.randn(batch, int(seconds * 16000))
    inputs = {"input_values": waves, "audio_attention_mask": torch.ones_like(waves).long()}
    for kind in ("", "gender_") if objective == "ml" else ("",):
        inputs[f"{kind}input_ids"] = torch.randint(5, 50265, (batch, 12))
        inputs[f"{kind}attention_mask"] = torch.ones(batch, 12).long()
    return inputs | {"emotion_labels": torch.arange(batch) % 4, "gender_labels": torch.arange(batch) % 2}


def timed_step(model: GEmoClapModel, objective: str, batch: int, seconds: float) -> tuple[float, float, float]:
    """One forward and backward: seconds of each, and the loss."""
    model.config.objective = objective
    model.zero_grad()
    inputs = batch_of(objective, batch, seconds)
    start = time.perf_counter()
    loss = model(**inputs).loss
    middle = time.perf_counter()
    loss.backward()
    return middle - start, time.perf_counter() - middle, loss.item()


def cell(family: str, objective: str, batch: int, seconds: float) -> dict:
    """Build, step once, and say what it took."""
    start = time.perf_counter()
    model = build(family)
    took = time.perf_counter() - start
    built = peak_gib()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-5)
    forward, backward, loss = timed_step(model, objective, batch, seconds)
    start = time.perf_counter()
    optimizer.step()
    return {
        "parameters": {
            name: sum(p.numel() for p in part.parameters()) / 1e6
            for name, part in (("audio", model.audio_model), ("text", model.text_model), ("all", model))
        },
        "seconds": [took, forward, backward, time.perf_counter() - start],
        "gib": [built, peak_gib()],
        "loss": loss,
    }


def all_cells(batch: int, seconds: float) -> None:
    """The table: every cell in a process of its own, so that each has a peak of its own."""
    print("| audio encoder | objective | parameters (audio + text, all) | build | forward | backward | Adam | peak |")
    print("|---|---|---|---|---|---|---|---|")
    for family in PAPER:
        for objective in OBJECTIVES:
            command = [sys.executable, __file__, "--cell", family, objective]
            command += ["--batch", str(batch), "--seconds", str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            count, took = found["parameters"], " | ".join(f"{value:.1f} s" for value in found["seconds"])
            parameters = f"{count['audio']:.1f} + {count['text']:.1f}, {count['all']:.1f} M"
            print(f"| {family} | {objective} | {parameters} | {took} | {found['gib'][1]:.2f} GiB |", flush=True)


def compare(family: str, batch: int, seconds: float, rounds: int) -> None:
    """What the objectives cost against each other: in turn, in one process, medians over rounds."""
    model = build(family)
    took: dict[str, list[float]] = {objective: [] for objective in OBJECTIVES}
    for number in range(rounds + 1):
        for objective in OBJECTIVES:
            forward, backward, _ = timed_step(model, objective, batch, seconds)
            if number:  # the first round warms up
                took[objective].append(forward + backward)
    medians = {objective: statistics.median(values) for objective, values in took.items()}
    ratios = [f"{name} {value:.2f} s ({value / medians['sl']:.3f} of sl)" for name, value in medians.items()]
    print(f"{family}, batch {batch} x {seconds:g} s, forward and backward, medians of {rounds}: {', '.join(ratios)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--cell", nargs=2, metavar=("FAMILY", "OBJECTIVE"))
    parser.add_argument("--compare", nargs="+", metavar="FAMILY", choices=PAPER)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(*arguments.cell, arguments.batch, arguments.seconds)))
    elif arguments.compare:
        for family in arguments.compare:
            compare(family, arguments.batch, arguments.seconds, arguments.rounds)
    else:
        all_cells(arguments.batch, arguments.seconds)
