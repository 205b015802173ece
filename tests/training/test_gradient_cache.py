"""Gradient caching: chunks give the gradient of the complete batch."""

import copy
import random

import numpy as np
import pytest
import torch
from conftest import TINY, batch_of, run_script
from distributed_worker import worst
from transformers import TrainingArguments

from modeling_gemoclap import GEmoClapTrainer
from modeling_gemoclap.losses_gemoclap import contrastive_loss
from modeling_gemoclap.objectives.gemo_clap import trainer as trainer_module
from modeling_gemoclap.objectives.gemo_clap.gradient_cache import EMBEDDINGS
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments

ROWS = 7
# All random operations: dropout, SpecAugment from NumPy or torch, layer drop from torch.
NOISE = {"hidden_dropout": 0.2, "layerdrop": 0.3, "apply_spec_augment": True, "mask_time_prob": 0.3}
WAVE_NOISE = NOISE | {"attention_dropout": 0.1, "activation_dropout": 0.1, "mask_time_length": 2}
COMPACT_NOISE = NOISE | {"conv_dropout": 0.1, "mask_time_length": 20, "mask_feature_length": 4, "num_masks": 2}


def batch_for(model, objective, dtype, seed=0):
    """Clips of seven lengths, one of unknown emotion and one of unknown gender."""
    generator = torch.Generator().manual_seed(seed)
    batch, _ = batch_of(model, [9000, 4000, 7000, 12000, 4000, 5500, 10000], seed)
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    for kind in ("", "gender_") if objective == "ml" else ("",):
        batch[f"{kind}input_ids"] = torch.randint(5, 300, (ROWS, 6), generator=generator)
        batch[f"{kind}attention_mask"] = torch.ones(ROWS, 6, dtype=torch.long)
    labels = {"emotion_labels": [0, 1, 2, 0, -1, 1, 2], "gender_labels": [0, 1, -1, 1, 0, 0, 1]}
    return batch | {name: torch.tensor(values) for name, values in labels.items()}


@pytest.fixture
def make_trainer(tmp_path):
    def make(model, chunk=None, batch_size=ROWS, **more):
        options = {"output_dir": tmp_path, "per_device_train_batch_size": batch_size, "use_cpu": True, **more}
        trainer = GEmoClapTrainer(model, GEmoClapTrainingArguments(**options), contrastive_chunk_size=chunk)
        trainer.current_gradient_accumulation_steps = 1  # what `train` sets
        return trainer

    return make


def step(trainer, batch):
    """One training step: the loss and the gradients."""
    trainer.model.zero_grad()
    loss = trainer.training_step(trainer.model, dict(batch))
    return loss, {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("family", "objective"),
    [
        ("compact", "emo"),
        ("compact", "ml"),
        ("compact", "sl"),
        ("wavlm-base", "sl"),
        ("wavlm-large", "ml"),
        ("data2vec-base", "emo"),
        ("sew", "sl"),
    ],
)
def test_chunks_give_the_gradient_of_the_complete_batch(make_model, make_trainer, family, objective, dtype):
    model = make_model(family, objective=objective, similarity="both").to(dtype)
    batch = batch_for(model, objective, dtype)
    expected_loss, expected = step(make_trainer(model), batch)
    bound = 1e-5 if dtype == torch.float32 else 1e-10
    for chunk in (1, 3, ROWS):  # 3 does not divide 7
        loss, gradients = step(make_trainer(model, chunk), batch)
        assert gradients.keys() == expected.keys() >= {"audio_logit_scale", "text_logit_scale"}
        assert abs(loss - expected_loss) < bound
        assert worst(gradients, expected) <= bound, chunk


@pytest.mark.parametrize("objective", ["ml", "sl"])
def test_chunks_have_their_prompts_once(make_model, make_trainer, objective):
    """Batches of the collator have distinct prompts. Each chunk encodes those of its clips, each of them once."""
    model = make_model(objective=objective).double()
    batch, index = batch_for(model, objective, torch.float64), torch.tensor([0, 1, 1, 0, 1, 2, 2])
    kinds = ("", "gender_") if objective == "ml" else ("",)
    each = batch | {f"{kind}input_ids": batch[f"{kind}input_ids"][index] for kind in kinds}
    distinct = batch | {f"{kind}prompt_index": index for kind in kinds}
    for kind in kinds:
        for name in (f"{kind}input_ids", f"{kind}attention_mask"):
            distinct[name] = batch[name][:3]
    expected_loss, expected = step(make_trainer(model), each)
    encoded = []
    model.text_model.register_forward_hook(lambda module, inputs, output: encoded.append(len(output[0])))
    for chunk, most in ((None, 3), (3, 3), (1, 1)):
        encoded.clear()
        loss, gradients = step(make_trainer(model, chunk), distinct)
        assert abs(loss - expected_loss) < 1e-10 and worst(gradients, expected) <= 1e-10, chunk
        assert encoded and max(encoded) <= most


def test_gradient_accumulation_gives_another_gradient(make_model, make_trainer):
    """The mean of the gradients of two parts differs from the gradient of the batch."""
    model = make_model(similarity="cross")
    batch = batch_for(model, "sl", torch.float32)
    _, expected = step(make_trainer(model), batch)
    parts = [step(make_trainer(model), {k: v[part] for k, v in batch.items()})[1] for part in (slice(4), slice(4, 7))]
    assert worst({name: (parts[0][name] + parts[1][name]) / 2 for name in expected}, expected) > 0.1


