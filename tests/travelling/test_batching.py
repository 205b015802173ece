"""Batches of similar length, and files that are read in threads."""

import threading
import time
from contextvars import ContextVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_gemoclap import batching_gemoclap as batching
from modeling_gemoclap.batching_gemoclap import batches_by_length, process_in_batches

LENGTHS = np.random.default_rng(0).integers(1, 50, 100).tolist()


def clip(name):
    """A clip as long as the last number of its name, with this number in it."""
    number = int(str(name).rpartition(" ")[2])
    return np.full(number, number)


def numbers(clips):
    return [int(values[0]) for values in clips]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gemoclap-loader")]


@given(st.lists(st.integers(1, 1000), max_size=60), st.integers(1, 9), st.sampled_from([None, 0.0, 0.1, 1.0]))
def test_batches_divide_the_clips_by_length(lengths, size, most_padding):
    batches = batches_by_length(lengths, size, most_padding)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        chosen = [lengths[place] for place in batch]
        assert 1 <= len(batch) <= size and chosen == sorted(chosen)
        if most_padding is not None:
            assert max(chosen) * len(chosen) <= (1 + most_padding) * sum(chosen) + 1e-6
    if most_padding is None:
        assert len(batches) == -(-len(lengths) // size)


@pytest.mark.parametrize("kind", [list, iter, lambda names: (name for name in names), lambda names: map(str, names)])
@pytest.mark.parametrize("size", [1, 7, 64, 300])
def test_results_are_in_order(kind, size):
    names = [f"file {length}" for length in LENGTHS]
    assert list(process_in_batches(kind(names), size, clip, numbers, 0.1)) == LENGTHS
    assert not loader_threads()


def test_a_collection_is_sorted_among_several_batches():
    padding = {}
    for kind in (list, lambda names: (name for name in names)):
        batches = []

        def predict(clips, batches=batches):
            batches.append(list(map(len, clips)))
            return numbers(clips)

        names = [f"file {length}" for length in LENGTHS * 3]
        assert list(process_in_batches(kind(names), 8, clip, predict)) == LENGTHS * 3
        assert max(map(len, batches)) == 8
        padding[kind] = sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(LENGTHS * 3)
    of_list, of_generator = padding.values()
    assert of_list < 0.2 < 0.5 < of_generator


def test_a_generator_is_asked_for_one_batch_and_a_list_is_read_while_the_model_runs():
    read = []

    def stream():
        for number in range(20):
            read.append(number)
            yield f"file {number + 1}"

    results = process_in_batches(stream(), 4, clip, numbers)
    assert next(results) == 1 and len(read) == 4
    results.close()

    loaded, during = threading.Event(), []

    def load(name):
        if name == "file 3":
            loaded.set()
        return clip(name)

    def predict(clips):
        during.append(loaded.wait(10))  # the third file is read although the model has not returned
        return numbers(clips)

    assert list(process_in_batches(["file 1", "file 2", "file 3"], 1, load, predict)) == [1, 2, 3]
    assert during == [True, True, True]


def test_errors_stay_in_their_place():
    def load(name):
        if name == "file 5":
            raise KeyError(name)
        return {"error": name} if name == "file 3" else clip(name)

    names = [f"file {number}" for number in range(1, 9)]
    for stream in (names, (name for name in names)):
        results, seen = process_in_batches(stream, 4, load, numbers), []
        with pytest.raises(KeyError, match="file 5"):
            seen.extend(results)
        assert seen == [1, 2, {"error": "file 3"}, 4]
    assert list(process_in_batches(["file 3", "file 3"], 4, load, numbers)) == [{"error": "file 3"}] * 2

    def broken():
        yield from names[:2]
        raise OSError("the connection was lost")

    results = process_in_batches(broken(), 4, load, numbers)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="connection"):
        next(results)
    assert not loader_threads()


@pytest.mark.parametrize("end", ["dropped", "error of the model", "interrupt"])
def test_no_thread_is_left(end):
    def predict(clips):
        if end == "error of the model":
            raise ValueError("not finite")
        if end == "interrupt":
            raise KeyboardInterrupt
        return numbers(clips)

    def load(name):
        time.sleep(0.01)
        return clip(name)

    results = process_in_batches([f"file {number}" for number in range(1, 200)], 8, load, predict)
    if end == "dropped":
        assert next(results) == 1 and loader_threads()
        del results
    else:
        with pytest.raises(KeyboardInterrupt if end == "interrupt" else ValueError):
            next(results)
    assert not loader_threads()


def test_clips_that_wait_are_limited(monkeypatch):
    monkeypatch.setattr(batching, "MOST_VALUES", 4000)
    lock, waiting, most = threading.Lock(), 0, 0

    def load(name):
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return np.zeros(500)

    def predict(clips):
        nonlocal waiting
        with lock:
            waiting -= len(clips)
        return list(map(len, clips))

    assert list(process_in_batches([f"file {number}" for number in range(300)], 4, load, predict)) == [500] * 300
    assert 4 < most <= 4000 / 500 + 8  # as many as are unread when the limit is reached


def test_only_files_are_read_in_threads_and_in_the_context_of_the_caller():
    threads, value = {}, ContextVar("value", default="none")

    def load(audio):
        threads[str(type(audio))] = threading.current_thread() is threading.main_thread(), value.get()
        return np.ones(1)

    value.set("of the caller")
    open_file = open(__file__, "rb")
    stream = ["path", b"bytes", {"bytes": b"", "path": "x"}, np.ones(3), open_file]
    assert len(list(process_in_batches(stream, 5, load, numbers))) == 5
    open_file.close()
    kinds = [str(type(audio)) for audio in stream]
    assert [threads[kind] for kind in kinds] == [(False, "of the caller")] * 3 + [(True, "of the caller")] * 2
    list(process_in_batches(["path"], 5, load, numbers))
    assert threads[str(str)][0], "one recording needs no thread"
