"""Batches of recordings of similar length, whose files are read in threads while the model runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from operator import length_hint

import numpy as np

LOOK_AHEAD = 8  # batches whose clips are sorted by length together
MOST_CLIPS = 256  # clips that are sorted together, unless a batch is larger
MOST_VALUES = 2**25  # values of clips that wait for the model, above which no more are read: 128 MiB
MOST_PADDING = 0.1  # of a batch on the CPU, as a share of its clips
MOST_THREADS = 4


# ---- batches --------------------------------------------------------------------------------------------------------
def padding_limit(model, extractor) -> float | None:
    """The most padding of a batch, as a share of its clips; None if it is not limited.

    On the CPU, a smaller batch costs less than the padding of a larger one; on a GPU it is the other way round. The
    windows of extractors of transformers (Whisper, AST) have a fixed length, whatever the batch.

    Args:
        model: A GEmo-CLAP model.
        extractor: Its feature extractor.
    """
    return MOST_PADDING if model.device.type == "cpu" and extractor.feature_type != "own" else None


def batches_by_length(lengths: Sequence[int], batch_size: int, most_padding: float | None = None) -> list[list[int]]:
    """Divide clips into batches of similar length.

    Args:
        lengths: Length of each clip.
        batch_size: Most clips in a batch.
        most_padding: Most padding of a batch, as a share of its clips; None for any.

    Returns:
        The positions of the clips of each batch; first the batch with the first clip.
    """
    batches, total = [], 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        length, count = lengths[position], len(batches[-1]) + 1 if batches else 1
        is_too_long = most_padding is not None and length * count > (1 + most_padding) * (total + length)
        if not batches or count > batch_size or is_too_long:
            batches.append([])
            total = 0
        batches[-1].append(position)
        total += length
    return sorted(batches, key=min)


# ---- recordings -----------------------------------------------------------------------------------------------------
def _is_encoded(audio) -> bool:
    """Whether a recording is a path or the bytes of a file, which a thread can read without touching other objects."""
    if isinstance(audio, Mapping):
        parts = [audio.get(name) for name in ("array", "raw", "bytes", "path", "audio")]
        parts = [part for part in parts if part is not None]
        return bool(parts) and all(map(_is_encoded, parts))
    return isinstance(audio, (str, os.PathLike, bytes, bytearray, memoryview))


def _has_no_delay(stream) -> bool:
    """Whether a stream is a collection or the iterator of a list: the next of its recordings are there already."""
    return hasattr(stream, "__len__") or hasattr(stream, "__length_hint__")


def number_of_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _values_of(future: Future) -> int:
    """The number of values of a clip that is loaded; 0 for an error."""
    if future.exception() is not None or isinstance(future.result(), dict):
        return 0
    return int(np.size(future.result()))


class _Loader:
    """Loads the recordings of a stream in their order, files in threads and before they are asked for.

    The stream itself is only used by the calling thread. An error is raised when its recording is asked for.

    Args:
        stream: Recordings.
        load: See `process_in_batches`.
        most_unread: Most recordings that are asked for and not loaded yet.
    """

    def __init__(self, stream: Iterable, load: Callable, most_unread: int):
        self._stream, self._load, self._most_unread = iter(stream), load, most_unread
        self._uses_threads = length_hint(stream, 2) > 1
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future] = deque()
        self._loaded = self._values = 0  # of the recordings at the head of `_waiting`
        self._taken = 0  # values of the recordings that were taken last

    def close(self) -> None:
        """Stop the threads, after the files that they are reading now."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def read_ahead(self, most: int) -> None:
        """Begin to load recordings until `most` wait, or the limit of values or of unread recordings is reached."""
        while self._loaded < len(self._waiting) and self._waiting[self._loaded].done():
            self._values += _values_of(self._waiting[self._loaded])
            self._loaded += 1
        while (
            len(self._waiting) < most
            and len(self._waiting) - self._loaded < self._most_unread
            and self._values + self._taken < MOST_VALUES
            and self._draw()
        ):
            pass

    def take(self, most: int) -> list:
        """The next recordings, at most `most`, and fewer if they are long; none at the end of the stream.

        Raises:
            Exception: That of the first of them. An exception of another is raised in the next call.
        """
        items, self._taken = [], 0
        while len(items) < most and self._taken < MOST_VALUES // 2:
            self.read_ahead(most - len(items))
            if not self._waiting or (items and self._waiting[0].exception()):
                break
            future = self._waiting.popleft()
            items.append(future.result())
            self._taken += _values_of(future)
            if self._loaded:
                self._loaded -= 1
                self._values -= _values_of(future)
        return items

    def _draw(self) -> bool:
        """Ask the stream for the next recording and begin to load it; False at the end of the stream."""
        try:
            audio = next(self._stream)
        except StopIteration:
            return False
        except Exception as error:
            self._stream = iter(())
            self._waiting.append(_failed(error))
            return True
        if self._uses_threads and _is_encoded(audio):
            self._pool = self._pool or ThreadPoolExecutor(min(MOST_THREADS, number_of_cores()), "gemoclap-loader")
            self._waiting.append(self._pool.submit(copy_context().run, self._load, audio))
        else:
            self._waiting.append(self._load_now(audio))
        return True

    def _load_now(self, audio) -> Future:
        try:
            item = self._load(audio)
        except Exception as error:
            return _failed(error)
        future = Future()
        future.set_result(item)
        return future


def _failed(error: Exception) -> Future:
    future = Future()
    future.set_exception(error)
    return future


def process_in_batches(
    stream: Iterable, batch_size: int, load: Callable, predict: Callable, most_padding: float | None = None
) -> Iterator:
    """Process a stream of recordings in batches of similar length; the results are in the order of the stream.

    Files are read in threads. Of a collection, or the iterator of a list, they are read while the model runs, and
    clips are sorted by length among several batches. A generator is asked for one batch at a time, so that a slow one
    delays no result.

    Args:
        stream: Recordings.
        batch_size: Most recordings that are processed together.
        load: Maps a recording to its features, an array, or to a dict, which is then its result. Several threads call
            it.
        predict: Maps a list of features to as many results.
        most_padding: Most padding of a batch, as a share of its clips; None for any; see `padding_limit`.

    Yields:
        The result of each recording.

    Raises:
        Exception: Of `load` or the stream, after the results of the recordings before.
    """
    sorts = _has_no_delay(stream)
    most, window = max(batch_size, min(LOOK_AHEAD * batch_size, MOST_CLIPS)) if sorts else batch_size, batch_size
    with closing(_Loader(stream, load, max(batch_size, 2 * MOST_THREADS))) as loader:
        while items := loader.take(window):
            window = min(2 * window, most)  # the first results come after one batch
            results = {place: item for place, item in enumerate(items) if isinstance(item, dict)}
            clips = [place for place in range(len(items)) if place not in results]
            batches = batches_by_length([len(items[place]) for place in clips], batch_size, most_padding)
            next_place = 0
            for batch in batches or [[]]:
                if sorts:
                    loader.read_ahead(window)
                places = [clips[number] for number in batch]
                answers = predict([items[place] for place in places]) if places else []
                results.update(zip(places, answers, strict=True))
                while next_place in results:
                    yield results.pop(next_place)
                    next_place += 1
