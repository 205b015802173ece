"""Compare exported models with the package: time, size, agreement and UAR, on clips of Emo-DB.

    python benchmarks/onnx_export.py --corpora CORPORA

Times are those from a waveform to scores, of single clips on two threads, in turn. `hubert-base` has random
weights and a small text encoder, and no UAR. Starts are those of new processes.
"""

from __future__ import annotations

import collections
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import torch
from documents import render, write_section
from harness import RATE, ROOT, measure_in_turn, parser_of, run_in_new_process
from models import clip_of, make_model

from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapProcessor, ZeroShotEmotionPipeline
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation.metrics import war_uar
from modeling_gemoclap.inference.export import ExportOptions, export_onnx
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.predictions import PredictionOptions, predict
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer

THREADS, HELD_OUT, TIMED_CLIPS = 2, ("14", "15"), 12
MODELS = ("hubert-base", "base", "compact")
PRECISIONS = {"float32": None, "int8": "int8"}
START = {
    "package": "from modeling_gemoclap import GEmoClap; GEmoClap.from_pretrained({model!r}).predict(['{clip}'])",
    "onnxruntime": "import numpy, onnxruntime, soundfile; wave = soundfile.read('{clip}', dtype='float32')[0][None]; "
    "onnxruntime.InferenceSession('{file}').run(None, {{'waveform': wave, 'lengths': numpy.array([wave.shape[1]])}})",
}


def pipeline_of(model: str) -> ZeroShotEmotionPipeline:
    """An included checkpoint, or a family with random weights and a small text encoder."""
    if model != "hubert-base":
        return load_pipeline(model, "cpu")
    hubert = make_model(model, small_text=True).eval()
    processor = GEmoClapProcessor(GEmoClapFeatureExtractor(), build_tokenizer(hubert.config))
    return ZeroShotEmotionPipeline(model=hubert, processor=processor, device="cpu")


def session_of(path: Path, profile=False) -> onnxruntime.InferenceSession:
    """An exported model on the threads of this benchmark."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.enable_profiling, options.profile_file_prefix = profile, str(path.with_suffix(""))
    return onnxruntime.InferenceSession(path, options)


def package_scores(pipe, waves: list[np.ndarray]) -> np.ndarray:
    """Scores of the package, of each clip alone."""
    answers = predict(pipe, map(clip_of, waves), PredictionOptions(batch_size=1))
    return np.array([[answer.scores[label] for label in pipe.model.config.emotions] for answer in answers])


def exported_scores(session: onnxruntime.InferenceSession, waves: list[np.ndarray]) -> np.ndarray:
    """Scores of an exported model, of each clip alone."""
    return np.concatenate(
        [session.run(["scores"], {"waveform": wave[None], "lengths": np.array([len(wave)])})[0] for wave in waves]
    )


def seconds_per_clip(scores, waves: list[np.ndarray]) -> float:
    """Time of `scores(waves)` for one clip."""
    start = time.perf_counter()
    scores(waves)
    return (time.perf_counter() - start) / len(waves)


def operators(path: Path, waves: list[np.ndarray]) -> dict[str, float]:
    """The shares of the five operators that take most of the time of an exported model."""
    session = session_of(path, profile=True)
    exported_scores(session, waves)
    times = collections.Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["cat"] == "Node":
            times[event["args"]["op_name"]] += event["dur"]
    return {name: value / times.total() for name, value in times.most_common(5)}


def measure(model: str, waves: list, truth: list[str], held_out: list[int], options) -> dict:
    """Export a model in both precisions, and compare it with the package."""
    pipe, folder = pipeline_of(model), Path(options.folder)
    files = {name: folder / f"{model}-{name}.onnx" for name in PRECISIONS}
    for name, path in files.items():
        export_onnx(pipe, path, ExportOptions(quantize=PRECISIONS[name]))
    timed = [waves[index] for index in np.linspace(0, len(waves) - 1, TIMED_CLIPS).astype(int)]
    ways = {"package": partial(package_scores, pipe)}
    ways |= {name: partial(exported_scores, session_of(path)) for name, path in files.items()}
    turns = {name: lambda _, way=way: seconds_per_clip(way, timed) for name, way in ways.items()}
    times = measure_in_turn(turns, options.rounds)
    compared = timed if model == "hubert-base" else waves
    scores, labels = {name: way(compared) for name, way in ways.items()}, pipe.model.config.emotions
    result = {"seconds": {name: statistics.median(values) for name, values in times.items()}, "clips": len(compared)}
    result |= {"faster": {}, "difference": {}, "uar": {}}
    for name in PRECISIONS:
        pairs = zip(times["package"], times[name], strict=True)
        result["faster"][name] = statistics.median(package / ours for package, ours in pairs)
        result["difference"][name] = float(np.abs(scores[name] - scores["package"]).max())
    for name, values in scores.items() if compared is waves else ():
        answers = [labels[column] for column in values[held_out].argmax(1)]
        result["uar"][name] = war_uar(answers, [truth[row] for row in held_out])["uar"]
    result["size"] = {name: path.stat().st_size for name, path in files.items()}
    result["operators"] = {name: operators(path, timed) for name, path in files.items()}
    return result


def start_of(model: str, clip: Path, folder: str, rounds: int) -> dict[str, float]:
    """Seconds until a new process has given its first answer."""
    words = {"model": model, "clip": clip, "file": Path(folder, f"{model}-float32.onnx")}
    environment = {"OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    timed = "import json, time; start = time.perf_counter(); {}; print(json.dumps(time.perf_counter() - start))"
    codes = [(name, ("-c", timed.format(code.format(**words)))) for name, code in START.items()]
    runs = {name: lambda _, code=code: run_in_new_process(*code, environment=environment) for name, code in codes}
    return {name: statistics.median(values) for name, values in measure_in_turn(runs, rounds).items()}


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with emodb")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    clips = load_corpus(options.corpora / "emodb").clips
    files, truth = list(clips["path"]), list(clips["emotion"])
    waves = [soundfile.read(file, dtype="float32")[0] for file in files]
    held_out = [index for index, speaker in enumerate(clips["speaker_id"]) if speaker in HELD_OUT]
    with tempfile.TemporaryDirectory() as options.folder:
        results = {model: measure(model, waves, truth, held_out, options) for model in MODELS}
        starts = {model: start_of(model, files[0], options.folder, options.rounds) for model in MODELS[1:]}
    values = {"results": results, "starts": starts, "rounds": options.rounds, "timed": TIMED_CLIPS, "threads": THREADS}
    values["seconds"] = sum(map(len, waves)) / RATE / len(waves)
    write_section("python benchmarks/onnx_export.py", render("onnx_export", **values))


if __name__ == "__main__":
    main()
