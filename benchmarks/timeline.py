"""Measure timelines of joined clips of speakers that the shipped checkpoints were not trained on.

    python benchmarks/timeline.py --corpora CORPORA

The recordings consist of the clips of speakers 14 and 15 of Emo-DB, each once, in random order, with pauses and room
tone between them. The options are the defaults. Beside the timeline, the same clips are classified one by one, with
known borders: what a timeline can reach at best.
"""

from __future__ import annotations

from pathlib import Path

import torch
from documents import render, write_blocks, write_section
from harness import RATE, ROOT, parser_of
from joined import Joining, clips_of, compare, join

from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.segments import TimelineOptions
from modeling_gemoclap.inference.timeline import timeline

COMMAND = "python benchmarks/timeline.py --corpora CORPORA"
MODELS, DETECTORS, SPEAKERS = ("base", "compact"), ("silero", "level"), ["14", "15"]
JOININGS = (
    Joining("pauses of 0.7 to 2 s, room tone at -60 dBFS", (0.7, 2.0), -60.0),
    Joining("pauses of 0.7 to 2 s, room tone at -40 dBFS", (0.7, 2.0), -40.0),
    Joining("no pauses, room tone at -60 dBFS", (0.0, 0.0), -60.0),
)


def rows_of(clips: list, seed: int) -> list[dict]:
    """The measures of each recording, model and detector."""
    pipes, rows = {name: load_pipeline(name) for name in MODELS}, []
    for joining in JOININGS:
        wave, truth = join(clips, joining, seed)
        recording = {"array": wave, "sampling_rate": RATE}
        for name, pipe in pipes.items():
            for detector in DETECTORS:
                found = list(timeline(pipe, recording, TimelineOptions(vad=detector)))
                measures = compare(found, truth, len(wave) / RATE)
                rows.append({"joining": joining.name, "model": name, "detector": detector, "measures": measures})
    return rows


def of_known_clips(clips: list, model: str) -> float:
    """Share of the time with the right label, if each clip is classified with known borders."""
    pipe = load_pipeline(model)
    answers = pipe([{"array": wave, "sampling_rate": RATE} for wave, _ in clips], batch_size=16)
    lengths = [len(wave) for wave, _ in clips]
    right = sum(
        length
        for answer, (_, label), length in zip(answers, clips, lengths, strict=True)
        if answer[0]["label"] == label
    )
    return right / sum(lengths)


def main() -> None:
    """Measure, and write the section of RESULTS.md and the table of docs/timeline.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the pauses")
    options = parser.parse_args()
    torch.manual_seed(0)
    clips = clips_of(options.corpora / "emodb", SPEAKERS)
    known = {model: of_known_clips(clips, model) for model in MODELS}
    values = {"rows": rows_of(clips, options.seed), "known": known, "clips": len(clips)}
    text = render("timeline", **values, seconds=sum(len(wave) for wave, _ in clips) / RATE)
    write_section(COMMAND, text)
    write_blocks(ROOT / "docs/timeline.md", lambda name: text if name == "timeline" else None)


if __name__ == "__main__":
    main()
