"""Frozen parts of a model: no dropout in training, and the same loss and gradient from their stored output."""

import pytest
import torch
from conftest import RATE, batch_of
from families import AUDIO
from torch.autograd.graph import saved_tensors_hooks

from modeling_gemoclap import GEmoClapForXVector
from modeling_gemoclap.frozen_gemoclap import LAST_LAYERS_ALONE, refuse_last_layers

ALONE = [name for name, family in AUDIO.items() if family.config(small=True).model_type in LAST_LAYERS_ALONE]
LABELS = {"emotion_labels": torch.tensor([0, 1, 2]), "gender_labels": torch.tensor([0, 1, 1])}


def prompts(seed):
    generator = torch.Generator().manual_seed(seed)
    ids, mask = torch.randint(5, 300, (3, 7), generator=generator), torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def inputs_of(family, model, folder):
    """Three clips of different length in the input of a family."""
    if model.main_input_name == "input_values" and family != "ast":
        return batch_of(model, [8000, 12000, 6400])[0]
    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(length, generator=generator).numpy() for length in (8000, 12000, 6400)]
    extractor = AUDIO[family].small_extractor(folder)
    return dict(extractor([{"array": wave, "sampling_rate": RATE} for wave in waves]))


def stored(model, inputs):
    """The batch from the frozen part's output, padded with numbers that must not count."""
    with torch.no_grad():
        clips = model.frozen_states(**inputs)
    longest = max(states.shape[1] for states, _ in clips)
    frames = [torch.nn.functional.pad(states, (0, 0, 0, longest - states.shape[1]), value=3.0) for states, _ in clips]
    mask = torch.arange(longest) < torch.tensor([count for _, count in clips])[:, None]
    return {"audio_frames": torch.stack(frames), "audio_attention_mask": mask.long()}


def loss_and_gradients(model, **inputs):
    model.zero_grad()
    loss = model(**inputs, **LABELS).loss
    loss.backward()
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_training(model, first, second):
    loss, gradients = loss_and_gradients(model, **first)
    other_loss, others = loss_and_gradients(model, **second)
    assert gradients.keys() == others.keys() and loss > 0
    torch.testing.assert_close(loss, other_loss, atol=1e-6, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, others[name], atol=1e-5, rtol=1e-3, msg=lambda text, n=name: f"{n} {text}"
        )
    return gradients


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", AUDIO)
def test_frames_of_a_frozen_tower_train_the_same(family, weighted, make_model, tmp_path):
    if weighted and family == "sew":
        pytest.skip("the frame rate of its layers differs from that of its output")
    model = make_model(family, use_weighted_layer_sum=weighted, pooling="self_attention")
    model.freeze_audio_encoder()
    inputs, texts = inputs_of(family, model.train(), tmp_path), prompts(0)
    frames = stored(model, inputs)
    assert frames["audio_frames"].shape[1] == (model.config.audio_config.num_hidden_layers + 1 if weighted else 1)
    gradients = assert_equal_training(model, inputs | texts, frames | texts)
    assert not any(name.startswith("audio_model") for name in gradients)
    assert ("audio_pooling.layer_weights" in gradients) == weighted


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", ALONE)
def test_last_layers_train_the_same_on_the_output_of_the_frozen_ones(family, weighted, make_model, tmp_path):
    model = make_model(family, use_weighted_layer_sum=weighted, pooling="mean_std")
    refuse_last_layers(model.config.audio_config)
    model.unfreeze_last_n_layers(1)
    for parameter in model.audio_model.parameters():  # larger than initial values, so that attention matters
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    inputs, texts = inputs_of(family, model.train(), tmp_path), prompts(0)
    frames = stored(model, inputs)
    assert frames["audio_frames"].shape[1] == (2 if weighted else 1), (
        "the input of the first of two layers, and its output"
    )
    gradients = assert_equal_training(model, inputs | texts, frames | texts)
    assert any(name.startswith("audio_model") for name in gradients)
    frames["audio_frames"] = frames["audio_frames"] + torch.randn_like(frames["audio_frames"])
    assert not torch.allclose(
        loss_and_gradients(model, **frames, **texts)[0], loss_and_gradients(model, **inputs, **texts)[0]
    )


@pytest.mark.parametrize("family", [name for name in AUDIO if name not in ALONE])
def test_other_families_refuse_their_last_layers(family):
    with pytest.raises(ValueError, match="give --freeze_audio_encoder true instead of --unfreeze_last_n_layers"):
        refuse_last_layers(AUDIO[family].config(small=True))


def test_all_layers_may_be_trained(make_model):
    model = make_model("hubert-base")
    model.unfreeze_last_n_layers(2)
    inputs, texts = batch_of(model, [8000, 12000, 6400])[0], prompts(0)
    assert_equal_training(model, inputs | texts, stored(model, inputs) | texts)


