"""One batch from the batches of all processes."""

from __future__ import annotations

import torch
import torch.distributed
import torch.distributed.nn.functional


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate a tensor over the processes, in their order; gradients flow back to where a row came from.

    With the loss of the whole batch taken on every process, the average of the gradients over the processes, which
    is what distributed training takes, is the gradient of one process with the whole batch.

    Args:
        tensor: `(batch, ...)`, of the same shape on all processes.

    Returns:
        `(processes * batch, ...)`; with one process the tensor itself.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    if tensor.requires_grad:
        return torch.cat(torch.distributed.nn.functional.all_gather(tensor))
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