def outputs_of(model):
    """A list to which each call of `forward` appends its output."""
    outputs = []
    model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    return outputs


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("family", "noise"), [("compact", COMPACT_NOISE), ("wavlm-base", WAVE_NOISE)])
def test_both_passes_use_the_same_random_numbers(make_model, make_trainer, family, noise, checkpointing):
    model = make_model(family, audio=noise, objective="sl", projection_dropout=0.2)
    trainer = make_trainer(model, 3, gradient_checkpointing=checkpointing)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batch, outputs = batch_for(model, "sl", torch.float32), outputs_of(model)
    after_first = []
    model.register_forward_hook(lambda *_: after_first.append(random_states()) if len(outputs) == 3 else None)
    step(trainer, batch)
    assert random_states() == after_first[0], "the second pass does not change later random numbers"
    first, second = outputs[:3], outputs[3:]
    assert [len(output.audio_embeds) for output in second] == [3, 3, 1]
    for without_graph, with_graph in zip(first, second, strict=True):
        assert not without_graph.audio_embeds.requires_grad and with_graph.audio_embeds.requires_grad
        for name in EMBEDDINGS[:2]:
            assert torch.equal(without_graph[name], with_graph[name])
    del outputs[:]
    step(trainer, batch)
    assert not torch.equal(outputs[0].audio_embeds, first[0].audio_embeds), "another step has other random numbers"


@pytest.mark.parametrize(("family", "noise"), [("compact", COMPACT_NOISE), ("wavlm-base", WAVE_NOISE)])
def test_finite_differences_with_random_operations(make_model, make_trainer, family, noise):
    model = make_model(family, audio=noise, objective="ml", projection_dropout=0.2).double()
    trainer, batch = make_trainer(model, 3), batch_for(model, "ml", torch.float64)
    generator = torch.Generator().manual_seed(3)
    direction = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.detach().norm() / p.numel() ** 0.5
        for name, p in model.named_parameters()
    }
    weights = copy.deepcopy(model.state_dict())

    def loss_at(distance):
        shifted = {name: weights[name] + distance * change for name, change in direction.items()}
        model.load_state_dict({**weights, **shifted})
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        return step(trainer, batch)

    _, gradients = loss_at(0.0)
    slope = sum((gradients[name] * direction[name]).sum() for name in gradients).item()
    width = 1e-5
    difference = ((loss_at(width)[0] - loss_at(-width)[0]) / (2 * width)).item()
    assert abs(slope) > 1e-3 and slope == pytest.approx(difference, rel=1e-5)


def test_other_random_generators_are_reported(make_model, make_trainer, caplog):
    """A generator whose state is not restored makes the gradient inexact, which a warning reports."""
    from modeling_gemoclap.objectives.gemo_clap import gradient_cache

    gradient_cache.logger.warning_once.__func__.cache_clear()
    model = make_model()
    generator = torch.Generator().manual_seed(0)

    def add_noise(module, inputs, output):
        return output + torch.randn(output.shape, generator=generator)

    model.audio_projection.register_forward_hook(add_noise)
    with caplog.at_level("WARNING"):
        step(make_trainer(model, 3), batch_for(model, "sl", torch.float32))
    assert "between the two passes" in caplog.text


@pytest.mark.parametrize("chunk", [None, 3])
def test_half_precision_keeps_the_loss_in_float32(make_model, make_trainer, chunk, monkeypatch):
    model = make_model(objective="sl")
    batch = batch_for(model, "sl", torch.float32)
    _, exact = step(make_trainer(model), batch)
    trainer = make_trainer(model, chunk, bf16=True)
    trainer.accelerator.prepare_model(model)
    dtypes, terms = [], []
    model.audio_model.layers[0].qkv.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    monkeypatch.setattr(trainer_module, "contrastive_loss", lambda new: terms.extend(new) or contrastive_loss(new))
    loss, gradients = step(trainer, batch)
    assert set(dtypes) == {torch.bfloat16} and loss.dtype == torch.float32
    assert len(terms) == 2 and all(term.logits.dtype == term.targets.dtype == torch.float32 for term in terms)
    assert 1e-5 < worst(gradients, exact) < 0.2


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, "1 or more"), (-2, "1 or more"), (8, "larger than per_device_train_batch_size=7")],
)
def test_invalid_chunk_sizes_are_refused(make_model, make_trainer, size, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(make_model(), size)


def test_batch_norm_is_refused(make_model, make_trainer, monkeypatch):
    model = make_model("wav2vec2-conformer")
    with pytest.raises(ValueError, match="batch_norm is batch norm"):
        make_trainer(model, 3)
    make_trainer(model)
    monkeypatch.setattr(GEmoClapTrainingArguments, "world_size", 2)
    with pytest.raises(ValueError, match="several processes: .*batch_norm is batch norm"):
        make_trainer(model)


def test_transformers_arguments_use_no_chunks(make_model, tmp_path):
    GEmoClapTrainer(make_model(), TrainingArguments(output_dir=tmp_path, use_cpu=True))


def test_script_with_chunks(tones, tmp_path):
    """Invalid options are refused before files are written; a training in chunks succeeds."""
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "1")
    done = run_script("train.py", *TINY, *options, "--contrastive_chunk_size", "0", check=False)
    assert done.returncode == 1 and "--contrastive_chunk_size 0 must be at least 1" in done.stderr
    done = run_script(
        "train.py", *TINY, *options, "--contrastive_chunk_size", "4", "--head", "classifier", check=False
    )
    assert done.returncode == 1 and "--contrastive_chunk_size is an option of --head contrastive" in done.stderr
    assert not (tmp_path / "run").exists()
    run_script("train.py", *TINY, *options, "--contrastive_chunk_size", "5")
    assert (tmp_path / "run/model.safetensors").is_file()
