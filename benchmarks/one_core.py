"""Measure predictions on one core, from file to labels, beside openSMILE and a pipeline of transformers.

    pip install -e '.[train,opensmile]' -c constraints.txt
    python benchmarks/one_core.py --corpora CORPORA

Every system runs in a process of its own, on one thread and pinned to one core, on the same clips of Emo-DB, one after
the other and in turn. openSMILE computes the functionals of ComParE 2016, without a classifier. The pipeline of
transformers gets decoded arrays. Loading is measured by itself. Figures are seconds per second of audio.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from documents import table_row, write_section
from harness import measure_in_turn, parser_of, run_in_new_process
from opensmile_baseline import refuse_missing_opensmile

CHECKPOINTS = ("base", "compact")
SYSTEMS = {
    **{name: f"gemoclap-{name}, from file to labels" for name in CHECKPOINTS},
    **{f"stock {name}": f"`zero-shot-audio-classification`, gemoclap-{name}, from arrays" for name in CHECKPOINTS},
    "openSMILE": "openSMILE, functionals of ComParE 2016, from files",
}
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
BATCH = 16


def system_of(name: str, paths: list[str]) -> Callable[[], object]:
    """A function that classifies recordings, or computes their features, with a system that is loaded here.

    Args:
        name: A key of `SYSTEMS`.
        paths: The recordings.
    """
    if name == "openSMILE":
        import opensmile

        smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals, num_workers=1)
        return lambda: [smile.process_file(path) for path in paths]
    import torch

    from modeling_gemoclap.inference.loading import load_pipeline

    torch.set_num_threads(1)
    stock, _, checkpoint = name.rpartition(" ")
    pipe = load_pipeline(checkpoint, "cpu")
    if not stock:
        return lambda: pipe(paths, batch_size=BATCH)
    from transformers import pipeline

    parts = {"feature_extractor": pipe.processor.feature_extractor, "tokenizer": pipe.processor.tokenizer}
    other = pipeline("zero-shot-audio-classification", model=pipe.model, device="cpu", **parts)
    waves = [pipe.processor.feature_extractor.load(path) for path in paths]
    options = {"candidate_labels": pipe.model.config.prompt_words, "hypothesis_template": "this person is feeling {}"}
    return lambda: list(other(waves, **options))


def measure(name: str, paths: list[str]) -> dict[str, float]:
    """Seconds of loading and of all recordings, in this process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    run = system_of(name, paths)
    loading = time.perf_counter() - start
    run()
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return {"loading": loading, "run": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def main() -> None:
    """Measure all systems in turn, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/")
    parser.add_argument("--every", type=int, default=16, help="use every n-th recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--system", choices=list(SYSTEMS), help="measure one system, and print its figures as JSON")
    options = parser.parse_args()
    refuse_missing_opensmile()
    paths = sorted(str(path) for path in (options.corpora / "emodb" / "audio").iterdir())[:: options.every]
    if options.system:
        print(json.dumps(measure(options.system, paths)))
        return
    import soundfile

    seconds = sum(soundfile.info(path).duration for path in paths)
    arguments = ("--corpora", options.corpora, "--every", options.every, "--system")
    measured = measure_in_turn(
        {
            name: lambda _, name=name: run_in_new_process(__file__, *arguments, name, environment=ONE_THREAD)
            for name in SYSTEMS
        },
        options.rounds,
    )
    rows = []
    for name, title in SYSTEMS.items():
        loading, run, cpu = (
            statistics.median(values[part] for values in measured[name]) for part in ("loading", "run", "cpu")
        )
        rows.append(table_row(title, f"{run / seconds:.4f}", f"{cpu / seconds:.4f}", f"{loading:.2f} s"))
    text = (
        f"{len(paths)} clips with {seconds:.0f} s of audio, one core, medians of {options.rounds} processes. Batches "
        f"of {BATCH} for the pipeline of this package. Imports of libraries are part of loading.\n"
    )
    heading = table_row("system", "time per second of audio", "of the processor", "loading")
    write_section(
        "python benchmarks/one_core.py --corpora CORPORA", "\n".join([text, heading, "|---|---|---|---|", *rows])
    )


if __name__ == "__main__":
    main()
