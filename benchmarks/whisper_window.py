"""Measure the time of Whisper's encoder with shorter windows and fewer layers, and how its embeddings change.

    python benchmarks/whisper_window.py --corpora CORPORA --whisper FOLDER

FOLDER is a Whisper checkpoint (default: whisper-base/ in $GEMOCLAP_PRETRAINED). A time is that from the waveform of a
clip to its embedding, spectrogram included, for batches of 8 clips of Emo-DB on one thread. The alternatives are run
in turn, so their ratios are those of one run.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from documents import render, write_blocks, write_section
from harness import ROOT, measure_in_turn, parser_of

from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapForXVector
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.towers_gemoclap import transformer_layers

BATCH = 8
WINDOWS, FEW_LAYERS = (None, 8, 4), 3
COMMAND = "python benchmarks/whisper_window.py --corpora CORPORA --whisper FOLDER"


class Encoder:
    """Whisper's encoder with mean pooling.

    Args:
        folder: The checkpoint.
        seconds: Its window in seconds; None: 30 s.
        layers: Number of its layers; None: all.
    """

    def __init__(self, folder: str, seconds: float | None, layers: int | None):
        self.model = GEmoClapForXVector.from_audio_pretrained(
            folder, audio_window_seconds=seconds, audio_layers=layers
        )
        self.extractor = GEmoClapFeatureExtractor.from_audio_pretrained(folder, seconds)

    @torch.no_grad()
    def embed(self, waves: list[np.ndarray]) -> torch.Tensor:
        """Embed waveforms, `(clips, hidden_size)`."""
        batches = [waves[start : start + BATCH] for start in range(0, len(waves), BATCH)]
        return torch.cat([self.model(**self.extractor.collate(batch)).embeddings for batch in batches])

    def seconds_per_clip(self, waves: list[np.ndarray]) -> float:
        """Time of `embed` for each clip."""
        start = time.perf_counter()
        self.embed(waves)
        return (time.perf_counter() - start) / len(waves)


def cosine_distances(embeddings: dict) -> dict:
    """Distances from the embedding at the full window, and between different clips at the full window.

    Args:
        embeddings: `(clips, hidden_size)` for each window, None for the full one.

    Returns:
        Median and maximum over clips for each shorter window; the median over pairs of different clips as `"clips"`.
    """
    unit = {window: torch.nn.functional.normalize(values, dim=1) for window, values in embeddings.items()}
    distances = {window: 1 - (unit[None] * values).sum(1) for window, values in unit.items() if window}
    pairs = (1 - unit[None] @ unit[None].T)[np.triu_indices(len(unit[None]), 1)]
    summary = {window: (values.median().item(), values.max().item()) for window, values in distances.items()}
    return summary | {"clips": pairs.median().item()}


def measure(folder: str, waves: list[np.ndarray], rounds: int) -> dict:
    """The values of the template `whisper_window`."""
    encoders = {
        (window, layers): Encoder(folder, window, layers) for layers in (None, FEW_LAYERS) for window in WINDOWS
    }
    alternatives = {
        key: lambda _, encoder=encoder: encoder.seconds_per_clip(waves) for key, encoder in encoders.items()
    }
    times = {key: statistics.median(values) for key, values in measure_in_turn(alternatives, rounds).items()}
    depth = len(transformer_layers(encoders[None, None].model.audio_model)[1])
    rows = [
        {"window": window or 30, "layers": layers or depth, "seconds": seconds, "share": seconds / times[None, None]}
        for (window, layers), seconds in times.items()
    ]
    distances = cosine_distances({window: encoders[window, None].embed(waves) for window in WINDOWS})
    lengths = [len(wave) / encoders[None, None].extractor.sampling_rate for wave in waves]
    return {"rows": rows, "distances": distances, "rounds": rounds, "batch": BATCH, "clips": len(waves)} | {
        "longest": max(lengths),
        "mean": statistics.mean(lengths),
        "name": Path(folder).name,
    }


def main() -> None:
    """Measure, and write the section of RESULTS.md and the table of docs/encoders.md."""
    parser = parser_of(__doc__)
    default = Path(os.environ.get("GEMOCLAP_PRETRAINED") or ROOT / "pretrained", "whisper-base")
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/")
    parser.add_argument("--whisper", default=str(default), help="a Whisper checkpoint")
    parser.add_argument("--clips", type=int, default=16, help="number of clips")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the timing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = load_corpus(options.corpora / "emodb").column("path").to_pylist()
    chosen = np.random.default_rng(0).permutation(len(paths))[: options.clips]
    extractor = GEmoClapFeatureExtractor.from_audio_pretrained(options.whisper)
    values = measure(options.whisper, [extractor.load(paths[index]) for index in chosen], options.rounds)
    text = render("whisper_window", **values)
    write_section(COMMAND, text)
    write_blocks(ROOT / "docs/encoders.md", lambda name: text if name == "whisper-window" else None)


if __name__ == "__main__":
    main()