@pytest.mark.parametrize("family", ["compact", "wavlm-base", "whisper"])
def test_frozen_towers_have_no_dropout(family, make_model, tmp_path):
    rates = {"compact": ("hidden_dropout", "conv_dropout"), "whisper": ("dropout", "encoder_layerdrop")}
    rates = rates.get(family, ("hidden_dropout", "layerdrop", "feat_proj_dropout"))
    changes = dict.fromkeys(rates, 0.5) | ({} if family == "whisper" else {"apply_spec_augment": True})
    model = make_model(family, audio=changes).train()
    inputs = inputs_of(family, model, tmp_path)
    passes = lambda: [model.pool_audio(**inputs) for _ in range(2)]  # noqa: E731
    assert not torch.equal(*passes()), "a tower that is trained has dropout"
    model.freeze_audio_encoder()
    assert torch.equal(*passes()) and model.training and not model.audio_model.training
    model.eval().train()
    assert torch.equal(*passes())
    model.unfreeze_last_n_layers(1)
    lower, upper = model.last_layers()[0], model.audio_model
    assert lower.training and not upper.training and not torch.equal(*passes())
    states = [model.frozen_states(**inputs)[0][0] for _ in range(2)]
    assert torch.equal(*states), "the layers below have none"
    assert not any(module.training for module in model.eval().modules())


def test_a_frozen_text_tower_has_no_dropout(make_model):
    model = make_model().train()
    model.text_model.embeddings.dropout.p = 0.5
    passes = lambda: [model.pool_text(**prompts(0)) for _ in range(2)]  # noqa: E731
    assert not torch.equal(*passes())
    model.freeze_text_encoder()
    assert torch.equal(*passes()) and model.text_projection.training


@pytest.mark.parametrize("objective", ["sl", "ml"])
def test_vectors_of_frozen_prompts_train_the_same(objective, make_model):
    model = make_model(objective=objective).train()
    model.freeze_text_encoder()
    audio, texts, genders = batch_of(model, [8000, 12000, 6400])[0], prompts(0), prompts(1)
    tokens, vectors = dict(texts), {"text_vectors": model.pool_text(**texts)}
    if objective == "ml":
        tokens |= {f"gender_{name}": value for name, value in genders.items()}
        vectors["gender_text_vectors"] = model.pool_text(**genders)
    gradients = assert_equal_training(model, audio | tokens, audio | vectors)
    assert not any(name.startswith("text_model") for name in gradients)
    assert any(name.startswith("text_projection") for name in gradients)


def test_an_encoder_without_text_takes_frames(make_model):
    model = make_model("hubert-base", model_class=GEmoClapForXVector)
    model.freeze_audio_encoder()
    batch = batch_of(model, [8000, 12000, 6400])[0]
    torch.testing.assert_close(model(**batch).embeddings, model(**stored(model, batch)).embeddings)
    with pytest.raises(ValueError, match="either audio_frames or the input"):
        model(**batch, audio_frames=torch.zeros(3, 1, 2, 16))


def saved_by(function):
    """The result of a function, and the number of tensors that autograd saves for its backward pass."""
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor.shape), lambda tensor: tensor):
        return function(), len(saved)


@pytest.mark.parametrize("family", AUDIO)
def test_frozen_towers_build_no_graph(family, make_model, tmp_path):
    model = make_model(family).train()
    inputs, texts = inputs_of(family, model, tmp_path), prompts(0)
    assert saved_by(lambda: model.pool_audio(**inputs))[1] and saved_by(lambda: model.pool_text(**texts))[1]
    model.freeze_audio_encoder()
    model.freeze_text_encoder()
    for function in (lambda: model.pool_audio(**inputs), lambda: model.pool_text(**texts)):
        output, saved = saved_by(function)
        assert not saved and not output.requires_grad
    for name in ("audio_projection", "text_projection"):
        getattr(model, name).requires_grad_(False)
    assert not saved_by(lambda: model.get_audio_features(**inputs))[1]
    assert not saved_by(lambda: model.get_text_features(**texts))[1]


@pytest.mark.parametrize("family", AUDIO)
@pytest.mark.parametrize("layers", [0, 1])
def test_layers_below_the_trained_ones_build_no_graph(family, layers, make_model, tmp_path):
    model, seen = make_model(family).train(), []
    model.unfreeze_last_n_layers(layers)
    for layer in model.last_layers():
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(next(iter([*args, *kwargs.values()])).requires_grad), with_kwargs=True
        )
    output = model.pool_audio(**inputs_of(family, model, tmp_path))
    assert output.requires_grad == bool(layers) and seen == [False] * len(seen) and len(seen) >= layers


@pytest.mark.parametrize("how", ["freeze_feature_encoder", "lora"])
@pytest.mark.parametrize("family", ["wav2vec2-base", "wavlm-base", "hubert-base"])
def test_frozen_convolutions_build_no_graph(family, how, make_model, tmp_path):
    model, needs = make_model(family).train(), []
    model.audio_model.feature_extractor.register_forward_hook(
        lambda _, args, output: needs.append(output.requires_grad)
    )
    inputs = inputs_of(family, model, tmp_path)
    assert model.pool_audio(**inputs).requires_grad and needs == [True]
    if how == "lora":
        pytest.importorskip("peft")
        from modeling_gemoclap.training.lora import add_lora

        add_lora(model, ["audio"]).train()
    else:
        model.freeze_feature_encoder()
    assert model.pool_audio(**inputs).requires_grad and needs == [True, False]
