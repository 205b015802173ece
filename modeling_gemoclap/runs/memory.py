"""The error of a training step that does not fit into memory: it names a size of batch or chunk to try."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import Trainer, TrainerCallback

from ..command_line.failures import FILES_KEPT, first_line, is_out_of_memory

GIB = 2**30


class StepMemoryError(MemoryError):
    """A training step does not fit into memory."""


@dataclass
class StepMemory:
    """What is known of a step that did not fit.

    Args:
        batch: `per_device_train_batch_size`.
        chunk: `contrastive_chunk_size`; None without gradient caching.
        has_chunks: Whether the objective has gradient caching.
        used: Bytes in use before the step: weights, and after the first step the state of the optimizer.
        total: Bytes of the device, or of the machine.
    """

    batch: int
    chunk: int | None
    has_chunks: bool
    used: int
    total: int

    def advice(self) -> str:
        """What to try, in one sentence.

        The memory above `used` grows in proportion to the clips that are in memory at a time, and these did not fit.
        Half of them need half of it.
        """
        clips = self.chunk or self.batch
        known = (
            f"this process used {self.used / GIB:.1f} of {self.total / GIB:.1f} GiB before the step of {clips} clips"
        )
        if clips == 1:
            return f"{known}: give --bf16 true, --gradient_checkpointing true, or a smaller --max_seconds"
        smaller = 1 << ((clips // 2).bit_length() - 1)
        if self.has_chunks:
            return (
                f"{known}: give --contrastive_chunk_size {smaller}, which computes the same gradient and needs "
                f"{smaller}/{clips} of the memory above {self.used / GIB:.1f} GiB, or a smaller one"
            )
        return f"{known}: give --per_device_train_batch_size {smaller}, or a smaller one"


class _NoteMemory(TrainerCallback):
    """Notes the memory in use before each step, and whether a step is running."""

    used, in_step = 0, False

    def on_step_begin(self, args, state, control, **kwargs):
        self.used, self.in_step = memory_in_use(args.device), True

    def on_step_end(self, args, state, control, **kwargs):
        self.in_step = False


def memory_in_use(device: torch.device) -> int:
    """Bytes in use on a device; for a CPU, the resident memory of this process (0 where it cannot be read)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def total_memory(device: torch.device) -> int:
    """Bytes of a device; for a CPU, of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def explain_memory(trainer: Trainer) -> Iterator[None]:
    """Within this context, an error for lack of memory in a step becomes one that names a smaller batch or chunk.

    Args:
        trainer: The trainer that is run.

    Raises:
        StepMemoryError: Instead of the error of torch.
    """
    note = _NoteMemory()
    trainer.add_callback(note)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (note.in_step and is_out_of_memory(error)):  # evaluations and checkpoints have other sizes
            raise
        arguments, missing = trainer.args, object()
        chunk = getattr(trainer, "_chunk_size", missing)
        has_chunks, chunk = chunk is not missing, None if chunk is missing else chunk
        sizes = arguments.per_device_train_batch_size, chunk, has_chunks
        step = StepMemory(*sizes, note.used, total_memory(arguments.device))
        option = f"--contrastive_chunk_size {chunk}" if chunk else f"--per_device_train_batch_size {step.batch}"
        reason = first_line(str(error)) or type(error).__name__
        raise StepMemoryError(
            f"out of {'GPU' if arguments.device.type == 'cuda' else 'main'} memory at {option} ({reason}): "
            f"{step.advice()}; {FILES_KEPT}"
        ) from error
