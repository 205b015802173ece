"""Count and measure the cost of training as encoders, batches and processes grow; write the tables of docs/scaling.md.

    python benchmarks/scaling.py

Measurements are taken on this machine, on one thread. Predictions for GPUs are computed from the counts.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from counting import FIXED_SECONDS, counted_flop, formula_flop, meta_model, saved_bytes, step_flop
from documents import render, write_blocks
from families import AUDIO
from gpu_prediction import prediction
from gradient_caching import measure_step_alone
from harness import ROOT, machine, measure_in_turn, parser_of, run_in_new_process
from models import make_model, training_batch

DOCUMENT = ROOT / "docs" / "scaling.md"
SECONDS = 4.0


@dataclass
class Check:
    """A prediction and its measurement, in the same unit."""

    predicted: float
    measured: float


def encoder_costs() -> list[dict]:
    """For each encoder the operations by counting and by formula, and the MiB that autograd saves for a clip."""
    costs = []
    for family in AUDIO:
        counted, frames = counted_flop(family, SECONDS)
        ratio = formula_flop(family, SECONDS, frames) / counted
        cost = {"name": family, "gflop": counted / 1e9, "fixed_seconds": FIXED_SECONDS.get(family), "ratio": ratio}
        costs.append(cost | {"activations": _activations(family)})
    return costs


def _activations(family: str) -> str:
    """Saved activations of a clip with its text, or why they are not counted."""
    try:
        model = meta_model(family)
        four, two = (saved_bytes(model, family, batch, SECONDS) for batch in (4, 2))
    except (RuntimeError, NotImplementedError) as error:
        return f"not counted: {type(error).__name__}"
    return f"{(four - two) / 2 / 2**20:.0f} MiB"


def check_memory() -> Check:
    """MiB of an additional clip of 1 s, WavLM-base."""
    model = meta_model("wavlm-base")
    predicted = (saved_bytes(model, "wavlm-base", 32, 1.0) - saved_bytes(model, "wavlm-base", 16, 1.0)) / 16 / 2**20
    large, small = (measure_step_alone(batch, None, 1.0, "cpu")["mib"] for batch in (32, 16))
    return Check(predicted, (large - small) / 16)


def seconds_of_step(family: str, batch: int, rounds: int = 3) -> float:
    """Seconds of a forward and a backward pass without gradient caching; median over rounds."""
    model, inputs = make_model(family, audio={"layerdrop": 0.0}), training_batch("sl", batch, SECONDS)

    def step(_: int) -> float:
        start = time.perf_counter()
        model(**inputs).loss.backward()
        return time.perf_counter() - start

    return statistics.median(measure_in_turn({family: step}, rounds)[family])


def check_speed() -> Check:
    """Seconds of a step of WavLM-large, predicted from those of WavLM-base by the operations alone."""
    base, large = (step_flop(meta_model(family), family, 2, SECONDS)[0] for family in ("wavlm-base", "wavlm-large"))
    return Check(seconds_of_step("wavlm-base", 2) * large / base, seconds_of_step("wavlm-large", 2))


def count_communication() -> dict:
    """Bytes by counting in two processes, and by formula, for each objective."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    script = Path(__file__).with_name("communication.py")
    return run_in_new_process(*launcher, script, environment={"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Count, measure and write the tables."""
    parser_of(__doc__).parse_args()
    values = {
        "encoders": encoder_costs(),
        "checks": {"memory": check_memory(), "speed": check_speed()},
        "communication": count_communication(),
        "prediction": {gpus: prediction(gpus) for gpus in (1, 8, 64)},
    }
    blocks = {name: render(f"scaling_{name}", values=value, seconds=SECONDS) for name, value in values.items()}
    blocks["machine"] = machine()
    write_blocks(DOCUMENT, blocks.get)
    print(json.dumps(blocks, indent=2))


if __name__ == "__main__":
    main()
