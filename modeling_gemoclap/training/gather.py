"""One batch from the batches of all processes."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
import torch.distributed as dist
from transformers import TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)


class _AllGather(torch.autograd.Function):
    """Concatenate over the processes; a row's gradient is summed over them and flows back to where it came from."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # autograd may have given it to others too
        dist.all_reduce(gradient)
        return gradient[dist.get_rank() * ctx.rows :][: ctx.rows]


def is_distributed() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate a tensor over the processes, in their order; gradients flow back to where a row came from.

    Args:
        tensor: `(batch, ...)`, of the same shape on all processes.

    Returns:
        `(processes * batch, ...)`; with one process the tensor itself.
    """
    return _AllGather.apply(tensor) if is_distributed() else tensor


def largest_batch(rows: int, device: torch.device) -> int:
    """The largest number of clips that a process has at this step; where they differ, it is said once."""
    if not is_distributed():
        return rows
    counts = gather(torch.tensor([rows], device=device)).tolist()
    if len(set(counts)) > 1:
        logger.warning_once(
            f"processes have unequal numbers of clips, {counts}: the shorter are filled up, unlabelled"
        )
    return max(counts)


def fill_up(tensor: torch.Tensor | None, rows: int, value: float = 0.0) -> torch.Tensor | None:
    """Bring a batch `(batch, ...)` to a number of rows with rows of one value."""
    if tensor is None or len(tensor) == rows:
        return tensor
    return torch.cat([tensor, tensor.new_full((rows - len(tensor), *tensor.shape[1:]), value)])


def at_least_float32(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """At least float32: what is compared, and what is summed over processes, is not rounded to half precision."""
    return None if tensor is None else tensor.to(torch.promote_types(tensor.dtype, torch.float32))


# What each process may have for itself: its place, and where its copies lie.
PER_PROCESS = {
    *(
        "local_rank",
        "output_dir",
        "logging_dir",
        "run_name",
        "data_dir",
        "feature_cache_dir",
        "audio_model",
        "text_model",
        "init_from",
    ),
    *("log_level", "log_level_replica", "resume_from_checkpoint", "hub_token", "disable_tqdm", "folds_file"),
}


def refuse_differences(value: str, what: str) -> None:
    """Make sure that all processes have the same.

    Args:
        value: What this process has.
        what: What it is, for the error.

    Raises:
        ValueError: If another process has another value.
    """
    values = all_gather_object(value)
    if len(set(values)) > 1:
        found = ", ".join(f"process {rank}: {each[:16]}" for rank, each in enumerate(values))
        raise ValueError(f"{what} is not the same on all processes ({found}): give all of them the same")


def refuse_different_options(options: dict) -> None:
    """Make sure that all processes were started with the same options, but for paths and ranks.

    Args:
        options: Names and values.

    Raises:
        ValueError: If one differs.
    """
    mine = {name: repr(value) for name, value in options.items() if name not in PER_PROCESS}
    everyone = all_gather_object(mine)
    for name in sorted({name for theirs in everyone for name in theirs}):
        values = [theirs.get(name, "absent") for theirs in everyone]
        if len(set(values)) > 1:
            found = ", ".join(f"process {rank}: {each}" for rank, each in enumerate(values))
            raise ValueError(f"--{name} is not the same on all processes ({found}): start all of them alike")


def all_gather_object(value) -> list:
    """What every process has, in their order."""
    if not is_distributed():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def run_on_main_process(arguments: TrainingArguments, work: Callable, *args):
    """Do something in the main process alone; what it gives, or its error, is that of all processes.

    Args:
        arguments: Of the run.
        work: What is done.
        *args: For `work`.

    Returns:
        What `work` gave.

    Raises:
        ValueError: What `work` raised, or the words of an `OSError`.
    """
    found = error = None
    if arguments.process_index == 0:
        try:
            found = work(*args)
        except (ValueError, OSError) as raised:
            error = str(raised)
    found, error = all_gather_object((found, error))[0]
    if error is not None:
        raise ValueError(error)
    return found


def release(trainer) -> None:
    """Let go of a trainer's wrapped model, of no use afterwards, so that another can be trained in this process."""
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    gc.collect()


def finish(trainer) -> None:
    """Wait for all processes and end their group: one that leaves it to the interpreter's end may abort there.

    Args:
        trainer: The trainer, of no use afterwards. Its `DistributedDataParallel` goes first: if that were the last to
            hold the group, torch would wait for the group's threads without giving up the interpreter's lock, and
            a thread that waits for this lock would never end.
    """
    if not is_distributed():
        return
    release(trainer)
    dist.barrier()
    dist.destroy_process_group()
