"""From whatever is given as a recording to one channel of samples and a rate.

docs/recordings.md lists what is accepted.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping

import numpy as np

from .audio_files_gemoclap import BLOCK, MAX_BYTES, MAX_CHANNELS, check_bytes, decode, mix
from .audio_headers_gemoclap import AudioError, words_of

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz: beyond these a header is wrong
MAX_AMPLITUDE = 2.0**32  # above the largest integers that audio comes in
NAMELESS = ("array", "audio", "audio decoder", "audio file", "bytes")
BYTES_LIKE = (bytes, bytearray, memoryview)
GIVE = "give a path, an audio file's bytes, an array with its sampling rate, or a dict with 'array', 'bytes' or 'path'"


# ---- what kind of thing it is ---------------------------------------------------------------------------------------
def _is_scalar(value) -> bool:
    """Whether it is an array or tensor without dimensions, such as the rate of a formatted dataset."""
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _is_number(value) -> bool:
    return (isinstance(value, numbers.Number) or _is_scalar(value)) and not isinstance(value, (str, bytes))


def _is_decoded(value) -> bool:
    """Whether it is like torchcodec's `AudioSamples`."""
    return hasattr(value, "sample_rate") and hasattr(getattr(value, "data", None), "shape")


def _is_array(value) -> bool:
    """Whether it is an array or tensor with dimensions, or a list of numbers."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_is_number(item) for item in value[:2])
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return hasattr(value, "detach") and not _is_scalar(value)


def _rate_and_array(audio) -> tuple | None:
    """`(rate, array)` of such a pair in either order, as Gradio, SciPy, soundfile and torchaudio make them."""
    if isinstance(audio, (list, tuple)) and len(audio) == 2:
        for rate, array in (audio, audio[::-1]):
            if _is_number(rate) and _is_array(array):
                return rate, array
    return None


def is_one_recording(audio) -> bool:
    """Whether `audio` is one recording, not a collection of them.

    A list of numbers and a pair of a rate and an array are one recording; a list of such lists, a pair of paths and an
    array of paths are several. What is neither a recording nor can be iterated counts as one, which is then refused.
    """
    if audio is None or isinstance(audio, (str, os.PathLike, *BYTES_LIKE, Mapping)):
        return True
    if isinstance(audio, np.ndarray):
        return audio.ndim == 0 or audio.dtype.kind not in "OUS"
    if isinstance(audio, (list, tuple)):
        return _rate_and_array(audio) is not None or (len(audio) > 0 and _is_number(audio[0]))
    if _is_decoded(audio) or any(hasattr(audio, name) for name in ("detach", "read", "get_all_samples")):
        return True
    if hasattr(audio, "__array__") and getattr(getattr(audio, "dtype", None), "kind", "O") in "iufcb":
        return True  # arrays of other libraries; a series of numbers
    return not (hasattr(audio, "__iter__") or hasattr(audio, "__getitem__"))


def name_of(audio) -> str:
    """What messages call a recording that was given no name."""
    if isinstance(audio, Mapping):
        path = audio.get("path")
        return (isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path)) or "audio"
    if isinstance(audio, (str, os.PathLike)):
        return os.fsdecode(audio)
    if isinstance(audio, BYTES_LIKE):
        return "bytes"
    if hasattr(audio, "get_all_samples"):  # that of datasets knows where it comes from
        encoded = getattr(audio, "_hf_encoded", None)
        return name_of(encoded) if isinstance(encoded, Mapping) else "audio decoder"
    if hasattr(audio, "read"):
        path = getattr(audio, "name", None)
        return path if isinstance(path, str) and path else "audio file"
    if _rate_and_array(audio) or _is_array(audio) or hasattr(audio, "__array__") or isinstance(audio, (list, tuple)):
        return "array"
    return "audio"


# ---- rates and samples ----------------------------------------------------------------------------------------------
def check_rate(rate, name: str) -> int:
    """A sampling rate in whole Hz.

    Raises:
        AudioError: If it is None, not a number, not whole, or not within 1 to 768 kHz.
    """
    if rate is None:
        raise AudioError(f"{name}: the sampling rate is not known; pass sampling_rate, or a dict with 'sampling_rate'")
    if _is_scalar(rate):
        rate = rate.item()
    if not isinstance(rate, numbers.Real) or isinstance(rate, bool):
        raise AudioError(f"{name}: a sampling rate of {rate!r:.80} is no number; give it in whole Hz")
    if not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:  # NaN is not within either
        raise AudioError(
            f"{name}: a sampling rate of {rate!s:.80} Hz is impossible; give the true rate in whole Hz, "
            f"{MIN_RATE:,} to {MAX_RATE:,}"
        )
    return int(rate)


def _to_numpy(array, name: str) -> np.ndarray:
    if np.ma.isMaskedArray(array) and np.ma.is_masked(array):
        raise AudioError(f"{name}: some of its samples are masked; fill them or leave them out")
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = (array.float() if "bfloat16" in str(array.dtype) else array).numpy()
        return np.asarray(array)
    except Exception as error:  # arrays of other libraries raise what they like
        kind = type(array).__name__
        raise AudioError(f"{name}: a {kind} cannot be made an array of samples ({words_of(error)})") from None


def _from_array(array, name: str) -> np.ndarray:
    """An array, tensor or list of numbers as one channel of floats; 16 and 32-bit integers are scaled to [-1, 1].

    Of two axes the one of at most 32 is the channels', if the other is longer than that; else the first is.
    """
    array = _to_numpy(array, name)
    if array.dtype.kind in "OUSV":
        raise AudioError(f"{name}: an array of {array.dtype} is not audio; {GIVE}")
    if array.dtype.kind == "i" and array.dtype.itemsize in (2, 4):
        array = array.astype(np.float64) / (np.iinfo(array.dtype).max + 1.0)
    if array.dtype.kind != "f":
        raise AudioError(
            f"{name}: an array of {array.dtype} is not audio; give int16, int32 or floating point"
            + (", or the bytes of a file: array.tobytes()" if array.dtype == np.uint8 else "")
        )
    if array.ndim == 2 and array.shape[0] > MAX_CHANNELS >= array.shape[1]:
        array = array.T
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > MAX_CHANNELS):
        raise AudioError(
            f"{name}: shape {array.shape} is not (time,), (channels, time) or (time, channels) with up to "
            f"{MAX_CHANNELS} channels; give one recording at a time"
        )
    frames = array.reshape(-1, array.shape[-1]).T if array.size else array.reshape(0, 1)
    return mix(lambda: (frames[start : start + BLOCK] for start in range(0, len(frames), BLOCK)), name)


# ---- files ----------------------------------------------------------------------------------------------------------
def _read_path(path, name: str) -> bytes:
    if not os.path.isfile(path):
        reason = "no such file"
        if os.path.exists(path):
            reason = "a folder, not a recording" if os.path.isdir(path) else "not a regular file"
        elif "://" in os.fsdecode(path):
            reason = "an address, and only files are read: download it first"
        raise AudioError(f"{name}: {reason}")
    try:
        check_bytes(os.path.getsize(path), name)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror})") from None


def _read_file(file, name: str) -> bytes:
    """All of an open file, from its beginning where it can be sought in; its position is left as it was."""
    parts, size, position = [], 0, None
    try:
        if getattr(file, "seekable", lambda: False)():
            position = file.tell()
            file.seek(0)
        while size <= MAX_BYTES:
            part = file.read(2**24)
            if not isinstance(part, BYTES_LIKE):
                kind = type(part).__name__
                raise AudioError(f"{name}: reading it gives {kind}, not bytes; open it with open(path, 'rb')")
            if not part:
                break
            parts.append(part)
            size += len(part)
        if position is not None:
            file.seek(position)
    except AudioError:
        raise
    except Exception as error:  # closed, not readable, asynchronous, a broken connection
        raise AudioError(f"{name}: cannot be read ({words_of(error)})") from None
    return b"".join(parts)


def _from_decoder(decoder, name: str) -> tuple:
    """The samples and the rate of torchcodec's `AudioDecoder`, which that of `datasets` is too."""
    try:
        samples = decoder.get_all_samples()
        return samples.data, samples.sample_rate
    except Exception as error:
        raise AudioError(f"{name}: cannot be decoded ({words_of(error)})") from None


