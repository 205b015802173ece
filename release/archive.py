"""Write tiny checkpoints in the format of this version, which the tests of all later versions load.

    python release/archive.py [--code]

They are written to `tests/archive/VERSION-transformersMAJOR`, with the answers of their models to two fixed clips. Run
it with each major version of transformers that is supported, since each writes other files. `--code` adds the code
files, for a release: `attacks/versions.py` loads the checkpoints with the code of their time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / "tests" / "archive"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from families import AUDIO, text_config  # noqa: E402

from modeling_gemoclap import (  # noqa: E402
    GEmoClapConfig,
    GEmoClapForAudioClassification,
    GEmoClapForXVector,
    GEmoClapModel,
    GEmoClapProcessor,
)
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer  # noqa: E402
from modeling_gemoclap.version import __version__  # noqa: E402

EMOTIONS = ["angry", "happy", "sad"]
CALIBRATED = {"calibration_temperature": 1.5, "calibrated_on": "clips of other speakers"}
# Name, class, audio tower, text tower, fields of the configuration, options of save_pretrained
CHECKPOINTS = (
    ("sl_compact_roberta", GEmoClapModel, "compact", "roberta", {"pooling": "mean_std", **CALIBRATED}, {}),
    ("ml_whisper_bert", GEmoClapModel, "whisper", "bert", {"objective": "ml", "use_weighted_layer_sum": True}, {}),
    ("emo_wavlm_shards", GEmoClapModel, "wavlm-base", "roberta", {"objective": "emo"}, {"max_shard_size": "40KB"}),
    ("classifier_wav2vec2", GEmoClapForAudioClassification, "wav2vec2-base", "roberta", {**CALIBRATED}, {}),
    ("encoder_compact", GEmoClapForXVector, "compact", "roberta", {"pooling": "self_attention"}, {}),
)


def clips() -> list[np.ndarray]:
    """Two clips of noise at 16 kHz, each `(samples,)`, of 0.9 and 1.6 s."""
    numbers = np.random.default_rng(0)
    return [0.1 * numbers.standard_normal(length).astype(np.float32) for length in (14400, 25600)]


def answers(model, processor) -> list[list[float]]:
    """What a model returns for the clips, one list for each clip.

    They are similarities to its emotions and the embedding, or logits, or the embedding.
    """
    extractor = getattr(processor, "feature_extractor", processor)
    inputs = dict(extractor(clips(), sampling_rate=16000))
    with torch.no_grad():
        if hasattr(processor, "tokenizer"):
            prompts = [model.config.emotion_templates[0].format(word) for word in model.config.emotions]
            inputs |= dict(processor.tokenizer(prompts, padding=True, return_tensors="pt"))
            inputs.pop("token_type_ids", None)
            output = model(**inputs)
            return torch.cat([output.logits_per_audio, output.audio_embeds], 1).tolist()
        output = model(**inputs)
    return (output.embeddings if output.logits is None else output.logits).tolist()


def write_checkpoint(folder: Path, kind: tuple, with_code: bool) -> None:
    """Write one checkpoint and its answers."""
    _, model_class, family, text, fields, options = kind
    torch.manual_seed(0)
    towers = {"audio_config": AUDIO[family].config(small=True), "text_config": text_config(text, small=True)}
    config = GEmoClapConfig(**towers, projection_dim=12, emotions=EMOTIONS, initializer_range=0.5, **fields)
    model = model_class(config).eval()
    with tempfile.TemporaryDirectory() as settings:
        processor = AUDIO[family].small_extractor(Path(settings))
    if model_class is GEmoClapModel:
        processor = GEmoClapProcessor(processor, build_tokenizer(config))
    model.save_pretrained(folder, **options)
    processor.save_pretrained(folder)
    for path in () if with_code else folder.glob("*_gemoclap.py"):
        path.unlink()
    saved = (model_class.from_pretrained(folder).eval(), type(processor).from_pretrained(folder))
    record = {"transformers": transformers.__version__, "torch": torch.__version__, "answers": answers(*saved)}
    (folder / "expected.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Write the archive of this version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", action="store_true", help="keep the code files in the first checkpoint")
    options = parser.parse_args()
    target = ARCHIVE / f"{__version__}-transformers{transformers.__version__.partition('.')[0]}"
    shutil.rmtree(target, ignore_errors=True)
    for number, kind in enumerate(CHECKPOINTS):
        write_checkpoint(target / kind[0], kind, options.code and number == 0)
    print(f"{len(CHECKPOINTS)} checkpoints in {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
