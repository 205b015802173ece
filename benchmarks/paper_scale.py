"""One SL step at the paper's true size: WavLM-large and RoBERTa-base from configuration, on the CPU.

    python benchmarks/paper_scale.py [--batch 2] [--seconds 4]

No weights are downloaded: shapes and costs are the true ones, the numbers are random. Forward, loss, backward and a
plain Adam step are run once and timed; the peak is that of the process's resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import torch
from transformers import RobertaConfig, WavLMConfig

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel

WAVLM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": False,
}
ROBERTA_BASE = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}


def peak_gib() -> float:
    """Peak resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step(batch: int, seconds: float) -> dict:
    """Build, step once, and say what it took."""
    torch.manual_seed(0)
    marks = [("start", time.perf_counter())]
    config = GEmoClapConfig(
        audio_config=WavLMConfig(**WAVLM_LARGE), text_config=RobertaConfig(**ROBERTA_BASE), objective="sl"
    )
    model = GEmoClapModel(config).train()
    marks.append(("build", time.perf_counter()))
    built = peak_gib()
    waves = torch.randn(batch, int(seconds * 16000))
    labels = {"emotion_labels": torch.arange(batch) % 4, "gender_labels": torch.arange(batch) % 2}
    tokens = {"input_ids": torch.randint(5, 50265, (batch, 12)), "attention_mask": torch.ones(batch, 12).long()}
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-5)
    loss = model(input_values=waves, audio_attention_mask=torch.ones_like(waves).long(), **tokens, **labels).loss
    marks.append(("forward", time.perf_counter()))
    loss.backward()
    marks.append(("backward", time.perf_counter()))
    optimizer.step()
    marks.append(("adam_step", time.perf_counter()))
    towers = {"audio": model.audio_model, "text": model.text_model, "all": model}
    took = {name: round(end - begin, 1) for (_, begin), (name, end) in zip(marks, marks[1:], strict=False)}
    return {
        "parameters_millions": {n: round(sum(p.numel() for p in m.parameters()) / 1e6, 1) for n, m in towers.items()},
        "batch": f"{batch} x {seconds:g} s",
        "loss": round(loss.item(), 4),
        "seconds": took,
        "peak_gib": {"after_build": round(built, 2), "after_step": round(peak_gib(), 2)},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print(json.dumps(step(arguments.batch, arguments.seconds), indent=2))