# ---- one recording --------------------------------------------------------------------------------------------------
def _from_mapping(audio: Mapping, sampling_rate, name: str, strict: bool) -> tuple[np.ndarray, int]:
    rate = next((audio[key] for key in ("sampling_rate", "sample_rate") if audio.get(key) is not None), sampling_rate)
    for key in ("array", "raw"):
        if audio.get(key) is not None:
            return _read(audio[key], rate, name, strict)
    for key, kinds, wanted in (("bytes", BYTES_LIKE, "bytes"), ("path", (str, bytes, os.PathLike), "a path")):
        value = audio.get(key)
        if value is None:
            continue
        if not isinstance(value, kinds):
            raise AudioError(f"{name}: {key!r} of the dict is {type(value).__name__}, not {wanted}")
        return _read(os.fsdecode(value) if key == "path" else value, None, name, strict)
    if audio.get("audio") is not None:  # a row of a dataset
        inner = audio["audio"]
        return _read(inner, rate, name_of(inner) if name == "audio" else name, strict)
    keys = ", ".join(sorted(map(str, audio))) or "nothing"
    raise AudioError(f"{name}: a dict needs 'array', 'bytes' or 'path'; it has {keys:.200}")


def _read(audio, sampling_rate, name: str, strict: bool) -> tuple[np.ndarray, int]:
    """What `read_audio` does, by kind of input."""
    if audio is None:
        raise AudioError(f"{name}: None is not a recording; {GIVE}")
    if isinstance(audio, Mapping):
        return _from_mapping(audio, sampling_rate, name, strict)
    if pair := _rate_and_array(audio):
        sampling_rate, audio = pair
    elif hasattr(audio, "get_all_samples"):
        audio, sampling_rate = _from_decoder(audio, name)
    elif _is_decoded(audio):
        audio, sampling_rate = audio.data, audio.sample_rate
    if isinstance(audio, (str, os.PathLike)):
        audio = _read_path(audio, name)
    elif hasattr(audio, "read") and not isinstance(audio, BYTES_LIKE):
        audio = _read_file(audio, name)
    if isinstance(audio, BYTES_LIKE):
        wave, rate = decode(bytes(audio), name, strict)
    elif isinstance(audio, (list, tuple)) or hasattr(audio, "detach") or hasattr(audio, "__array__"):
        rate = check_rate(sampling_rate, name)
        wave = _from_array(audio, name)
    else:
        raise AudioError(f"{name}: {type(audio).__name__} is not a kind of recording that is read; {GIVE}")
    return wave, check_rate(rate, name)


