"""Measure what compiling the audio encoder gains in predictions: warm-up, clips per second, and break-even.

    python benchmarks/compile.py --corpora CORPORA [--clips 48] [--rounds 3]

The lengths are those of clips of Emo-DB, in the order of a seeded shuffle; the signals are noise and the weights
random, since neither affects the time.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from documents import render, write_section
from harness import measure_in_turn, parser_of
from limits import default_device, synchronize
from models import make_extractor, make_model, noise_clips
from torch._dynamo.utils import counters

from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapModel
from modeling_gemoclap.inference.compiling import compile_audio_tower

FAMILIES, BATCH = ("compact", "hubert-base"), 8


def lengths_of(corpora: Path, count: int) -> list[int]:
    """Samples of clips of Emo-DB."""
    files = sorted(file for file in corpora.glob("emodb/**/*") if file.suffix in (".flac", ".wav"))
    if len(files) < count:
        raise SystemExit(f"{corpora}: {len(files)} clips of Emo-DB, but --clips {count}")
    random.Random(0).shuffle(files)
    return [soundfile.info(file).frames for file in files[:count]]


def batches_of(family: str, lengths: list[int]) -> list[dict]:
    """The clips in batches, in the input of a family in its true shape."""
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel") if family == "compact" else make_extractor(family)
    clips = noise_clips(lengths, np.random.default_rng(0))
    return [dict(extractor(clips[start : start + BATCH])) for start in range(0, len(clips), BATCH)]


def seconds_of(model: GEmoClapModel, batches: list[dict]) -> float:
    """Seconds in which a model embeds the batches."""
    device = model.device
    start = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            model.get_audio_features(**{name: value.to(device) for name, value in batch.items()})
    synchronize(device)
    return time.perf_counter() - start


def measure(family: str, lengths: list[int], rounds: int) -> dict:
    """Clips per second without and with compilation, the warm-up, and the clips after which it pays."""
    models = {name: make_model(family, small_text=True).eval().to(default_device()) for name in ("plain", "compiled")}
    batches = batches_of(family, lengths)
    seconds_of(models["plain"], batches[:1])
    compile_audio_tower(models["compiled"])
    first = seconds_of(models["compiled"], batches[:1])
    warm_up = first - seconds_of(models["compiled"], batches[:1])
    graphs = counters["stats"]["unique_graphs"]
    runs = {name: lambda _, model=model: seconds_of(model, batches) for name, model in models.items()}
    times = measure_in_turn(runs, rounds)
    ratio = statistics.median(plain / other for plain, other in zip(times["plain"], times["compiled"], strict=True))
    plain, compiled = (statistics.median(times[name]) / len(lengths) for name in ("plain", "compiled"))
    with torch.no_grad():
        outputs = [
            model.get_audio_features(**{name: value.to(model.device) for name, value in batches[-1].items()})
            for model in models.values()
        ]
    return {
        "family": family,
        "warm_up": warm_up,
        "rates": (1 / plain, 1 / compiled),
        "ratio": ratio,
        "break_even": warm_up / (plain - compiled) if ratio > 1 and plain > compiled else None,
        "graphs": graphs,
        "graphs_after": counters["stats"]["unique_graphs"],
        "difference": (outputs[0] - outputs[1]).abs().max().item(),
    }


def main() -> None:
    """Measure each family and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder that contains emodb/")
    parser.add_argument("--clips", type=int, default=48, help="number of clips")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the timing")
    options = parser.parse_args()
    lengths, rows = lengths_of(options.corpora, options.clips), []
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()  # empty, so that the warm-up is that of a first run
    for family in FAMILIES:
        torch._dynamo.reset()
        counters.clear()
        rows.append(measure(family, lengths, options.rounds))
        print(rows[-1], flush=True)
    seconds = [length / 16000 for length in lengths]
    text = render(
        "compile",
        **{"rows": rows, "clips": len(lengths), "rounds": options.rounds, "batch": BATCH},
        **{"shortest": min(seconds), "longest": max(seconds), "device": default_device().type},
    )
    write_section("python benchmarks/compile.py", text)


if __name__ == "__main__":
    main()
