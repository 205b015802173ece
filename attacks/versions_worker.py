"""Load, predict, train and save checkpoints by their own code, in a process without the package.

    python attacks/versions_worker.py CHECKPOINT ...

`attacks/versions.py` runs it with different versions of transformers. It prints a line for each checkpoint, with the
largest difference of an answer from those in its `expected.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.modules["modeling_gemoclap"] = None  # as if it were not installed
sys.modules["datasets"] = None  # the environment's version may need a newer library of the Hub than transformers

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

AUTO = {
    "GEmoClapModel": "AutoModel",
    "GEmoClapForXVector": "AutoModelForAudioXVector",
    "GEmoClapForAudioClassification": "AutoModelForAudioClassification",
}
TOLERANCE = 1e-5
RESULT = "RESULT "  # begins the lines that attacks/versions.py reads
REMOTE = {"trust_remote_code": True}


def clips() -> list[np.ndarray]:
    """The clips of `release/archive.py`."""
    numbers = np.random.default_rng(0)
    return [0.1 * numbers.standard_normal(length).astype(np.float32) for length in (14400, 25600)]


def load(folder: str):
    """The model, and its processor or feature extractor."""
    config = transformers.AutoConfig.from_pretrained(folder, **REMOTE)
    model = getattr(transformers, AUTO[config.architectures[0]]).from_pretrained(folder, **REMOTE).eval()
    with_text = AUTO[config.architectures[0]] == "AutoModel"
    auto = transformers.AutoProcessor if with_text else transformers.AutoFeatureExtractor
    return model, auto.from_pretrained(folder, **REMOTE)


def inputs_of(model, processor) -> dict:
    """Model inputs for the clips and, if the model has a text tower, for a prompt of each emotion."""
    extractor = getattr(processor, "feature_extractor", processor)
    inputs = dict(extractor(clips(), sampling_rate=16000, return_tensors="pt"))
    if hasattr(processor, "tokenizer"):
        prompts = [model.config.emotion_templates[0].format(word) for word in model.config.emotions]
        inputs |= dict(processor.tokenizer(prompts, padding=True, return_tensors="pt"))
        inputs.pop("token_type_ids", None)
    return inputs


def answers(model, processor) -> torch.Tensor:
    """The answers that the archive has for a model."""
    with torch.no_grad():
        output = model(**inputs_of(model, processor))
    if hasattr(processor, "tokenizer"):
        return torch.cat([output.logits_per_audio, output.audio_embeds], 1)
    return output.embeddings if getattr(output, "logits", None) is None else output.logits


def train(model, processor) -> None:
    """Two steps of the Trainer of transformers; the loss must be finite and the weights must change."""
    inputs = inputs_of(model, processor)
    if hasattr(processor, "tokenizer"):
        inputs = {name: value[:2] for name, value in inputs.items()}
        inputs |= {"emotion_labels": torch.tensor([0, 1]), "gender_labels": torch.tensor([0, 1])}
        if model.config.objective == "ml":
            inputs |= {f"gender_{name}": inputs[name] for name in ("input_ids", "attention_mask")}
    elif hasattr(model, "classifier"):
        inputs["labels"] = torch.tensor([0, 1])
    else:
        return  # an encoder without a head has no loss of its own
    before = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": 2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
        arguments = transformers.TrainingArguments(folder, learning_rate=0.01, remove_unused_columns=False, **options)
        batches = [{"row": 0}, {"row": 1}]
        trainer = transformers.Trainer(model, arguments, lambda _: inputs, train_dataset=batches)
        loss = trainer.train().training_loss
    assert np.isfinite(loss), f"the training loss is {loss}"
    changed = [name for name, value in model.named_parameters() if name in before and not value.equal(before[name])]
    assert any(name.startswith("audio_model") for name in changed), "training changed no weight of the audio tower"
    model.eval()


def predict(folder: str, model) -> None:
    """The pipeline of the checkpoint returns one answer for each clip, with scores that add up to 1."""
    if type(model).__name__ == "GEmoClapForXVector":
        return
    task = "zero-shot-emotion-recognition" if type(model).__name__ == "GEmoClapModel" else "audio-classification"
    pipe = transformers.pipeline(task, model=folder, **REMOTE)
    for answer in pipe([{"raw": clip, "sampling_rate": 16000} for clip in clips()]):
        total = sum(row["score"] for row in answer)
        assert {row["label"] for row in answer} <= set(model.config.emotions) and abs(total - 1) < 1e-4, answer


def use(folder: str) -> float:
    """Load, predict, train and save one checkpoint; the largest difference from the answers in `expected.json`."""
    model, processor = load(folder)
    found, difference, stored = answers(model, processor), 0.0, Path(folder, "expected.json")
    if stored.exists():
        expected = torch.tensor(json.loads(stored.read_text(encoding="utf-8"))["answers"])
        difference = float((found - expected).abs().max())
        assert difference <= TOLERANCE, f"answers differ by {difference:.1e} from those of the archive"
    predict(folder, model)
    train(model, processor)
    trained = answers(model, processor)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        processor.save_pretrained(saved)
        again = answers(*load(saved))
    assert trained.equal(again), "a model that was saved and loaded has other answers"
    return difference


def main() -> None:
    """Use each checkpoint."""
    for folder in sys.argv[1:]:
        result = {"name": Path(folder).name, "transformers": transformers.__version__}
        try:
            result["difference"] = use(folder)
        except Exception as error:
            result["error"] = f"{type(error).__name__}: {error}"
        print(RESULT + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
