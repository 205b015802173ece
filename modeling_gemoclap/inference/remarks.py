"""The warnings about one recording, collected instead of logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from transformers.utils.logging import warning_once

PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class _Collection:
    prefix: str
    remarks: list[str]


_collection: ContextVar[_Collection | None] = ContextVar("collection", default=None)


class _Collector(logging.Filter):
    """Takes the warnings about the recording of the present context out of a logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        collection, message = _collection.get(), record.getMessage()
        if collection is None or not message.startswith(collection.prefix):
            return True
        remark = message.removeprefix(collection.prefix)
        if remark not in collection.remarks:
            collection.remarks.append(remark)
        return False


_collector = _Collector()


@contextmanager
def collect_remarks(name: str, remarks: list[str]) -> Iterator[None]:
    """Collect what the package would log about a recording, such as a wrong size in its header.

    Only the present thread is affected. Use it around the functions that read the recording, not around the creation
    of an iterator.

    Args:
        name: Name of the recording in messages, such as its path. Recordings that are read at the same time need
            different names: of equal warnings, only the first is logged.
        remarks: The warnings are appended to it, without the name and each only once.

    Example:
        >>> remarks = []
        >>> with collect_remarks("clip.wav", remarks):
        ...     wave = extractor.load_speech("clip.wav")
    """
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.startswith(PACKAGE):
            logger.addFilter(_collector)  # filters of a parent do not apply; adding one again has no effect
    token = _collection.set(_Collection(f"{name}: ", remarks))
    try:
        yield
    finally:
        _collection.reset(token)
        if remarks:
            warning_once.cache_clear()  # else it keeps every message, and swallows it the next time
