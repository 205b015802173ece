"""Reading of a recording, in any of the accepted types, as one channel of samples and a sampling rate.

docs/recordings.md lists the accepted types.
"""

from __future__ import annotations

import io
import numbers
import os
import re
from collections.abc import Mapping

import numpy as np

from .audio_files_gemoclap import BLOCK, MAX_BYTES, MAX_CHANNELS, check_bytes, decode, mix_channels
from .audio_headers_gemoclap import AudioError, error_summary
from .prompts_gemoclap import CONTROL

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz: rates outside of this range are errors in a header
MAX_NAME = 300  # characters of a path in messages
GENERIC_NAMES = ("array", "audio", "audio decoder", "audio file", "bytes")
BYTES_LIKE = (bytes, bytearray, memoryview)
ACCEPTED = (
    "give a path, the bytes of an audio file, an array with its sampling rate, or a dict with 'array', 'bytes' or "
    "'path'"
)


# ---- types of recordings --------------------------------------------------------------------------------------------
def _is_scalar(value) -> bool:
    """Whether it is an array or tensor without dimensions, such as the rate in a row of a formatted dataset."""
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _is_number(value) -> bool:
    return (isinstance(value, numbers.Number) or _is_scalar(value)) and not isinstance(value, (str, bytes))


def _is_decoded(value) -> bool:
    """Whether it resembles torchcodec's `AudioSamples`."""
    return hasattr(value, "sample_rate") and hasattr(getattr(value, "data", None), "shape")


def _is_array(value) -> bool:
    """Whether it is an array or tensor with dimensions, or a list of numbers."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_is_number(item) for item in value[:2])
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return hasattr(value, "detach") and not _is_scalar(value)


def _rate_and_array(audio) -> tuple | None:
    """`(rate, array)` of a pair in either order, as in Gradio, SciPy, soundfile and torchaudio; else None."""
    if isinstance(audio, (list, tuple)) and len(audio) == 2:
        for rate, array in (audio, audio[::-1]):
            if _is_number(rate) and _is_array(array):
                return rate, array
    return None


def is_one_recording(audio) -> bool:
    """Whether `audio` is one recording instead of a collection of recordings.

    A list of numbers and a pair of a rate and an array are one recording. A list of such lists, a pair of paths and an
    array of paths are several. An object of another type that cannot be iterated counts as one; reading it raises an
    error.
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
        return True  # an array of another library, or a series of numbers
    return not (hasattr(audio, "__iter__") or hasattr(audio, "__getitem__"))


def _path_name(path) -> str:
    """A path in messages, without the beginning of a long one: it may be the content of a file, given by mistake.

    Control characters are replaced: a name of a file must not write escape sequences to a terminal or a log.
    """
    path = CONTROL.sub("\N{REPLACEMENT CHARACTER}", os.fsdecode(path))
    return path if len(path) <= MAX_NAME else f"...{path[-MAX_NAME:]}"


def name_of(audio) -> str:
    """Name of a recording in messages: its path where known, else its type."""
    if isinstance(audio, Mapping):
        path = audio.get("path")
        return (isinstance(path, (str, bytes, os.PathLike)) and _path_name(path)) or "audio"
    if isinstance(audio, (str, os.PathLike)):
        return _path_name(audio)
    if isinstance(audio, BYTES_LIKE):
        return "bytes"
    if hasattr(audio, "get_all_samples"):  # the decoder of `datasets` has the path
        encoded = getattr(audio, "_hf_encoded", None)
        return name_of(encoded) if isinstance(encoded, Mapping) else "audio decoder"
    if hasattr(audio, "read"):
        path = getattr(audio, "name", None)
        return _path_name(path) if isinstance(path, str) and path else "audio file"
    if _rate_and_array(audio) or _is_array(audio) or hasattr(audio, "__array__") or isinstance(audio, (list, tuple)):
        return "array"
    return "audio"


# ---- rates and samples ----------------------------------------------------------------------------------------------
def check_rate(rate, name: str) -> int:
    """Convert a sampling rate to an integer in Hz.

    Raises:
        AudioError: If it is None, not a number, not an integer, or outside of 1 to 768 kHz.
    """
    if rate is None:
        raise AudioError(f"{name}: the sampling rate is unknown; pass sampling_rate, or a dict with 'sampling_rate'")
    if _is_scalar(rate):
        rate = rate.item()
    if not isinstance(rate, numbers.Real) or isinstance(rate, bool):
        shown = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(rate))[:80]
        raise AudioError(f"{name}: a sampling rate of {shown} is not a number; give it in Hz, as an integer")
    if not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:  # true for NaN
        raise AudioError(
            f"{name}: a sampling rate of {rate!s:.80} Hz is invalid; give the true rate in Hz, an integer of "
            f"{MIN_RATE:,} to {MAX_RATE:,}"
        )
    return int(rate)


def _to_numpy(array, name: str) -> np.ndarray:
    if np.ma.isMaskedArray(array) and np.ma.is_masked(array):
        raise AudioError(f"{name}: some of its samples are masked; fill or remove them")
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = (array.float() if "bfloat16" in str(array.dtype) else array).numpy()
        return np.asarray(array)
    except Exception as error:  # arrays of other libraries raise exceptions of any type
        kind = type(array).__name__
        raise AudioError(f"{name}: a {kind} cannot be converted to samples ({error_summary(error)})") from None


