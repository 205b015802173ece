"""Measure the timeline of one hour on all cores: real-time factor, peak memory, and the latency of a stream.

    python benchmarks/long_recording.py --corpora CORPORA

The hour consists of clips of speakers 14 and 15 of Emo-DB with pauses and room tone. Each case is a process of its
own; its peak memory includes Python, torch and the model. A silent recording of 24 hours is read too.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from documents import render, write_blocks, write_section
from harness import RATE, ROOT, parser_of, peak_mib, run_in_new_process
from joined import Joining, clips_of, join

from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.segments import TimelineOptions
from modeling_gemoclap.inference.stream import EmotionStream
from modeling_gemoclap.inference.timeline import timeline

COMMAND = "python benchmarks/long_recording.py --corpora CORPORA"
HOUR, DAY = 3600, 24 * 3600
CHUNK_SECONDS = 0.1


def measure_timeline(model: str, detector: str, path: str) -> dict:
    """Time, segments and peak memory of the timeline of a file, in this process."""
    pipe, before = load_pipeline(model), peak_mib()
    start = time.perf_counter()
    count = sum(1 for _ in timeline(pipe, path, TimelineOptions(vad=detector)))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "segments": count, "peak": peak_mib(), "loaded": before}


def measure_stream(model: str, path: str, minutes: int = 5) -> dict:
    """The time that a stream needs for chunks of 0.1 s: median, 99th percentile and maximum, in seconds."""
    stream, times = EmotionStream(load_pipeline(model), vad="silero"), []
    with soundfile.SoundFile(path) as file:
        for chunk in file.blocks(round(CHUNK_SECONDS * RATE), dtype="float32", frames=60 * minutes * RATE):
            start = time.perf_counter()
            stream.push(chunk, RATE)
            times.append(time.perf_counter() - start)
    return {
        "median": statistics.median(times),
        "p99": float(np.quantile(times, 0.99)),
        "max": max(times),
        "share": sum(times) / (60 * minutes),
    }


def main() -> None:
    """Measure, and write the section of RESULTS.md and the table of docs/timeline.md; or run one case."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, help="folder with emodb/")
    parser.add_argument("--case", nargs=3, help="timeline or stream, model:detector, file: run one case")
    parser.add_argument("--seconds", type=int, default=HOUR, help="length of the recording")
    options = parser.parse_args()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    if options.case:
        kind, names, path = options.case
        model, _, detector = names.partition(":")
        print(json.dumps(measure_stream(model, path) if kind == "stream" else measure_timeline(model, detector, path)))
        return
    clips = clips_of(options.corpora / "emodb", ["14", "15"])
    with tempfile.TemporaryDirectory() as folder:
        hour, part, day = (f"{folder}/{name}.wav" for name in ("hour", "part", "day"))
        wave, truth = join(clips, Joining("", (0.7, 2.0), -60.0), 0, options.seconds)
        soundfile.write(hour, wave, RATE)
        soundfile.write(part, wave[: len(wave) // 6], RATE)
        rows = []
        for model, detector in (("base", "silero"), ("base", "level"), ("compact", "silero")):
            for path, length in ((part, len(wave) / 6 / RATE), (hour, len(wave) / RATE)):
                row = run_in_new_process(__file__, "--case", "timeline", f"{model}:{detector}", path)
                rows.append(row | {"model": model, "detector": detector, "length": length})
        streams = {name: run_in_new_process(__file__, "--case", "stream", name, hour) for name in ("base", "compact")}
        with soundfile.SoundFile(day, "w", RATE, 1) as file:
            for _ in range(DAY // 60):
                file.write(np.zeros(60 * RATE, np.int16))
        silent = run_in_new_process(__file__, "--case", "timeline", "compact:level", day)
    speech = sum(stretch.end - stretch.start for stretch in truth) / (len(wave) / RATE)
    text = render("long_recording", rows=rows, streams=streams, silent=silent, speech=speech, day=DAY)
    write_section(COMMAND, text)
    write_blocks(ROOT / "docs/timeline.md", lambda name: text if name == "long-recording" else None)


if __name__ == "__main__":
    main()
