"""With a frozen text encoder each prompt is encoded once, and training gives the same weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from modeling_gemoclap import GEmoClapModel
from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator

SYNONYMS = json.dumps({"angry": ["furious"], "sad": ["gloomy"]})
OPTIONS = ("--freeze_text_encoder", "true", "--prompt_steps", 5, "--emotion_synonyms", SYNONYMS)
OPTIONS += ("--num_train_epochs", 3, "--unknown_gender_prob", 0.3, "--lr_scheduler_type", "constant")
OPTIONS += ("--optimizer", "optim", "--optim", "sgd", "--learning_rate", 0.1)  # Adam amplifies rounding errors


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("more", [(), ("--objective", "ml", "--contrastive_chunk_size", 5)])
def test_frozen_prompts_are_encoded_once(more, train, tones, tmp_path, monkeypatch):
    sizes, pool_text = [], GEmoClapModel.pool_text

    def record(self, input_ids, attention_mask=None):
        if not torch.is_grad_enabled() and not self.training:
            sizes.append(len(input_ids))
        elif not any(parameter.requires_grad for parameter in self.text_model.parameters()):
            sizes.append("in a step")
        return pool_text(self, input_ids, attention_mask)

    monkeypatch.setattr(GEmoClapModel, "pool_text", record)
    options = (*OPTIONS, "--store_training_clips", "false", "--data_dir", tones, *more)
    train(*options, "--output_dir", tmp_path / "once")
    config = GEmoClapModel.from_pretrained(tmp_path / "once").config
    assert sum(sizes[1:]) == len(set(config.training_prompts())), "after the batch that centres the projection"
    sizes.clear()
    monkeypatch.setattr(GEmoClapCollator, "encode_prompts", lambda self, model: None)
    train(*options, "--output_dir", tmp_path / "anew")
    assert "in a step" in sizes
    once, anew = weights_of(tmp_path / "once"), weights_of(tmp_path / "anew")
    for name, value in once.items():
        torch.testing.assert_close(value, anew[name], atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n} {text}")


def test_a_resumed_run_encodes_the_prompts_by_the_weights_of_its_checkpoint(train, tones, tmp_path):
    """The text encoder is trained on prompts before the first step, and not again when the run is resumed."""
    options = (*OPTIONS, "--data_dir", tones, "--save_strategy", "epoch", "--dataloader_num_workers", 1)
    train(*options, "--output_dir", tmp_path / "straight")
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / "straight" / IDENTITY, tmp_path / "resumed")
    shutil.copytree(tmp_path / "straight/checkpoint-4", tmp_path / "resumed/checkpoint-4")
    train(*options, "--output_dir", tmp_path / "resumed", "--resume_from_checkpoint", "true")
    straight, resumed = weights_of(tmp_path / "straight"), weights_of(tmp_path / "resumed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    first = load_file(tmp_path / "straight/checkpoint-4/model.safetensors")
    assert not torch.equal(straight["text_projection.linear1.weight"], first["text_projection.linear1.weight"])


def test_a_text_encoder_that_is_trained_gets_tokens(make_model, make_processor):
    model = make_model()
    collator = GEmoClapCollator(make_processor(model), model.config)
    clip = torch.randn(40, 16).numpy()
    examples = [{"clip": clip, "emotion_label": label, "gender_label": 0} for label in range(3)]
    model.freeze_text_encoder()
    collator.encode_prompts(model.train())
    batch = collator(examples)
    assert batch["text_vectors"].shape == (3, 16) and "input_ids" not in batch and model.training
    model.text_model.requires_grad_(True)
    collator.encode_prompts(model)
    assert "input_ids" in collator(examples)
