"""The limits of a machine, measured: operations per second of a matrix product, and bytes per second of a copy.

    python benchmarks/limits.py

The speed of a training or of predictions is stated against these. An accelerator is used if there is one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from harness import machine, parser_of
from torch.utils.flop_counter import FlopCounterMode

GPU_SIZE, CPU_SIZE = 8192, 2048  # rows and columns of the matrices
GPU_MIB, CPU_MIB = 2048, 256  # size of the copied block, many times the caches


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device | str = "cpu", rounds: int = 5) -> float:
    """Median seconds of a call, after one call that is not counted."""
    times = []
    for _ in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def matrix_peak(
    dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rounds: int = 5
) -> float:
    """Operations per second of the product of two large square matrices.

    Args:
        dtype: Type of the matrices. On a GPU, TF32 is used for float32 if torch's settings allow it.
        device: Where they are; None: `default_device`.
        rounds: Number of products that are timed; the median counts.
    """
    device = torch.device(device or default_device())
    size = CPU_SIZE if device.type == "cpu" else GPU_SIZE
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    target = torch.empty_like(left)
    return 2 * size**3 / seconds_of(lambda: torch.mm(left, right, out=target), device, rounds)


def bandwidth(device: torch.device | str | None = None, rounds: int = 5) -> float:
    """Bytes per second of a copy of a large block within the memory of a device; each byte is read and written.

    Args:
        device: Where the block is; None: `default_device`.
        rounds: Number of copies that are timed; the median counts.
    """
    device = torch.device(device or default_device())
    size = (CPU_MIB if device.type == "cpu" else GPU_MIB) * 2**20
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_of(lambda: target.copy_(source), device, rounds)


def count_flop(function: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a call, backward passes included.

    A multiplication with an addition counts as two. The function is called once.
    """
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def main() -> None:
    """Print the limits of this machine."""
    parser_of(__doc__).parse_args()
    print(machine())
    for dtype in (torch.float32, torch.bfloat16):
        print(f"{str(dtype).removeprefix('torch.')}: {matrix_peak(dtype) / 1e12:.3f} TFLOP/s")
    print(f"copy: {bandwidth() / 1e9:.1f} GB/s, read and written")


if __name__ == "__main__":
    main()
