"""Communication between processes: gathering with gradient, equal options, and the end of a training."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
import torch.distributed as dist
from transformers import TrainingArguments
from transformers.utils import logging

logger = logging.get_logger(__name__)


class _AllGather(torch.autograd.Function):
    """Concatenate over processes. The gradient of a row is summed over processes and returned to its origin."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # autograd may share the tensor
        dist.all_reduce(gradient)
        return gradient[dist.get_rank() * ctx.rows :][: ctx.rows]


def is_distributed() -> bool:
    """Whether more than one process takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate a tensor over processes, in the order of ranks. Gradients flow back to the process of a row.

    Args:
        tensor: `(batch, ...)`, of the same shape on all processes.

    Returns:
        `(processes * batch, ...)`; the tensor itself if there is one process.
    """
    return _AllGather.apply(tensor) if is_distributed() else tensor


def largest_batch(rows: int, device: torch.device) -> int:
    """The largest batch size of the processes at this step. Unequal sizes are reported once by a warning."""
    if not is_distributed():
        return rows
    counts = gather(torch.tensor([rows], device=device)).tolist()
    if len(set(counts)) > 1:
        logger.warning_once(
            f"batch sizes differ between processes ({counts}): the smaller batches are padded with unlabelled rows"
        )
    return max(counts)


def pad_rows(tensor: torch.Tensor | None, rows: int, value: float = 0.0) -> torch.Tensor | None:
    """Pad a batch `(batch, ...)` to `(rows, ...)` with a constant value."""
    if tensor is None or len(tensor) == rows:
        return tensor
    return torch.cat([tensor, tensor.new_full((rows - len(tensor), *tensor.shape[1:]), value)])


def at_least_float32(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Convert to at least float32, so that similarities and sums over processes are not in half precision."""
    return None if tensor is None else tensor.to(torch.promote_types(tensor.dtype, torch.float32))


# Options that may differ between processes: ranks, logging, and paths of local copies.
PER_PROCESS = {
    *("local_rank", "output_dir", "logging_dir", "run_name", "data_dir", "feature_cache_dir", "folds_file"),
    *("audio_model", "init_from", "resume_from_checkpoint"),
    *("log_level", "log_level_replica", "hub_token", "disable_tqdm"),
}


def refuse_differences(value: str, what: str) -> None:
    """Check that a value is the same on all processes.

    Args:
        value: The value of this process.
        what: Description of the value, for the message.

    Raises:
        ValueError: If the values differ.
    """
    values = all_gather_object(value)
    if len(set(values)) > 1:
        listing = ", ".join(f"process {rank}: {text[:16]}" for rank, text in enumerate(values))
        raise ValueError(f"{what} is not the same on all processes ({listing}): use the same on all of them")


def refuse_different_options(options: dict, paths: tuple[str, ...] = ()) -> None:
    """Check that all processes have the same options, except for those in `PER_PROCESS`.

    Args:
        options: Values by name.
        paths: Names of more options that may be paths of local copies.

    Raises:
        ValueError: If an option differs.
    """
    local = {name: repr(value) for name, value in options.items() if name not in {*PER_PROCESS, *paths}}
    gathered = all_gather_object(local)
    for name in sorted({name for values_by_name in gathered for name in values_by_name}):
        values = [values_by_name.get(name, "absent") for values_by_name in gathered]
        if len(set(values)) > 1:
            listing = ", ".join(f"process {rank}: {value}" for rank, value in enumerate(values))
            raise ValueError(
                f"--{name} is not the same on all processes ({listing}): start all of them with the same options"
            )


def all_gather_object(value) -> list:
    """The values of all processes, in the order of ranks."""
    if not is_distributed():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def run_on_main_process(arguments: TrainingArguments, work: Callable, *args):
    """Call a function in the main process only. All processes get its result or its error.

    Args:
        arguments: The training arguments.
        work: The function.
        *args: Arguments of `work`.

    Returns:
        The result of `work`.

    Raises:
        ValueError: If `work` raised a `ValueError` or an `OSError`; with the same message.
    """
    result = error = None
    if arguments.process_index == 0:
        try:
            result = work(*args)
        except (ValueError, OSError) as raised:
            error = str(raised)
    result, error = all_gather_object((result, error))[0]
    if error is not None:
        raise ValueError(error)
    return result


def release(trainer) -> None:
    """Free the wrapped model of a trainer, which cannot be used afterwards, so that another training can start."""
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    gc.collect()


def finish(trainer) -> None:
    """Wait for all processes and destroy the process group, which may abort if the interpreter ends with it.

    The model's `DistributedDataParallel` is freed first. If it held the last reference to the group, torch would wait
    for the threads of the group while holding the interpreter lock, and a thread that needs the lock would never end.

    Args:
        trainer: The trainer, which cannot be used afterwards.
    """
    if not is_distributed():
        return
    release(trainer)
    dist.barrier()
    dist.destroy_process_group()
