"""How a worker process of a distributed test ends."""

import os
import sys

import torch.distributed as dist


def end_worker() -> None:
    """Wait for all processes, then end this one without finalizing the interpreter.

    A thread of the process group that still holds a tensor aborts the process if the interpreter ends first
    (https://github.com/pytorch/pytorch/issues/190489). A training frees its model before; see `finish`.
    """
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
