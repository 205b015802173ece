"""A manifest of a million rows, and clips per second from Parquet shards against the same clips in files.

    python benchmarks/data_at_scale.py [--rows 1000000] [--clips 768] [--rounds 5] [--workers 2]

Recordings are noise of 2 to 6 s, 16 bits at 16 kHz. Clips pass through what a training reads them with: sampler,
`ClipDataset`, feature extractor, `DataLoader`. Files and shards are read in turn, in one process.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import results
import soundfile
from torch.utils.data import DataLoader

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus
from modeling_gemoclap.corpora.shards import write_shards
from modeling_gemoclap.training.clips import ClipDataset, read_clips
from modeling_gemoclap.training.samplers import EpochSampler, ShardSampler

WORDS = ("angry", "Happiness", "neutral", "sad", "fear", "disgust", "")
RATE = 16000


def write_manifest(folder: Path, rows: int) -> None:
    """Write `metadata.csv`; its recordings may exist or not."""
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "emotion", "gender", "speaker_id"])
        for i in range(rows):
            name = f"audio/{i // 1000:04d}/{i:07d}.wav"
            writer.writerow([name, WORDS[i % len(WORDS)], "f" if i % 2 else "male", f"{i % 5000:04d}"])


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def open_manifest(folder: str) -> dict:
    """Open a manifest and select from it: seconds, and MiB above what the imports take."""
    before, start = peak_mib(), time.perf_counter()
    corpus = load_corpus(folder)
    opened = time.perf_counter()
    rest = corpus.of_speakers(None, corpus.speakers[:500]).of_emotions(["angry", "happy"], drop_others=True)
    took = [opened - start, time.perf_counter() - opened]
    return {"rows": len(corpus), "selected": len(rest), "seconds": took, "mib": [before, peak_mib() - before]}


def write_recordings(folder: Path, clips: int) -> None:
    """A corpus of noise."""
    write_manifest(folder, clips)
    rng = np.random.default_rng(0)
    for i in range(clips):
        path = folder / f"audio/{i // 1000:04d}/{i:07d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * rng.standard_normal(int(rng.uniform(2, 6) * RATE))
        soundfile.write(path, wave.astype(np.float32), RATE, subtype="PCM_16")


def clips_per_second(corpus: Corpus, extractor: GEmoClapFeatureExtractor, workers: int):
    """A function that reads one epoch and gives its rate."""
    clips = ClipDataset(corpus, extractor, GEmoClapConfig(emotions=corpus.emotions))
    batch, deal = 32, {"workers": max(1, workers), "drop_last": True}
    sampler = EpochSampler(len(clips)) if clips.groups is None else ShardSampler(clips.groups, batch, **deal)

    def collate(examples: list[dict]):
        return len(examples), extractor.collate([example["clip"] for example in examples])

    loader = DataLoader(
        clips, batch, sampler=sampler, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
    )

    def epoch(number: int) -> float:
        sampler.set_epoch(number)
        start = time.perf_counter()
        count = sum(size for size, _ in loader)
        return count / (time.perf_counter() - start)

    return epoch


def compare(
    files: Corpus, shards: Corpus, extractor: GEmoClapFeatureExtractor, workers: int, rounds: int
) -> list[float]:
    """Clips per second from files and from shards: medians of rounds in turn."""
    readers = [clips_per_second(corpus, extractor, workers) for corpus in (files, shards)]
    rates = [[read(number) for read in readers] for number in range(rounds + 1)][1:]  # the first round warms up
    return [statistics.median(column) for column in zip(*rates, strict=True)]


def table_row(name: str, local: float, streamed: float) -> str:
    """A row of the table; the quotient is that of the two figures beside it."""
    return f"| {name} | {local:.0f} clips/s | {streamed:.0f} clips/s | {streamed / local:.2f} |"


def main(rows: int, clips: int, rounds: int, workers: int) -> None:
    """Run all, and write the section."""
    with tempfile.TemporaryDirectory() as folder:
        many, few, sharded = (Path(folder, name) for name in ("many", "few", "shards"))
        for path in (many, few):
            path.mkdir()
        write_manifest(many, rows)
        command = [sys.executable, __file__, "--open", str(many)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        write_recordings(few, clips)
        write_shards(load_corpus(few), sharded, clips_per_shard=256)
        files, shards = load_corpus(few), load_corpus(sharded)
        table = ["| input | files | shards | shards over files |", "|---|---|---|---|"]
        extractors = {"waves (WavLM and the like)": GEmoClapFeatureExtractor()}
        extractors["log-mel (the compact encoder)"] = GEmoClapFeatureExtractor(feature_type="log_mel")
        for name, extractor in extractors.items():
            read, _ = read_clips(files, extractor, cache_dir=folder)
            table.append(table_row(name, *compare(read, shards, extractor, workers, rounds)))
    (opened, selected), (before, above) = found["seconds"], found["mib"]
    text = [
        f"`load_corpus` on a manifest of {found['rows']:,} rows, every column checked: {opened:.1f} s; its peak lies "
        f"{above:.0f} MiB above the {before:.0f} MiB of the imports (torch, transformers, datasets). To leave out 500 "
        f"of 5000 speakers and all but two emotions takes {selected:.2f} s more ({found['selected']:,} rows).",
        f"Clips through `DataLoader`, {workers} workers, batches of 32, {clips} clips of 2 to 6 s, medians of "
        f"{rounds} epochs in turn:",
        "\n".join(table),
        "Log-mel features of files are computed once and kept; those of shards are computed whenever a clip is read.",
    ]
    results.write("python benchmarks/data_at_scale.py", "\n\n".join(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"rows": 1_000_000, "clips": 768, "rounds": 5, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--open", help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    folder = arguments.pop("open")
    print(json.dumps(open_manifest(folder))) if folder else main(**arguments)
