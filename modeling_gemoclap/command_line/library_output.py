"""Output of libraries that tells a user nothing."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord

from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging

# Weights of a pretrained checkpoint that its encoder does not have, such as a pooler. Missing weights are an error.
UNUSED_WEIGHTS = re.compile(
    r"LOAD REPORT(?!.*\b(?:MISSING|MISMATCH|CONVERSION)\b)|were not used when initializing", re.S
)
# The order in which transformers removes checkpoints.
ORDER = re.compile("mtime may not be reliable on this filesystem")
# A default of transformers that torch remarks on without a GPU.
PINNED_MEMORY = "'pin_memory' argument is set as true but no accelerator"
IGNORED = {"transformers.modeling_utils": UNUSED_WEIGHTS, "transformers.trainer_utils": ORDER}


@contextmanager
def without_library_noise() -> Iterator[None]:
    """A context without bars for reading and writing weights, and without messages of `IGNORED` and `PINNED_MEMORY`.

    Bars of downloads, uploads and of the training are shown.
    """
    filters = [(logging.get_logger(name), _filter(pattern)) for name, pattern in IGNORED.items()]
    bars, transfers = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if transfers:
        enable_progress_bars()
    for logger, each in filters:
        logger.addFilter(each)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", PINNED_MEMORY)
            yield
    finally:
        for logger, each in filters:
            logger.removeFilter(each)
        if bars:
            logging.enable_progress_bar()


def _filter(pattern: re.Pattern):
    def is_shown(record: LogRecord) -> bool:
        return pattern.search(record.getMessage()) is None

    return is_shown
