"""The whole way in one command: speak a corpus, train on it, judge the model on voices it has not heard, use it.

python demo/run.py [FOLDER]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from espeak_corpus import TEST_VOICES, Speaker, build

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path) -> None:
    """Run a command from the project's root, showing it."""
    shown = [str(part) for part in command]
    print("\n$ " + " ".join(shown), flush=True)
    subprocess.run(
        [sys.executable, "-m", *shown] if shown[0] == "accelerate.commands.launch" else shown, cwd=ROOT, check=True
    )


def evaluate(model: Path, corpus: Path, output: Path) -> dict:
    """`evaluate.py` on the unheard voices; its results."""
    voices = [voice[3:] for voice in TEST_VOICES]
    run(
        sys.executable,
        "evaluate.py",
        "--model",
        model,
        "--data_dir",
        corpus,
        "--output_dir",
        output,
        "--speakers",
        *voices,
    )
    return json.loads((output / "results.json").read_text())


def main(output: Path) -> None:
    """Speak, train, judge, use."""
    start = time.time()
    shutil.rmtree(output, ignore_errors=True)
    speaker, corpus, model = Speaker(), output / "corpus", output / "checkpoint"
    print("speaking the corpus ...", flush=True)
    build(corpus, speaker, "all")
    for flat in ("pitch", "energy"):
        build(output / f"flat_{flat}", speaker, "test", flat)
    options = ["--config", "configs/demo.yaml", "--data_dir", corpus, "--output_dir", model]
    unheard = [voice[3:] for voice in TEST_VOICES]
    run("accelerate.commands.launch", "train.py", *options, "--exclude_speakers", *unheard)
    results = evaluate(model, corpus, output / "evaluation")
    flat = {
        what: evaluate(model, output / f"flat_{what}", output / f"evaluation_flat_{what}")
        for what in ("pitch", "energy")
    }

    from transformers import pipeline

    from modeling_gemoclap.evaluation.report import as_table

    clip = corpus / "audio" / "f4_00_angry.wav"
    answer = pipeline("zero-shot-emotion-recognition", model=str(model), trust_remote_code=True)(str(clip))
    print(f"\n=== {results['n']} clips by {len(unheard)} voices that were not heard in training ===\n")
    print(as_table(results))
    print(
        f"\nUAR {results['uar']:.3f}; with the pitch made flat {flat['pitch']['uar']:.3f}, "
        f"with the energy made flat {flat['energy']['uar']:.3f} (guessing: 0.250)"
    )
    print(f"\n{clip.relative_to(output)}, spoken in anger, is heard as:")
    print("\n".join(f"  {item['score']:.2f}  {item['label']}" for item in answer))
    print(f"\npicture:    {output / 'evaluation' / 'confusion_matrix.png'}")
    print(f"checkpoint: {model}")
    print(f"time:       {time.time() - start:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "demo" / "output"))
