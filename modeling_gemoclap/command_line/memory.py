"""Memory that oneDNN and the C library keep for later use, on the CPU."""

from __future__ import annotations

import ctypes
import os

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KERNELS = 64
M_ARENA_MAX = -8  # of malloc.h of glibc
ARENAS = 2


def limit_kernel_cache() -> None:
    """Limit the kernels that oneDNN keeps, unless `ONEDNN_PRIMITIVE_CACHE_CAPACITY` is set already.

    On the CPU, oneDNN builds a kernel for each shape of its input and keeps 1,024 of them with their working memory.
    Batches of clips have many shapes, each of which is rarely used again: kept kernels cost memory and save no time.

    oneDNN reads the variable when it first builds a kernel, so this may be called after torch is imported.
    """
    os.environ.setdefault(CAPACITY, str(KERNELS))


def limit_arenas() -> None:
    """Let all threads share two arenas of the C library's heap, unless `MALLOC_ARENA_MAX` is set.

    By default, glibc gives threads their own arenas, up to eight for each processor, and each keeps as much memory as
    the largest recording that was ever processed in it. Without effect with other C libraries.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        _call_c_library("mallopt", M_ARENA_MAX, ARENAS)


def return_free_memory() -> None:
    """Return free memory of the C library's heap to the system. Without effect with other C libraries than glibc."""
    _call_c_library("malloc_trim", 0)


def _call_c_library(function: str, *arguments: int) -> None:
    try:
        getattr(ctypes.CDLL(None), function)(*arguments)
    except (AttributeError, OSError, TypeError):  # another C library; Windows takes no None
        pass