def read_audio(
    audio, sampling_rate: int | None = None, name: str | None = None, strict: bool = False
) -> tuple[np.ndarray, int]:
    """Read one recording.

    Args:
        audio: A path; an audio file's bytes; a binary file that is open; a `(time,)`, `(channels, time)` or
            `(time, channels)` array, tensor or list; a pair of a rate and an array in either order; torchcodec's
            `AudioDecoder`; or a dict with `array`, `bytes` or `path` and, for an array, `sampling_rate`.
        sampling_rate: Rate of an array in Hz; that of a pair or a dict takes precedence, and files carry theirs.
        name: What messages call the recording.
        strict: Refuse a file whose header and content disagree, instead of a warning.

    Returns:
        The mean over channels, or the loudest one where they cancel out, `(time,)` float32, and its rate in Hz.

    Raises:
        AudioError: If it cannot be found or decoded, is truncated or empty, holds NaN or infinities, is of a kind that
            is not read, or its rate is not known or not within 1 to 768 kHz.
        ImportError: If a file is to be decoded and soundfile is not installed.
    """
    name = name or name_of(audio)
    try:
        wave, rate = _read(audio, sampling_rate, name, strict)
    except (MemoryError, RecursionError) as error:
        raise AudioError(f"{name}: cannot be read ({type(error).__name__}); it is too large or malformed") from None
    if wave.size == 0:
        raise AudioError(f"{name}: it holds no samples; leave it out")
    peak = float(max(wave.max(), -wave.min()))
    if not math.isfinite(peak):
        raise AudioError(f"{name}: it holds NaN or infinite samples; repair it or leave it out")
    if peak > MAX_AMPLITUDE:
        raise AudioError(f"{name}: it holds samples as large as {peak:.1e}, which is not audio; repair it")
    return wave, rate
