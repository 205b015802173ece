"""Compare batches by length with random batches: padding, classes, speed, and accuracy.

    python benchmarks/batches_by_length.py [--corpora FOLDER]            padding, classes and speed
    python benchmarks/batches_by_length.py --corpora FOLDER --train      also the trainings, which take hours

Without `--corpora`, the lengths are random numbers distributed as those of Emo-DB and RAVDESS. Speed is measured on
wav2vec2-base with random weights: forward and backward passes over batches at equal distances in an epoch that is
sorted by the longest clip. Of each batch of 32 some clips are run, padded to its longest, since all take minutes. The
trainings are of configs/compact.yaml on complete clips of Emo-DB, evaluated on pairs of development speakers. Their
results are kept in docs/evidence/batches_by_length.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from documents import render, write_section
from harness import EVIDENCE, RATE, ROOT, parser_of, run_in_new_process
from lengths import BATCH, mixes, read_lengths, rebalanced_padding
from models import make_model

from modeling_gemoclap.corpora.files import write_json
from modeling_gemoclap.evaluation import command as evaluation
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.runs import train
from modeling_gemoclap.training.samplers import EpochSampler, LengthSampler

RECORD = EVIDENCE / "batches_by_length.json"
PAIRS, SEEDS = (("13", "11"), ("16", "10")), (0, 1, 2)
ARMS = {"prompt for each clip": (), "random": (), "by length": ("--batch_by_length", "true")}
FIRST = next(iter(ARMS))
RECIPE = (
    "--config",
    str(ROOT / "configs/compact.yaml"),
    "--no-max_seconds",
    "--num_train_epochs",
    "40",
    "--save_strategy",
    "no",
)
RECIPE += ("--store_training_clips", "false", "--disable_tqdm", "true")


def clips_per_second(seconds: np.ndarray, count: int, clips: int) -> dict[str, float]:
    """Clips per second of both kinds of batches, measured in turn, on some clips of each batch."""
    model = make_model("wav2vec2-base", small_text=True, audio={"layerdrop": 0.0}, objective="emo")
    index = torch.arange(clips) % 4
    texts = {"input_ids": torch.arange(5, 9)[:, None], "prompt_index": index, "emotion_labels": index}
    random, batches = EpochSampler(len(seconds)), {}
    for name, sampler in {"random": random, "by length": LengthSampler(random, seconds, BATCH)}.items():
        lengths = seconds[np.array(list(sampler)[: len(seconds) // BATCH * BATCH])].reshape(-1, BATCH)
        lengths = np.sort(lengths[lengths.max(1).argsort()])
        places = ((np.arange(count) + 0.5) * len(lengths) / count).astype(int)
        batches[name] = lengths[places][:, :: -BATCH // clips]  # the longest clip of each batch among them
    times = {name: [] for name in batches}
    for number in range(count):
        for name, parts in batches.items():
            mask = np.arange(int(parts[number].max() * RATE)) < (parts[number] * RATE)[:, None]
            waves = torch.randn(mask.shape) * torch.from_numpy(mask)
            start = time.perf_counter()
            model(input_values=waves, audio_attention_mask=torch.from_numpy(mask).long(), **texts).loss.backward()
            times[name].append(time.perf_counter() - start)
            model.zero_grad()
    return {name: clips * count / sum(values) for name, values in times.items()}


def train_one(arm: str, seed: int, pair: list[str], corpora: str) -> dict:
    """Train, and return the UAR on the pair."""
    if arm == "prompt for each clip":
        GEmoClapCollator._text_inputs = lambda self, texts: self.tokenize(texts)
    with tempfile.TemporaryDirectory() as folder:
        data = ("--data_dir", str(Path(corpora, "emodb")))
        others = ("--exclude_speakers", "14", "15", *pair)
        train.main([*RECIPE, *ARMS[arm], *data, *others, "--seed", str(seed), "--output_dir", f"{folder}/run"])
        evaluation.main(["--model", f"{folder}/run", *data, "--speakers", *pair, "--output_dir", f"{folder}/results"])
        return {"uar": json.loads(Path(folder, "results/results.json").read_text())["uar"]}


def train_all(corpora: str) -> None:
    """Train every arm with every seed on both pairs, and write the record after each training."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else []
    done = {(row["arm"], tuple(row["pair"]), row["seed"]) for row in record}
    cells = [(arm, pair, seed) for pair in PAIRS for seed in SEEDS for arm in ARMS]
    for arm, pair, seed in cells:
        if (arm, pair, seed) not in done:
            result = run_in_new_process(__file__, "--one", json.dumps([arm, seed, pair]), "--corpora", corpora)
            record.append({"arm": arm, "pair": pair, "seed": seed, **result})
            write_json(RECORD, record)


def paired(record: list[dict]) -> list[dict]:
    """For each arm the UAR of its trainings, and the mean difference to the first arm with its standard error."""
    uar = {(row["arm"], *row["pair"], row["seed"]): row["uar"] for row in record}
    rows = []
    for arm in ARMS:
        cells = [key for key in uar if key[0] == arm and (FIRST, *key[1:]) in uar]
        differences = [uar[key] - uar[(FIRST, *key[1:])] for key in cells]
        error = statistics.stdev(differences) / len(cells) ** 0.5 if len(cells) > 1 else 0.0
        mean = statistics.mean(uar[key] for key in cells) if cells else 0.0
        difference = statistics.mean(differences) if cells else 0.0
        rows.append({"arm": arm, "count": len(cells), "mean": mean, "difference": difference, "error": error})
    return rows


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", help="folder of emodb and ravdess")
    parser.add_argument("--train", action="store_true", help="run the trainings that the record lacks")
    parser.add_argument("--count", type=int, default=5, help="batches of each kind whose speed is measured")
    parser.add_argument("--clips", type=int, default=4, help="clips of each batch whose speed is measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train_one(*json.loads(options.one), options.corpora)))
        return
    if options.train:
        train_all(options.corpora)
    seconds, emotions, corpora = read_lengths(options.corpora)
    text = render(
        "batches_by_length",
        real=options.corpora is not None,
        clips=len(seconds),
        mixes=mixes(seconds, emotions, corpora),
        rebalanced=[rebalanced_padding(seconds, processes) for processes in (1, 2)],
        rates=clips_per_second(seconds, options.count, options.clips),
        paired=paired(json.loads(RECORD.read_text())),
        options=options,
    )
    write_section("python benchmarks/batches_by_length.py", text)


if __name__ == "__main__":
    main()
