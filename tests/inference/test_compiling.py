"""Compiled towers: few compilations for many lengths, the same answers, and an error without a compiler."""

import pytest
import torch
from conftest import batch_of
from torch._dynamo.utils import counters

from modeling_gemoclap import GEmoClapTrainer
from modeling_gemoclap.command_line.compilers import compile_layers
from modeling_gemoclap.inference.compiling import compile_audio_tower
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments

LENGTHS = [range(5000 + 1700 * number, 9000 + 1700 * number, 2000) for number in range(10)]  # two clips a batch


@pytest.fixture(autouse=True)
def new_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compilations():
    return counters["stats"]["unique_graphs"]


def largest_difference(model, backend):
    """The largest difference that compilation makes over ten lengths, and the compilations of the first and of all."""
    batches = [batch_of(model, list(lengths))[0] for lengths in LENGTHS]
    with torch.no_grad():
        plain = [model.get_audio_features(**batch) for batch in batches]
        names = set(model.state_dict())
        compile_audio_tower(model, backend)
        compiled, counts = [], []
        for batch in batches:
            compiled.append(model.get_audio_features(**batch))
            counts.append(compilations())
    assert set(model.state_dict()) == names
    return max((a - b).abs().max().item() for a, b in zip(plain, compiled, strict=True)), counts


@pytest.mark.parametrize("family", ["compact", "wavlm-base"])
def test_ten_lengths_are_traced_once(make_model, family):
    difference, counts = largest_difference(make_model(family), "eager")
    assert difference < 1e-4
    assert counts[0] > 0 and counts[0] == counts[-1]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["compact", "wavlm-base"])
def test_ten_lengths_are_compiled_at_most_twice(make_model, family):
    difference, counts = largest_difference(make_model(family), "inductor")
    assert difference < 1e-4
    assert 0 < counts[0] and counts[-1] <= counts[0] + 1, counts  # one more from a size on, for WavLM


def graphs_of_training(model, folder, backend, monkeypatch):
    """The compilations after each of ten steps with batches of different lengths."""
    for name in ("BACKEND", "MODE", "USE_DYNAMIC"):  # transformers sets them for the rest of the process
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", "no")
    options = {"torch_compile": True, "torch_compile_backend": backend, "use_cpu": True, "report_to": []}
    arguments = GEmoClapTrainingArguments(str(folder), per_device_train_batch_size=2, **options)
    trainer, names, counts = GEmoClapTrainer(model, arguments), set(model.state_dict()), []
    compile_layers(trainer)
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    prepared = trainer.accelerator.prepare(model.train())
    for lengths in LENGTHS:
        texts = {"input_ids": torch.randint(5, 300, (2, 7)), "attention_mask": torch.ones(2, 7).long()}
        labels = {"emotion_labels": torch.tensor([0, 1]), "gender_labels": torch.tensor([0, 1])}
        loss = trainer.training_step(prepared, {**batch_of(model, list(lengths))[0], **texts, **labels})
        assert loss.isfinite()
        counts.append(compilations())
    assert set(model.state_dict()) == names
    return counts


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_training_does_not_compile_again_for_each_length(make_model, monkeypatch, tmp_path, backend):
    counts = graphs_of_training(make_model("wavlm-base", projection_dim=8), tmp_path, backend, monkeypatch)
    assert counts[0] > 0 and counts[2] == counts[-1] <= 6, counts


def test_without_a_compiler_there_is_a_clear_error(make_model, monkeypatch, tmp_path):
    for name in ("BACKEND", "MODE", "USE_DYNAMIC"):
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", "no")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match=r"compile needs a C\+\+ compiler.*no-such-compiler.*apt install g\+\+.*CXX"):
        compile_audio_tower(make_model("compact"))
    with pytest.raises(ValueError, match=r"^--torch_compile true needs a C\+\+ compiler"):
        GEmoClapTrainingArguments(str(tmp_path), torch_compile=True, use_cpu=True)
