"""Errors for lack of memory name a batch or a chunk that may fit; GPUs without bf16 are refused."""

from types import SimpleNamespace

import pytest
import torch

from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.runs.memory import GIB, StepMemory, StepMemoryError, explain_memory
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.8 GiB"
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"


def fail(error, device="cpu", batch=32, **fields):
    """The error of a trainer whose step raises `error`."""
    arguments = SimpleNamespace(per_device_train_batch_size=batch, device=torch.device(device))
    trainer = SimpleNamespace(args=arguments, add_callback=lambda callback: callback.on_step_begin(arguments, 0, 0))
    vars(trainer).update(fields)
    with pytest.raises(type(error) if "shape" in str(error) else StepMemoryError) as caught:
        with explain_memory(trainer):
            raise error
    return failure_message(caught.value)


def test_a_gpu_error_names_the_chunk_that_halves_the_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: int(3.8 * GIB))
    properties = SimpleNamespace(total_memory=int(15.8 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    message = fail(torch.OutOfMemoryError(CUDA), "cuda", _chunk_size=None)
    assert message.startswith("out of GPU memory at --per_device_train_batch_size 32 (CUDA out of memory.")
    assert "this process used 3.8 of 15.8 GiB before the step of 32 clips: give --contrastive_chunk_size 16" in message
    assert "give --contrastive_chunk_size 16, which computes the same gradient and needs 16/32" in message
    chunked = fail(torch.OutOfMemoryError(CUDA), "cuda", _chunk_size=12)
    assert "memory at --contrastive_chunk_size 12 " in chunked and "give --contrastive_chunk_size 4," in chunked


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(ALLOCATOR)])
def test_a_cpu_error_names_a_batch_if_the_objective_has_no_chunks(error):
    message = fail(error)
    assert message.startswith("out of main memory at --per_device_train_batch_size 32")
    assert "give --per_device_train_batch_size 16, or a smaller one; files written so far are kept" in message
    assert "0.0 of" not in message  # the memory of this process was measured
    assert "--contrastive_chunk_size" not in message


def test_a_single_clip_cannot_be_divided():
    assert "--gradient_checkpointing true, or a smaller --max_seconds" in StepMemory(8, 1, True, GIB, 2 * GIB).advice()


@pytest.mark.parametrize("started", [False, True])
def test_errors_outside_of_a_step_are_not_changed(started):
    """Such as those of an evaluation, whose batches have another size."""
    callbacks, arguments = [], SimpleNamespace(device=torch.device("cpu"))
    trainer = SimpleNamespace(args=arguments, add_callback=callbacks.append)
    with pytest.raises(MemoryError) as caught, explain_memory(trainer):
        if started:
            callbacks[0].on_step_begin(arguments, 0, 0)
            callbacks[0].on_step_end(arguments, 0, 0)
        raise MemoryError
    assert type(caught.value) is MemoryError


def test_other_errors_are_not_changed():
    assert "shape" not in (fail(RuntimeError("shape '[3]' is invalid")) or "")


def test_predictions_name_their_option():
    assert "--batch-size in predictions" in failure_message(torch.OutOfMemoryError(CUDA))


def test_a_gpu_without_bf16_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(ValueError, match=r"--bf16 true: the GPU \(Tesla T4\) has no bf16: give --fp16 true"):
        GEmoClapTrainingArguments(str(tmp_path), bf16=True)
