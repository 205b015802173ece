"""Measure a manifest of a million rows, and clips per second from Parquet shards and from the same clips in files.

    python benchmarks/data_at_scale.py [--rows 1000000] [--clips 768] [--rounds 5] [--workers 2]

Recordings are noise of 2 to 6 s, 16 bits at 16 kHz. Clips are read as training reads them: sampler, `ClipDataset`,
feature extractor and `DataLoader`. Files and shards are read in turn, in one process.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from documents import render, write_section
from harness import RATE, measure_in_turn, parser_of, peak_mib, run_in_new_process
from torch.utils.data import DataLoader

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus
from modeling_gemoclap.corpora.shards import write_shards
from modeling_gemoclap.training.clips import ClipDataset, read_clips
from modeling_gemoclap.training.samplers import EpochSampler, ShardSampler

EMOTIONS = ("angry", "Happiness", "neutral", "sad", "fear", "disgust", "")
BATCH = 32
INPUTS = {"waves (WavLM and similar)": {}, "log-mel (the compact encoder)": {"feature_type": "log_mel"}}


def recording_name(number: int) -> str:
    """The file name of a recording."""
    return f"audio/{number // 1000:04d}/{number:07d}.wav"


def write_manifest(folder: Path, rows: int) -> None:
    """Write `metadata.csv`, without recordings."""
    folder.mkdir()
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "emotion", "gender", "speaker_id"])
        for number in range(rows):
            gender = "f" if number % 2 else "male"
            writer.writerow([recording_name(number), EMOTIONS[number % len(EMOTIONS)], gender, f"{number % 5000:04d}"])


def write_recordings(folder: Path, clips: int) -> None:
    """Write a corpus of noise."""
    write_manifest(folder, clips)
    rng = np.random.default_rng(0)
    for number in range(clips):
        path = folder / recording_name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * rng.standard_normal(int(rng.uniform(2, 6) * RATE))
        soundfile.write(path, wave.astype(np.float32), RATE, subtype="PCM_16")


def open_manifest(folder: str) -> dict:
    """Open a manifest and select from it: numbers of rows, seconds, and the peak before and above it in MiB."""
    before, start = peak_mib(), time.perf_counter()
    corpus = load_corpus(folder)
    opened = time.perf_counter()
    selected = corpus.of_speakers(None, corpus.speakers[:500]).of_emotions(["angry", "happy"], drop_others=True)
    seconds = {"open": opened - start, "select": time.perf_counter() - opened}
    mib = {"before": before, "above": peak_mib() - before}
    return {"rows": len(corpus), "selected": len(selected), "seconds": seconds, "mib": mib}


def epoch_reader(corpus: Corpus, extractor: GEmoClapFeatureExtractor, workers: int) -> Callable[[int], float]:
    """A function that reads an epoch, given its number, and returns clips per second."""
    clips = ClipDataset(corpus, extractor, GEmoClapConfig(emotions=corpus.emotions))
    if clips.groups is None:
        sampler = EpochSampler(len(clips))
    else:
        sampler = ShardSampler(clips.groups, BATCH, workers=max(1, workers), drop_last=True)

    def collate(examples: list[dict]):
        return len(examples), extractor.collate([example["clip"] for example in examples])

    loader = DataLoader(
        clips, BATCH, sampler=sampler, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
    )

    def read(epoch: int) -> float:
        sampler.set_epoch(epoch)
        start = time.perf_counter()
        count = sum(size for size, _ in loader)
        return count / (time.perf_counter() - start)

    return read


def clips_per_second(folder: Path, clips: int, rounds: int, workers: int) -> list[dict]:
    """Rates from files and from shards for each kind of input; medians over rounds."""
    write_recordings(folder / "files", clips)
    files = load_corpus(folder / "files")
    write_shards(files, folder / "shards", clips_per_shard=256)
    shards, rates = load_corpus(folder / "shards"), []
    for title, settings in INPUTS.items():
        extractor = GEmoClapFeatureExtractor(**settings)
        corpora = {"files": read_clips(files, extractor, cache_dir=folder)[0], "shards": shards}
        readers = {name: epoch_reader(corpus, extractor, workers) for name, corpus in corpora.items()}
        medians = {name: statistics.median(values) for name, values in measure_in_turn(readers, rounds).items()}
        rates.append({"input": title, **medians})
    return rates


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the manifest")
    parser.add_argument("--clips", type=int, default=768, help="clips of the corpus that is read")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each kind")
    parser.add_argument("--workers", type=int, default=2, help="workers of the DataLoader")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(open_manifest(options.open)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder, "manifest"), options.rows)
        manifest = run_in_new_process(__file__, "--open", Path(folder, "manifest"))
        rates = clips_per_second(Path(folder), options.clips, options.rounds, options.workers)
    text = render("data_at_scale", manifest=manifest, rates=rates, batch=BATCH, **vars(options))
    write_section("python benchmarks/data_at_scale.py", text)


if __name__ == "__main__":
    main()
