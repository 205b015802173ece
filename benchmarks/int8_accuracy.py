"""Compare UAR of exported models in float32 and in 8 bits on corpora that nothing of the models was chosen on.

    python benchmarks/int8_accuracy.py --corpora CORPORA [--every 4]

Which layers stay in float32 was compared on clips of Emo-DB, also on those of speakers 14 and 15. RAVDESS and nEMO
were used neither for that nor for training. Their clips with an emotion of the model are classified one at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
from documents import table_row, write_section
from harness import RATE, parser_of

from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation.metrics import war_uar
from modeling_gemoclap.inference.export import ExportOptions, export_onnx
from modeling_gemoclap.inference.loading import load_pipeline

CORPORA, MODELS, PRECISIONS = ("ravdess", "nemo"), ("base", "compact"), (None, "int8")
COLUMNS = ("model", "corpus", "clips", "speakers", "UAR float32", "UAR int8", "difference", "same answer")


def read(path: str) -> np.ndarray:
    """A recording at the rate of the models."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(wave.mean(1), rate, RATE) if rate != RATE else wave.mean(1)


def answers(path: Path, waves: list[np.ndarray], labels: list[str]) -> list[str]:
    """The answers of an exported model, for each clip alone."""
    session = onnxruntime.InferenceSession(path)
    inputs = ({"waveform": wave[None], "lengths": np.array([len(wave)])} for wave in waves)
    return [labels[session.run(["scores"], values)[0][0].argmax()] for values in inputs]


def row_of(model: str, corpus: str, options, folder: str) -> str:
    """The row of a model and a corpus."""
    pipe = load_pipeline(model, "cpu")
    labels = list(pipe.model.config.emotions)
    clips = load_corpus(options.corpora / corpus).clips
    rows = [row for row in list(clips)[:: options.every] if row["emotion"] in labels]
    waves, truth, found = [read(row["path"]) for row in rows], [row["emotion"] for row in rows], []
    for precision in PRECISIONS:
        path = Path(folder, f"{model}-{precision}.onnx")
        export_onnx(pipe, path, ExportOptions(quantize=precision))
        found.append(answers(path, waves, labels))
    uar = [war_uar(answer, truth)["uar"] for answer in found]
    same = np.mean([first == second for first, second in zip(*found, strict=True)])
    speakers = len({row["speaker_id"] for row in rows})
    shares = (f"{100 * value:.1f}" for value in uar)
    return table_row(
        model, corpus, f"{len(rows)}", f"{speakers}", *shares, f"{100 * (uar[1] - uar[0]):+.1f}", f"{same:.1%}"
    )


def main() -> None:
    """Measure, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with ravdess and nemo")
    parser.add_argument("--every", type=int, default=4, help="use every n-th recording")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row_of(model, corpus, options, folder) for model in MODELS for corpus in CORPORA]
    text = (
        f"UAR in per cent of exported models on every {options.every}th recording of corpora that were used neither "
        f"for training nor to choose which layers stay in float32.\n"
    )
    write_section(
        "python benchmarks/int8_accuracy.py --corpora CORPORA",
        "\n".join([text, table_row(*COLUMNS), "|---" * len(COLUMNS) + "|", *rows]),
    )


if __name__ == "__main__":
    main()