def _from_array(array, name: str) -> np.ndarray:
    """Convert an array, tensor or list of numbers to one channel of floats.

    Integers of 16 and 32 bits are scaled to [-1, 1]. If exactly one of two axes has at most 32 entries, it is the axis
    of the channels; else the first axis is.
    """
    array = _to_numpy(array, name)
    if array.dtype.kind in "OUSV":
        raise AudioError(f"{name}: an array of {array.dtype} is not audio; {ACCEPTED}")
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
            f"{MAX_CHANNELS} channels; give the recordings one by one"
        )
    frames = array.reshape(-1, array.shape[-1]).T if array.size else array.reshape(0, 1)
    return mix_channels(lambda: (frames[start : start + BLOCK] for start in range(0, len(frames), BLOCK)), name)


# ---- files ----------------------------------------------------------------------------------------------------------
def _read_path(path, name: str) -> bytes:
    if not os.path.isfile(path):
        reason = "no such file"
        if os.path.exists(path):
            reason = "a folder, not a recording" if os.path.isdir(path) else "not a regular file"
        elif "://" in os.fsdecode(path):
            reason = "a URL, but only files can be read: download it first"
        raise AudioError(f"{name}: {reason}")
    try:
        check_bytes(os.path.getsize(path), name)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror})") from None


def _not_bytes(kind: str, name: str) -> AudioError:
    return AudioError(f"{name}: reading it returns {kind}, not bytes; open it with open(path, 'rb')")


def _read_file(file, name: str) -> bytes:
    """Read an open file, from its beginning if it is seekable; the position of the file is restored."""
    if isinstance(file, io.TextIOBase):
        raise _not_bytes("str", name)
    parts, size, position = [], 0, None
    try:
        if getattr(file, "seekable", lambda: False)():
            position = file.tell()
            file.seek(0)
        while size <= MAX_BYTES:
            part = file.read(2**24)
            if not isinstance(part, BYTES_LIKE):
                raise _not_bytes(type(part).__name__, name)
            if not part:
                break
            parts.append(part)
            size += len(part)
        if position is not None:
            file.seek(position)
    except AudioError:
        raise
    except UnicodeError:  # a text-mode file that is not derived from TextIOBase, such as those of codecs and tempfile
        raise _not_bytes("str", name) from None
    except Exception as error:  # a closed, unreadable or asynchronous file, or a broken connection
        raise AudioError(f"{name}: cannot be read ({error_summary(error)})") from None
    return b"".join(parts)


def _from_decoder(decoder, name: str) -> tuple:
    """The samples and the rate of torchcodec's `AudioDecoder`, from which that of `datasets` is derived."""
    try:
        samples = decoder.get_all_samples()
        return samples.data, samples.sample_rate
    except Exception as error:
        raise AudioError(f"{name}: cannot be decoded ({error_summary(error)})") from None


# ---- one recording --------------------------------------------------------------------------------------------------
def _from_mapping(audio: Mapping, sampling_rate, name: str, strict: bool) -> tuple[np.ndarray, int]:
    rate = next((audio[key] for key in ("sampling_rate", "sample_rate") if audio.get(key) is not None), sampling_rate)
    for key in ("array", "raw"):
        if audio.get(key) is not None:
            return _read(audio[key], rate, name, strict)
    for key, types, expected in (("bytes", BYTES_LIKE, "bytes"), ("path", (str, bytes, os.PathLike), "a path")):
        value = audio.get(key)
        if value is None:
            continue
        if not isinstance(value, types):
            raise AudioError(f"{name}: {key!r} of the dict is {type(value).__name__}, not {expected}")
        return _read(os.fsdecode(value) if key == "path" else value, None, name, strict)
    if audio.get("audio") is not None:  # a row of a dataset
        inner = audio["audio"]
        return _read(inner, rate, name_of(inner) if name == "audio" else name, strict)
    keys = ", ".join(sorted(map(str, audio))) or "nothing"
    raise AudioError(f"{name}: a dict needs 'array', 'bytes' or 'path'; it has {keys:.200}")


def _read(audio, sampling_rate, name: str, strict: bool) -> tuple[np.ndarray, int]:
    """Read a recording of any accepted type, without the checks of `read_audio`."""
    if audio is None:
        raise AudioError(f"{name}: None is not a recording; {ACCEPTED}")
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
        raise AudioError(f"{name}: {type(audio).__name__} is not an accepted type of recording; {ACCEPTED}")
    return wave, check_rate(rate, name)


def read_audio(
    audio, sampling_rate: int | None = None, name: str | None = None, strict: bool = False
) -> tuple[np.ndarray, int]:
    """Read one recording.

    Args:
        audio: A path; the bytes of an audio file; an open binary file; a `(time,)`, `(channels, time)` or
            `(time, channels)` array, tensor or list; a pair of a rate and an array in either order; torchcodec's
            `AudioDecoder`; or a dict with `array`, `bytes` or `path` and, for an array, `sampling_rate`.
        sampling_rate: Rate of an array in Hz. The rate of a pair, a dict or a file takes precedence.
        name: Name of the recording in messages.
        strict: Whether a header that disagrees with the content of a file is an error instead of a warning.

    Returns:
        The mean over channels, or the loudest channel if they cancel out, `(time,)` float32, and its rate in Hz.

    Raises:
        AudioError: If the recording does not exist, cannot be decoded, is truncated or empty, contains NaN or
            infinities, or has an unsupported type; or if its rate is unknown or outside of 1 to 768 kHz.
        ImportError: If decoding requires soundfile and it is not installed.
    """
    name = name or name_of(audio)
    try:
        wave, rate = _read(audio, sampling_rate, name, strict)
    except (MemoryError, RecursionError) as error:
        raise AudioError(f"{name}: cannot be read ({type(error).__name__}); it is too large or malformed") from None
    if wave.size == 0:
        raise AudioError(f"{name}: it contains no samples; remove it")
    return wave, rate
