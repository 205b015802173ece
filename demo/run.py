"""Synthesize a corpus, train on it, evaluate the model on new voices and use it, in one command.

python demo/run.py [FOLDER]

At the end the checkpoint that is shipped predicts the emotion of a recording: a real one if $GEMOCLAP_CORPORA has
emodb/, otherwise a synthesized one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from modeling_gemoclap.command_line.failures import run_main  # noqa: E402
from modeling_gemoclap.command_line.places import cache_folders, refuse_unwritable  # noqa: E402

FLAT = ("pitch", "energy")
SHIPPED = ROOT / "checkpoints" / "gemoclap-base"


def run(*command: str | Path) -> None:
    """Print a command of the project and run it in the project's folder."""
    programs = {"python": [sys.executable], "accelerate launch": [sys.executable, "-m", "accelerate.commands.launch"]}
    print("\n$ " + " ".join(map(str, command)), flush=True)
    subprocess.run([*programs[command[0]], *command[1:]], cwd=ROOT, check=True)


def evaluate(model: Path, corpus: Path, output: Path, voices: list[str]) -> dict:
    """Run `evaluate.py` on some voices, and return its results."""
    options = ("--model", model, "--data_dir", corpus, "--output_dir", output)
    run("python", "evaluate.py", *options, "--speakers", *voices)
    return json.loads((output / "results.json").read_text())


def predict(model: Path, clip: Path, description: str) -> None:
    """Print a checkpoint's scores for a clip; this needs transformers alone, not the package."""
    from transformers import pipeline

    scores = pipeline("zero-shot-emotion-recognition", model=str(model), trust_remote_code=True)(str(clip))
    print(f"\n{clip.name} ({description}):")
    print("\n".join(f"  {item['score']:.2f}  {item['label']}" for item in scores))


def synthesize(output: Path) -> None:
    """Write the corpus, and the test voices with flat pitch and with flat energy."""
    from espeak_corpus import Synthesizer, build

    print("synthesizing the corpus ...", flush=True)
    synthesizer = Synthesizer()
    build(output / "corpus", synthesizer, "all")
    for flat in FLAT:
        build(output / f"flat_{flat}", synthesizer, "test", flat)


def main(argv: list[str]) -> None:
    """Synthesize, train, evaluate and predict."""
    if argv[1:] or argv[:1] and argv[0].startswith("-"):
        raise ValueError("give one folder or none: python demo/run.py [FOLDER]")
    from espeak_corpus import TEST_VOICES, speaker_of

    start, test_voices = time.time(), [speaker_of(voice) for voice in TEST_VOICES]
    output = Path(argv[0] if argv else ROOT / "demo" / "output").expanduser().resolve()
    refuse_unwritable({"FOLDER": output} | cache_folders())
    for name in ("corpus", "flat_pitch", "flat_energy", "checkpoint", "evaluation"):
        shutil.rmtree(output / name, ignore_errors=True)
    synthesize(output)
    corpus, model = output / "corpus", output / "checkpoint"
    options = ("--config", "configs/demo.yaml", "--data_dir", corpus, "--output_dir", model)
    run("accelerate launch", "--num_processes", "1", "train.py", *options, "--exclude_speakers", *test_voices)
    results = evaluate(model, corpus, output / "evaluation", test_voices)
    flat_folders = [output / f"flat_{flat}" for flat in FLAT]
    flat_pitch, flat_energy = (evaluate(model, path, path / "evaluation", test_voices)["uar"] for path in flat_folders)

    from modeling_gemoclap.evaluation.report import as_table

    print(f"\n=== {results['n']} clips of {len(test_voices)} voices that were not used for training ===\n")
    print(as_table(results))
    print(
        f"\nUAR {results['uar']:.3f}; with flat pitch {flat_pitch:.3f}, with flat energy {flat_energy:.3f} "
        "(chance: 0.250)"
    )
    clip = corpus / "audio" / "f4_00_angry.wav"
    predict(model, clip, "synthesized, angry")
    real = sorted(Path(os.environ.get("GEMOCLAP_CORPORA", "absent"), "emodb").rglob("14*W?.*"))
    print(f"\ncheckpoints/{SHIPPED.name}, trained on German actors:", end="")
    predict(SHIPPED, real[0] if real else clip, "an angry actor, not used for training" if real else "the same clip")
    print(f"\npicture:    {output / 'evaluation' / 'confusion_matrix.png'}")
    print(f"checkpoint: {model}")
    print(f"time:       {time.time() - start:.0f} s")


if __name__ == "__main__":
    run_main("demo/run.py", main)
