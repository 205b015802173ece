"""Measure predictions from files to labels: what limits them, and where the time goes.

    python benchmarks/inference.py --corpora CORPORA --part throughput --model compact
    python benchmarks/inference.py --corpora CORPORA --part throughput --model hubert-base --every 8
    python benchmarks/inference.py --corpora CORPORA --part stock
    python benchmarks/inference.py --corpora CORPORA --part lengths
    python benchmarks/inference.py --corpora CORPORA --part memory

The recordings are those of Emo-DB. hubert-base has random weights and a small text tower. `throughput` compares the
pipeline with the audio tower alone, which runs on the same clips, sorted by length and collated beforehand. The other
parts use the included compact model. Alternatives run in turn, on the number of threads of torch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from documents import table_row, write_section
from harness import RATE, parser_of
from inference_parts import BATCH, WORDS, lengths, medians_of, memory, run_tower, stock
from limits import count_flop, matrix_peak
from models import make_extractor, make_model
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from modeling_gemoclap import GEmoClapProcessor, ZeroShotEmotionPipeline
from modeling_gemoclap.batching_gemoclap import batches_by_length, padding_limit
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.spectrograms_gemoclap import log_mel


def pipe_of(name: str) -> ZeroShotEmotionPipeline:
    """The pipeline of an included model, or of a family of encoders with random weights."""
    if name in ("base", "compact"):
        return load_pipeline(name, "cpu")
    processor = GEmoClapProcessor(make_extractor(name), load_pipeline("compact", "cpu").processor.tokenizer)
    model = make_model(name, small_text=True, emotions=WORDS[:7]).eval()
    model.text_model.resize_token_embeddings(len(processor.tokenizer))
    return ZeroShotEmotionPipeline(model=model, processor=processor, device="cpu")


def throughput(options, paths: list[str]) -> str:
    """The pipeline beside the tower alone, its parts, and the peak of the machine."""
    pipe = pipe_of(options.model)
    model, extractor = pipe.model, pipe.processor.feature_extractor
    waves = [extractor.load_speech(path) for path in paths]
    clips = [extractor.features(wave) for wave in waves]
    places = batches_by_length(list(map(len, clips)), BATCH, padding_limit(model, extractor))
    groups = [[clips[place] for place in group] for group in places]
    batches = [extractor.collate(group) for group in groups]
    embeddings, classes = run_tower(model, batches), pipe._embed_classes(model.config.class_prompts())
    parts = {
        "pipeline, from files to labels": lambda: pipe(paths, batch_size=BATCH),
        "audio tower alone": lambda: run_tower(model, batches),
        "reading of the files": lambda: [extractor.load_speech(path) for path in paths],
        "features": lambda: [extractor.features(wave) for wave in waves],
        "padding to batches": lambda: [extractor.collate(group) for group in groups],
        "scores and their order": lambda: pipe._rank(embeddings, classes, model.config.emotions),
    }
    if extractor.feature_type == "log_mel":
        mel = mel_filter_bank(257, 64, 50.0, RATE / 2, RATE, mel_scale="htk")
        window, more = window_function(400, "hann"), {"power": 2.0, "center": False, "mel_filters": mel}
        more |= {"mel_floor": 1e-6, "log_mel": "log"}
        parts["log-mel of these features"] = lambda: [log_mel(w, RATE, 0.025, 0.01, 64, (50, None)) for w in waves]
        parts["the same with `spectrogram` of transformers"] = lambda: [
            spectrogram(wave, window, 400, 160, 512, **more) for wave in waves
        ]
    times = medians_of(parts, options.rounds)
    (whole, _), (tower, busy) = list(times.values())[:2]
    with torch.no_grad():  # the counter does not support inference mode with the weight norm of HuBERT
        rate = count_flop(lambda: [model.get_audio_features(**batch) for batch in batches]) / tower
    seconds, peak = sum(map(len, waves)) / RATE, matrix_peak()
    rows = [
        table_row(name, f"{value:.3f} s", f"{value / tower:.3f}", f"{cpu:.3f} s", f"{cpu / busy:.3f}")
        for name, (value, cpu) in times.items()
    ]
    return "\n".join(
        [
            f"{options.model}, {len(paths)} clips with {seconds:.0f} s of audio, batches of {BATCH}, medians of "
            f"{options.rounds} rounds. The tower runs at {rate / 1e9:.1f} GFLOP/s, which is {rate / peak:.2f} of the "
            f"measured peak of a matrix product, {peak / 1e9:.1f} GFLOP/s. The pipeline has {tower / whole:.3f} of "
            f"the throughput of the tower alone: {len(paths) / whole:.1f} clips per second. Files are read in threads "
            f"while the model runs, so the time of the parts is more than that of the pipeline.\n",
            table_row("part, measured by itself", "time", "of the tower", "time of the processor", "of the tower"),
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    """Measure one part, and write its section of RESULTS.md."""
    parts = {function.__name__: function for function in (throughput, stock, lengths, memory)}
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb/")
    parser.add_argument("--part", choices=list(parts), required=True)
    parser.add_argument("--model", default="compact", help="for throughput: base, compact or a family of encoders")
    parser.add_argument("--every", type=int, default=1, help="use every n-th recording")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = sorted(str(path) for path in (options.corpora / "emodb" / "audio").iterdir())[:: options.every]
    command = f"python benchmarks/inference.py --corpora CORPORA --part {options.part}"
    if options.part == "throughput":
        command += f" --model {options.model}"
    command += f" --every {options.every}" if options.every > 1 else ""
    write_section(command, parts[options.part](options, paths))


if __name__ == "__main__":
    main()
