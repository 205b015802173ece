"""The parts of inference.py that use the included compact model, and how they are timed."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from documents import table_row
from harness import RATE, measure_in_turn
from transformers import pipeline

from modeling_gemoclap.batching_gemoclap import process_in_batches
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.pipeline_gemoclap import load_clip

BATCH = 16
WORDS = ["angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad", "calm"]
TEMPLATES = ["this person is feeling {}", "a {} voice", "{} speech", "someone sounds {}", "a {} person speaks"]
MANY = 10_000  # recordings of the part `memory`


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and seconds of the processor in all threads."""
    start, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - cpu


def medians_of(functions: dict[str, Callable], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of functions that run in turn, and of the processor."""
    measured = measure_in_turn({name: lambda _, f=f: timed(f) for name, f in functions.items()}, rounds)
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in measured.items()}


@torch.inference_mode()
def run_tower(model, batches: list) -> torch.Tensor:
    """The embeddings of collated batches."""
    return torch.cat([model.get_audio_features(**batch) for batch in batches])


def stock(options, paths: list[str]) -> str:
    """Our pipeline beside `zero-shot-audio-classification`, which gets decoded arrays."""
    pipe = load_pipeline("compact", "cpu")
    model, processor = pipe.model, pipe.processor  # the scores of both are calibrated
    other = pipeline(
        "zero-shot-audio-classification",
        model=model,
        feature_extractor=processor.feature_extractor,
        tokenizer=processor.tokenizer,
        device="cpu",
    )
    waves = [processor.feature_extractor.load(path) for path in paths]
    rows = []
    for count, templates in ((4, TEMPLATES[:1]), (8, TEMPLATES)):
        words = WORDS[:count]
        prompts = [template.replace("{}", word) for word in words for template in templates]
        answers = {}

        def ours(words=words, templates=templates, answers=answers):
            answers["ours"] = pipe(paths, words, templates, batch_size=BATCH)

        def theirs(size, prompts=prompts, answers=answers):
            options = {"candidate_labels": prompts, "hypothesis_template": "{}", "batch_size": size}
            answers["stock"] = list(other(waves, **options))

        functions = {"ours": ours, "1": partial(theirs, 1), str(BATCH): partial(theirs, BATCH)}
        times = medians_of(functions, options.rounds)
        scores = [{item["label"]: item["score"] for item in answer} for answer in answers["stock"]]
        logs = np.log([[row[prompt] for prompt in prompts] for row in scores]).reshape(len(paths), count, -1).mean(2)
        theirs_now = torch.from_numpy(logs).softmax(-1).numpy()
        found = [{item["label"]: item["score"] for item in answer} for answer in answers["ours"]]
        own = np.array([[row[word] for word in words] for row in found])
        same, difference = (own.argmax(1) == theirs_now.argmax(1)).mean(), np.abs(own - theirs_now).max()
        cells = [f"{times[name][0]:.2f} s" for name in functions]
        cells += [f"{times[name][0] / times['ours'][0]:.1f}" for name in ("1", str(BATCH))]
        rows.append(table_row(f"{count}, {len(templates)}", *cells, f"{same:.1%}", f"{difference:.1e}"))
    return "\n".join(
        [
            f"The compact model, {len(paths)} clips, medians of {options.rounds} rounds. The pipeline of transformers "
            f"gets decoded arrays, ours files. With several templates, it gets all prompts as labels, and the "
            f"logarithms of its scores are averaged for each label; ours averages embeddings.\n",
            table_row("labels, templates", "ours", "stock, one by one", f"stock, batches of {BATCH}")
            + " ratio | ratio | same label | largest difference of a score |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def lengths(options, paths: list[str]) -> str:
    """Batches of clips of mixed lengths: in their order, by the pipeline, and sorted beforehand."""
    pipe, rows = load_pipeline("compact", "cpu"), []
    extractor, random = pipe.processor.feature_extractor, np.random.default_rng(0)
    speech = np.concatenate([extractor.load(path) for path in paths[:60]])
    clips = []
    for seconds in random.lognormal(1.0, 0.7, 256).clip(0.5, 15):
        start = random.integers(0, len(speech) - 16 * RATE)
        clips.append({"array": speech[start : start + int(seconds * RATE)], "sampling_rate": RATE})

    def predict(batch):
        return run_tower(pipe.model, [extractor.collate(batch)])

    def in_order(size, stream):
        generator = (clip for clip in stream)  # of which one batch is asked for at a time, without a limit of padding
        return list(process_in_batches(generator, size, load, predict))

    load = partial(load_clip, extractor)
    by_length = sorted(clips, key=lambda clip: len(clip["array"]))
    for size in (8, 16, 32, 64):
        functions = {"order": partial(in_order, size, clips), "pipe": partial(pipe, clips, batch_size=size)}
        times = medians_of(functions | {"sorted": partial(in_order, size, by_length)}, options.rounds)
        rows.append(table_row(str(size), *(f"{seconds:.2f} s" for seconds, _ in times.values())))
    heading = table_row("batch", "in their order", "pipeline", "sorted beforehand")
    text = f"The compact model, {len(clips)} clips of 0.5 to 15 s, medians of {options.rounds} rounds.\n"
    return "\n".join([text, heading, "|---|---|---|---|", *rows])


def memory(options, paths: list[str]) -> str:
    """The resident memory while many recordings are classified."""
    pipe, sizes = load_pipeline("compact", "cpu"), {}
    many = iter((paths * (MANY // len(paths) + 1))[:MANY])
    for number, _ in enumerate(pipe(many, batch_size=BATCH), 1):
        if number in (1000, *range(2000, MANY + 1, 2000)):
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes[number] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    rows = [table_row(f"{number:,}", f"{size:.0f} MiB") for number, size in sizes.items()]
    text = f"The compact model, {MANY:,} recordings, batches of {BATCH}.\n"
    return "\n".join([text, table_row("recordings", "resident memory"), "|---|---|", *rows])
