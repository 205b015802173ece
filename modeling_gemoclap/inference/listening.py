"""Live audio from a microphone or a pipe."""

from __future__ import annotations

import queue
import selectors
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from transformers.utils import logging

from ..audio_files_gemoclap import ffmpeg_demuxer
from ..recordings_gemoclap import check_rate
from .segments import Segment
from .stream import EmotionStream

logger = logging.get_logger(__name__)

SILENT_SECONDS = 5.0  # without a sample from the microphone
BEHIND_SECONDS = 5.0  # of audio that waits, from which on there is a warning
LONGEST_BACKLOG = 300.0  # seconds of audio that waits; more is an error
PIPE_BYTES = 2**15
WAIT_SECONDS = 0.25
FILE_HEADERS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b"ID3")


class MicrophoneError(RuntimeError):
    """There is no microphone, or it went away."""


def listen(stream: EmotionStream, chunks: Iterable[tuple[np.ndarray, int]]) -> Iterator[Segment]:
    """Find segments in live audio. If the audio ends with an error, the last segments come before it.

    Args:
        stream: A new stream.
        chunks: Samples and their rate in Hz, from `microphone_chunks` or `pipe_chunks`.

    Yields:
        Segments, as soon as they are certain.

    Raises:
        MicrophoneError: If the microphone goes away.
    """
    try:
        for samples, rate in chunks:
            yield from stream.push(samples, rate)
    except MicrophoneError as error:
        yield from stream.finish()
        raise error
    yield from stream.finish()


@contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """An event that the first interrupt (Ctrl-C) sets; the second one raises `KeyboardInterrupt`."""
    stop = threading.Event()

    def handle(number, frame) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _sounddevice():
    try:
        import sounddevice
    except OSError as error:  # the library of the system
        raise MicrophoneError(
            f"{error}: install PortAudio (Debian and Ubuntu: apt install libportaudio2), or pipe raw samples to "
            "gemoclap listen --raw RATE"
        ) from None
    return sounddevice


def microphones() -> list[str]:
    """The names of the input devices, in the order of their numbers; "" for devices without an input.

    Raises:
        ImportError: If sounddevice is not installed.
        MicrophoneError: If PortAudio is missing.
    """
    devices = _sounddevice().query_devices()
    return [device["name"] if device["max_input_channels"] > 0 else "" for device in devices]


def microphone_chunks(
    stop: threading.Event, microphone: str | int | None = None, seconds: float | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Samples from a microphone, until an event is set.

    Args:
        stop: The event.
        microphone: Number or part of the name of an input device; None: the default of the system.
        seconds: Stop after this much audio; None: never.

    Yields:
        `(time,)` float32, and the rate in Hz.

    Raises:
        ImportError: If sounddevice is not installed.
        MicrophoneError: If there is no such microphone, if it goes away, or if the audio waits for too long.
    """
    sounddevice, chunks, limit, taken = _sounddevice(), queue.Queue(), None, 0

    def receive(data, frames, time, status) -> None:
        nonlocal taken
        chunks.put((data[:, 0].copy(), bool(status and status.input_overflow)))
        taken += frames
        if limit is not None and taken >= limit:
            raise sounddevice.CallbackStop

    try:
        device = int(microphone) if isinstance(microphone, str) and microphone.isdigit() else microphone
        source = sounddevice.InputStream(device=device, channels=1, dtype="float32", callback=receive)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise MicrophoneError(
            f"no microphone ({error}): choose one of gemoclap listen --list, or pipe raw samples to --raw RATE"
        ) from None
    rate = round(source.samplerate)
    limit = None if seconds is None else round(seconds * rate)
    with source:
        yield from _received(source, chunks, rate, stop, limit)


def _received(source, chunks: queue.Queue, rate: int, stop: threading.Event, limit: int | None) -> Iterator:
    taken, waited = 0, 0.0
    while not stop.is_set() and (limit is None or taken < limit):
        try:
            samples, overflow = chunks.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            waited += WAIT_SECONDS
            if not source.active or waited >= SILENT_SECONDS:
                raise MicrophoneError(
                    f"the microphone went away after {taken / rate:.1f} s: connect it, and start again"
                ) from None
            continue
        waited = 0.0
        if overflow:
            logger.warning(f"samples were lost before {taken / rate:.1f} s: the machine is too slow")
        _check_backlog(chunks.qsize() * len(samples) / rate, taken / rate)
        samples = samples if limit is None else samples[: limit - taken]
        taken += len(samples)
        yield samples, rate


def _check_backlog(waiting: float, position: float) -> None:
    if waiting > LONGEST_BACKLOG:
        raise MicrophoneError(
            f"the machine is too slow: at {position:.0f} s it is {waiting:.0f} s behind; use a larger --step, or the "
            "model compact"
        )
    if waiting > BEHIND_SECONDS:
        logger.warning_once("the machine is too slow for live audio: results come more than 5 s late; see --step")


def pipe_chunks(
    file: BinaryIO, rate: int, stop: threading.Event | None = None, seconds: float | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Raw samples of one channel from a pipe: 16 bits, signed, little-endian.

    Args:
        file: The pipe, for example `sys.stdin.buffer`.
        rate: Sampling rate in Hz.
        stop: An event that ends it.
        seconds: Stop after this much audio; None: at the end of the pipe.

    Yields:
        `(time,)` int16, and the rate.

    Raises:
        ValueError: If the rate is invalid, or if the input is the file of another format.
    """
    rate, kept, stop = check_rate(rate, "--raw"), b"", stop or threading.Event()
    left = None if seconds is None else round(seconds * rate)
    for number, data in enumerate(_pieces(file, stop)):
        if number == 0 and (data.startswith(FILE_HEADERS) or ffmpeg_demuxer(data)):
            raise ValueError(
                "--raw: the input is an audio file, not raw samples of 16 bits: use gemoclap timeline -, or write raw "
                "samples (arecord -t raw, ffmpeg -f s16le)"
            )
        data = kept + data
        complete = len(data) // 2 * 2
        kept, samples = data[complete:], np.frombuffer(data[:complete], "<i2").astype(np.int16)[:left]
        if len(samples):
            yield samples, rate
        if left is not None and (left := left - len(samples)) <= 0:
            return


def _pieces(file: BinaryIO, stop: threading.Event) -> Iterator[bytes]:
    """What arrives in a pipe. A pipe of the system is waited for in short intervals, so that the event ends it."""
    try:
        selector = selectors.DefaultSelector()
        selector.register(file, selectors.EVENT_READ)
    except (ValueError, OSError):  # not a pipe: a file, an object in memory
        selector = None
    while not stop.is_set():
        if selector is not None and not selector.select(WAIT_SECONDS):
            continue
        if not (data := file.read1(PIPE_BYTES)):
            return
        yield data
