"""The whole way in one command: speak a corpus, train on it, judge the model on voices it has not heard, use it.

python demo/run.py [FOLDER]

It ends with the checkpoint that ships: on a real recording where $GEMOCLAP_CORPORA holds emodb/, else on a spoken one.
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

SHIPPED = ROOT / "checkpoints" / "gemoclap-compact-emodb"


def run(*command: str | Path) -> None:
    """Run one of the project's commands from its root, showing it as one would type it."""
    programs = {"python": [sys.executable], "accelerate launch": [sys.executable, "-m", "accelerate.commands.launch"]}
    print("\n$ " + " ".join(map(str, command)), flush=True)
    subprocess.run([*programs[command[0]], *command[1:]], cwd=ROOT, check=True)


def evaluate(model: Path, corpus: Path, output: Path, unheard: list[str]) -> dict:
    """`evaluate.py` on the unheard voices; its results."""
    options = ("--model", model, "--data_dir", corpus, "--output_dir", output)
    run("python", "evaluate.py", *options, "--speakers", *unheard)
    return json.loads((output / "results.json").read_text())


def hear(model: Path, clip: Path, what: str) -> None:
    """Ask a checkpoint for the emotion of a clip, as one who has nothing of this project would."""
    from transformers import pipeline

    answer = pipeline("zero-shot-emotion-recognition", model=str(model), trust_remote_code=True)(str(clip))
    print(f"\n{clip.name}, {what}, is heard as:")
    print("\n".join(f"  {item['score']:.2f}  {item['label']}" for item in answer))


def main(argv: list[str]) -> None:
    """Speak, train, judge, use."""
    if argv[1:] or argv[:1] and argv[0].startswith("-"):
        raise ValueError("give one folder or none: python demo/run.py [FOLDER]")
    from espeak_corpus import TEST_VOICES, Speaker, build

    start, unheard = time.time(), [voice[3:] for voice in TEST_VOICES]
    output = Path(argv[0] if argv else ROOT / "demo" / "output").expanduser().resolve()
    refuse_unwritable({"FOLDER": output} | cache_folders())
    for name in ("corpus", "flat_pitch", "flat_energy", "checkpoint", "evaluation"):
        shutil.rmtree(output / name, ignore_errors=True)
    speaker, corpus, model = Speaker(), output / "corpus", output / "checkpoint"
    print("speaking the corpus ...", flush=True)
    build(corpus, speaker, "all")
    for flat in ("pitch", "energy"):
        build(output / f"flat_{flat}", speaker, "test", flat)
    options = ("--config", "configs/demo.yaml", "--data_dir", corpus, "--output_dir", model)
    run("accelerate launch", "--num_processes", "1", "train.py", *options, "--exclude_speakers", *unheard)
    results = evaluate(model, corpus, output / "evaluation", unheard)
    flats = [output / f"flat_{what}" for what in ("pitch", "energy")]
    no_pitch, no_energy = (evaluate(model, folder, folder / "evaluation", unheard)["uar"] for folder in flats)

    from modeling_gemoclap.evaluation.report import as_table

    print(f"\n=== {results['n']} clips by {len(unheard)} voices that were not heard in training ===\n")
    print(as_table(results))
    print(
        f"\nUAR {results['uar']:.3f}; with the pitch made flat {no_pitch:.3f}, "
        f"with the energy made flat {no_energy:.3f} (guessing: 0.250)"
    )
    clip = corpus / "audio" / "f4_00_angry.wav"
    hear(model, clip, "spoken in anger")
    real = sorted(Path(os.environ.get("GEMOCLAP_CORPORA", "absent"), "emodb").rglob("14*W?.*"))
    print("\nThe checkpoint that ships, trained on German actors:", end="")
    hear(SHIPPED, real[0] if real else clip, "an actor in anger, not heard in training" if real else "the same clip")
    print(f"\npicture:    {output / 'evaluation' / 'confusion_matrix.png'}")
    print(f"checkpoint: {model}")
    print(f"time:       {time.time() - start:.0f} s")


if __name__ == "__main__":
    run_main("demo/run.py", main)
