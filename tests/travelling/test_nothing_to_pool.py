"""Values and gradients are finite for clips without frames and texts without tokens."""

import numpy as np
import pytest
import torch
from conftest import AUDIO, TONES, batch_of, text_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_gemoclap import GEmoClapForXVector, GEmoClapProcessor
from modeling_gemoclap.encoding_gemoclap import encode_text
from modeling_gemoclap.heads_gemoclap import GEmoClapAudioPooling
from modeling_gemoclap.losses_gemoclap import contrastive_loss
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.towers_gemoclap import build_text_tower

POOLINGS = ("mean", "mean_std", "self_attention")


def finite(value: torch.Tensor, module: torch.nn.Module) -> bool:
    """Whether a value and its gradients in a module are finite."""
    module.zero_grad()
    value.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return (
        bool(value.isfinite().all()) and gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_without_frames_is_zero(make_model, pooling):
    config = make_model(pooling=pooling, use_weighted_layer_sum=True).config
    module = GEmoClapAudioPooling(config)
    states = [torch.randn(2, 5, 16, requires_grad=True) for _ in range(3)]
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    pooled = module(states, mask)
    assert torch.equal(pooled[1, :16], torch.zeros(16)) and finite(pooled, module)
    assert all(state.grad.isfinite().all() for state in states)


@pytest.mark.parametrize("family", AUDIO)
def test_clip_of_padding_only(make_model, family):
    """It has no valid frames, and the other clip has the same embedding as alone."""
    model = make_model(family, model_class=GEmoClapForXVector)
    if family in ("whisper", "ast", "wav2vec2-bert"):
        name = "input_values" if family == "ast" else "input_features"
        shape = {"whisper": (2, 16, 200), "ast": (2, 200, 16), "wav2vec2-bert": (2, 60, 160)}[family]
        mask = torch.ones(2, 200 if family != "wav2vec2-bert" else 60, dtype=torch.long)
        batch = {name: torch.randn(shape), "audio_attention_mask": mask}
    else:
        batch, _ = batch_of(model, [8000, 8000])
    whole = model(**batch).embeddings[0]
    batch["audio_attention_mask"][1] = 0
    pooled = model(**batch).embeddings
    assert finite(pooled, model) and torch.allclose(pooled[0], whole, atol=1e-5)
    assert family == "sew" or model.layer_means(**batch).isfinite().all()
    assert finite(model.train()(**batch).embeddings, model)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_text_without_tokens(name, pooling, attention):
    config = text_config(name)
    config._attn_implementation = attention
    tower = build_text_tower(config).train()
    ids, mask = torch.tensor([[5, 6, 7], [1, 1, 1]]), torch.tensor([[1, 1, 1], [0, 0, 0]])
    pooled = encode_text(tower, ids, mask, pooling)
    assert finite(pooled, tower)
    assert pooling == "first" or torch.equal(pooled[1], torch.zeros(len(pooled[1])))
    nothing = encode_text(tower, ids[:, :0], mask[:, :0], pooling)
    assert torch.equal(nothing, torch.zeros(2, config.hidden_size))


def without_special_tokens(model) -> PreTrainedTokenizerFast:
    """A tokenizer that returns no tokens for an empty text, like those of decoders."""
    words = sorted({word for prompt in model.config.training_prompts() for word in prompt.split()})
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["<pad>", "<unk>", *words])}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")


def clips_of(labels) -> list[dict]:
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((20, 16)).astype(np.float32) for _ in labels]
    return [
        {"clip": clip, "emotion_label": emotion, "gender_label": gender, "seed": seed}
        for seed, (clip, (emotion, gender)) in enumerate(zip(clips, labels, strict=True))
    ]


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
@pytest.mark.parametrize("labels", [[(0, 0), (1, 1), (-1, 0), (2, -1)], [(-1, -1), (-1, -1)]])
def test_unlabelled_clips_and_a_tokenizer_without_special_tokens(make_model, make_processor, objective, labels):
    model = make_model(objective=objective, text_pooling="mean").train()
    tokenizer = without_special_tokens(model)
    assert tokenizer("")["input_ids"] == []
    processor = GEmoClapProcessor(make_processor(model).feature_extractor, tokenizer)
    batch = GEmoClapCollator(processor, model.config)(clips_of(labels))
    assert batch["attention_mask"].sum(1).min() > 0
    loss = model(**batch).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_omitted_prompts_have_no_effect(make_model, make_processor, objective, monkeypatch):
    """Loss and gradients equal those with an empty text instead, for which this tokenizer returns tokens."""
    model = make_model(objective=objective, text_pooling="mean")
    examples, results = clips_of([(0, 0), (1, 1), (-1, 0), (2, -1), (0, 1)]), []
    for left_out in (None, ""):
        collator = GEmoClapCollator(make_processor(model), model.config)
        if left_out is not None:
            collator.placeholder = left_out
        batch = collator(examples)
        model.zero_grad()
        labels = batch.pop("emotion_labels"), batch.pop("gender_labels")
        loss = contrastive_loss(model.objective_terms(model(**batch), *labels))
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (loss, gradients), (before, others) = results
    assert loss == pytest.approx(before, rel=1e-6) and len(gradients) == len(others) > len(TONES)
    assert all(torch.allclose(gradient, other, atol=1e-7) for gradient, other in zip(gradients, others, strict=True))
