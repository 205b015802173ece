"""The limit of oneDNN's cache of kernels on the CPU."""

from __future__ import annotations

import os

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KERNELS = 64


def limit_kernel_cache() -> None:
    """Limit the kernels that oneDNN keeps, unless `ONEDNN_PRIMITIVE_CACHE_CAPACITY` is set already.

    On the CPU, oneDNN builds a kernel for each shape of its input and keeps 1,024 of them with their working memory.
    Batches of clips have many shapes, each of which is rarely used again: kept kernels cost memory and save no time.

    oneDNN reads the variable when it first builds a kernel, so this may be called after torch is imported.
    """
    os.environ.setdefault(CAPACITY, str(KERNELS))
