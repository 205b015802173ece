"""Types of recordings: paths, files, arrays, pairs, decoders, rows of datasets, and invalid objects."""

import codecs
import contextlib
import io
import pathlib
import re
import sys
import tempfile
import warnings
from collections import OrderedDict, UserDict
from fractions import Fraction
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from transformers.pipelines.pt_utils import KeyDataset

from modeling_gemoclap import AudioError, GEmoClapFeatureExtractor
from modeling_gemoclap.batching_gemoclap import process_in_batches
from modeling_gemoclap.feature_extraction_gemoclap import is_one_recording, read_audio
from modeling_gemoclap.pipeline_gemoclap import load_clip
from modeling_gemoclap.recordings_gemoclap import check_rate

RATE = 16000
WAVE = (0.3 * np.sin(np.arange(8000) / 6)).astype(np.float32)
STEREO = np.stack([WAVE, 0.5 * WAVE])
BUFFER = io.BytesIO()
soundfile.write(BUFFER, WAVE, RATE, format="WAV", subtype="FLOAT")
WAV = BUFFER.getvalue()


class Decoder:
    """A stand-in for torchcodec's `AudioDecoder`; that of `datasets` also has the path."""

    def __init__(self, data=STEREO, error=None, path=None):
        self.data, self.error = torch.from_numpy(data), error
        self._hf_encoded = {"path": path, "bytes": None}

    def get_all_samples(self):
        if self.error:
            raise self.error
        return SimpleNamespace(data=self.data, sample_rate=RATE)

    def __getitem__(self, key):  # the decoder of `datasets` supports keys
        raise AssertionError("it is to be decoded once, as a whole")


class Unseekable(io.RawIOBase):
    """A raw stream that returns fewer bytes than requested, like a socket."""

    def __init__(self, data):
        self.rest = data

    def readable(self):
        return True

    def readinto(self, buffer):
        part, self.rest = self.rest[: min(len(buffer), 1000)], self.rest[min(len(buffer), 1000) :]
        buffer[: len(part)] = part
        return len(part)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    return path


def at_its_end(data):
    file = io.BytesIO()
    file.write(data)
    return file


MONO = {  # functions from the path of WAVE's file to types of the same recording
    "path": lambda path: path,
    "text": lambda path: str(path),
    "bytes path in a dict": lambda path: {"path": bytes(path)},
    "bytes": lambda path: WAV,
    "bytearray": lambda path: bytearray(WAV),
    "memoryview": lambda path: memoryview(WAV),
    "BytesIO": lambda path: io.BytesIO(WAV),
    "BytesIO that was just written": lambda path: at_its_end(WAV),
    "raw stream": lambda path: Unseekable(WAV),
    "array, rate": lambda path: (WAVE, RATE),
    "rate, array": lambda path: (RATE, WAVE),
    "a list of both": lambda path: [RATE, WAVE],
    "rate, int16": lambda path: (RATE, np.round(WAVE * 32768).astype(np.int16)),
    "big-endian int16": lambda path: (RATE, np.round(WAVE * 32768).astype(">i2")),
    "int32": lambda path: (RATE, np.round(WAVE * 2.0**31).astype(np.int32)),
    "float16": lambda path: (RATE, WAVE.astype(np.float16)),
    "bfloat16": lambda path: (torch.from_numpy(WAVE).bfloat16(), RATE),
    "tensor of one channel, rate": lambda path: (torch.from_numpy(WAVE)[None], RATE),
    "tensor with a gradient": lambda path: (torch.from_numpy(WAVE).requires_grad_(), RATE),
    "rate as a tensor": lambda path: (torch.tensor(RATE), torch.from_numpy(WAVE)),
    "rate as an array": lambda path: (WAVE, np.array(RATE)),
    "rate of NumPy": lambda path: (WAVE, np.int64(RATE)),
    "rate as a float": lambda path: (float(RATE), WAVE),
    "list of numbers, rate": lambda path: (WAVE.tolist(), RATE),
    "tuple of numbers, rate": lambda path: (RATE, tuple(WAVE.tolist())),
    "one channel last": lambda path: (WAVE[:, None], RATE),
    "a mask without masked samples": lambda path: (np.ma.masked_array(WAVE), RATE),
    "soundfile": lambda path: soundfile.read(path),
    "dict": lambda path: {"array": WAVE, "sampling_rate": RATE, "path": "x.wav"},
    "dict with raw": lambda path: {"raw": WAVE, "sampling_rate": RATE},
    "dict with sample_rate": lambda path: {"array": WAVE, "sample_rate": RATE},
    "dict with a pair": lambda path: {"array": (RATE, WAVE)},
    "formatted dict": lambda path: {"array": torch.from_numpy(WAVE), "sampling_rate": torch.tensor(RATE)},
    "dict without decoding": lambda path: {"bytes": None, "path": str(path)},
    "dict of pathlib": lambda path: {"array": None, "bytes": None, "path": path},
    "dict with bytes": lambda path: {"bytes": WAV, "path": "not/there.wav"},
    "other mapping": lambda path: UserDict(bytes=WAV),
    "row of a dataset": lambda path: {"audio": {"array": WAVE, "sampling_rate": RATE}, "label": 3},
    "row with a path": lambda path: OrderedDict(audio=str(path), emotion="sad"),
    "decoder": lambda path: Decoder(np.stack([WAVE])),
    "decoder in a row": lambda path: {"audio": Decoder(np.stack([WAVE])), "label": 3},
    "decoded": lambda path: SimpleNamespace(data=torch.from_numpy(WAVE), sample_rate=RATE),
}


@pytest.mark.parametrize("case", MONO)
def test_all_types_are_read_as_the_same_recording(case, path):
    wave, rate = read_audio(MONO[case](path))
    assert rate == RATE and wave.dtype == np.float32 and wave.shape == WAVE.shape
    assert np.abs(wave - WAVE).max() < 2e-3
    assert is_one_recording(MONO[case](path))
    extractor = GEmoClapFeatureExtractor()
    values = extractor(MONO[case](path))["input_values"]
    assert torch.equal(values, extractor(wave, RATE)["input_values"])
    assert np.array_equal(load_clip(extractor, MONO[case](path), on_error="return"), values[0].numpy())


def test_position_of_open_files_is_restored(path):
    with open(path, "rb") as file, open(path, "rb", buffering=0) as raw:
        file.seek(5)
        for _ in range(2):
            assert np.array_equal(read_audio(file)[0], WAVE) and np.array_equal(read_audio(raw)[0], WAVE)
        assert file.tell() == 5


CHANNELS = {
    "channels first": (STEREO, RATE),
    "channels last": (STEREO.T, RATE),
    "Gradio": (RATE, np.round(STEREO.T * 32768).astype(np.int16)),
    "torchaudio": (torch.from_numpy(STEREO), RATE),
    "decoder": Decoder(),
    "dict": {"array": STEREO.T, "sampling_rate": RATE},
}


@pytest.mark.parametrize("case", CHANNELS)
def test_axis_of_channels_is_detected(case):
    wave, _ = read_audio(CHANNELS[case])
    assert np.abs(wave - 0.75 * WAVE).max() < 1e-4


def test_rate_of_the_recording_takes_precedence():
    for audio in ((WAVE, 8000), {"array": WAVE, "sampling_rate": 8000}, {"audio": (8000, WAVE)}):
        assert read_audio(audio, 44100)[1] == 8000
    for audio in (WAVE, {"array": WAVE}, {"array": WAVE, "sampling_rate": None}):
        assert read_audio(audio, 44100)[1] == 44100


# ---- collections ----------------------------------------------------------------------------------------------------
SEVERAL = {
    "list of paths": lambda path: [str(path), path],
    "tuple of two paths": lambda path: (str(path), str(path)),
    "list of bytes": lambda path: [WAV, WAV],
    "list of arrays": lambda path: [WAVE, WAVE],
    "two pairs": lambda path: [(WAVE, RATE), (RATE, WAVE)],
    "a tuple of pairs": lambda path: ((WAVE, RATE), (RATE, WAVE)),
    "lists of numbers": lambda path: [WAVE.tolist(), WAVE.tolist()],
    "array of paths": lambda path: np.array([str(path), str(path)]),
    "array of objects": lambda path: np.array([path, WAV], dtype=object),
    "generator": lambda path: (audio for audio in (path, WAV)),
    "open files": lambda path: [io.BytesIO(WAV), io.BytesIO(WAV)],
    "decoders": lambda path: [Decoder(), Decoder()],
    "keys": lambda path: dict.fromkeys([str(path), path]).keys(),
    "rows": lambda path: datasets.Dataset.from_dict({"path": [str(path)] * 2, "label": [0, 1]}),
    "keys of a dataset": lambda path: KeyDataset([{"file": path}, {"file": WAV}], "file"),
    "column": lambda path: datasets.Dataset.from_dict({"path": [str(path)] * 2})["path"],
    "streamed rows": lambda path: datasets.Dataset.from_dict({"path": [str(path)] * 2}).to_iterable_dataset(),
    "arrays in rows": lambda path: datasets.Dataset.from_list([{"array": WAVE, "sampling_rate": RATE}] * 2),
    "formatted rows": lambda path: datasets.Dataset.from_list(
        [{"audio": {"array": WAVE, "sampling_rate": RATE}, "label": 0}] * 2
    ).with_format("torch"),
    "undecoded rows": lambda path: datasets.Dataset.from_dict({"audio": [str(path)] * 2}).cast_column(
        "audio", datasets.Audio(decode=False)
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_collections(case, path):
    assert not is_one_recording(SEVERAL[case](path))
    extractor = GEmoClapFeatureExtractor()
    assert extractor(SEVERAL[case](path), RATE)["input_values"].shape == (2, len(WAVE))
    answers = process_in_batches(
        SEVERAL[case](path),
        2,
        lambda audio: load_clip(extractor, audio, RATE, "return"),
        lambda clips: map(len, clips),
    )
    assert list(answers) == [len(WAVE)] * 2


def test_empty_list_is_refused():
    for empty in ([], (), np.array([], dtype=object), iter(())):
        assert not is_one_recording(empty)
        with pytest.raises(AudioError, match="the list of recordings is empty"):
            GEmoClapFeatureExtractor()(empty)


# ---- invalid recordings ---------------------------------------------------------------------------------------------
class Later:
    """The result of reading an asynchronous file."""


def closed():
    file = io.BytesIO(WAV)
    file.close()
    return file


class Odd:
    """An object whose methods raise exceptions, with the default `__repr__`."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array: <Odd object at 0x7f0012345678>")


def recursive():
    audio = {}
    audio["audio"] = audio
    return audio


REFUSED = {
    "None": (None, "None is not a recording"),
    "number": (5, "int is not an accepted type of recording"),
    "bool": (True, "bool is not an accepted type of recording"),
    "object": (object(), "object is not an accepted type of recording"),
    "function": (len, "builtin_function_or_method is not"),
    "dict of None": ({"array": None, "bytes": None, "path": None}, "a dict needs 'array', 'bytes' or 'path'"),
    "empty dict": ({}, "it has nothing"),
    "odd keys": ({1: 2, None: 3}, "a dict needs"),
    "path that is a number": ({"path": 7}, "'path' of the dict is int, not a path"),
    "path that is an array": ({"path": WAVE}, "'path' of the dict is ndarray, not a path"),
    "path that is a tensor": ({"path": torch.from_numpy(WAVE)}, "'path' of the dict is Tensor, not a path"),
    "bytes that are text": ({"bytes": "RIFF"}, "'bytes' of the dict is str, not bytes"),
    "bytes that are a list": ({"bytes": [82, 73]}, "'bytes' of the dict is list, not bytes"),
    "batch of rows": ({"audio": ["a.wav", "b.wav"]}, "is not audio"),
    "recursive dict": (recursive(), "RecursionError"),
    "address": ("https://example.org/clip.wav", "a URL.*download it first"),
    "folder": (pathlib.Path(__file__).parent, "travelling: a folder"),
    "name with a NUL": ("a\0b", "no such file"),
    "empty name": ("", "no such file"),
    "NaN rate": ((float("nan"), WAVE), "nan Hz is invalid"),
    "infinite rate": ((WAVE, float("inf")), "inf Hz is invalid"),
    "bool rate": ((True, WAVE), "True is not a number"),
    "NumPy's bool rate": ((np.bool_(True), WAVE), "True.* is not a number"),
    "complex rate": ((8000j, WAVE), "8000j is not a number"),
    "broken rate": ((Fraction(16001, 2), WAVE), "16001/2 Hz is invalid"),
    "huge rate": ((10**400, WAVE), "Hz is invalid"),
    "rate that is text": ({"array": WAVE, "sampling_rate": "16000"}, "'16000' is not a number"),
    "rate that is a list": ({"array": WAVE, "sampling_rate": [16000]}, "is not a number"),
    "content as a path": ({"path": WAV}, "^[.][.][.].*: no such file"),
    "long path": ("a/" * 3000 + "clip.wav", "^[.][.][.][a/]+clip.wav: no such file"),
    "no rate": (WAVE, "sampling rate is unknown"),
    "0-d array": (np.array(0.5), "shape .. is not"),
    "0-d tensor": (torch.tensor(0.5), "shape .. is not"),
    "0-d object": (np.array(None), "array of object is not audio"),
    "three axes": ((np.zeros((2, 2, 9)), RATE), "is not .time,"),
    "both axes long": ((np.zeros((90, 90)), RATE), "is not .time,"),
    "no samples": ((np.zeros((2, 0)), RATE), "no samples"),
    "empty array": ((np.zeros(0), RATE), "no samples"),
    "text samples": ((np.array(["a"]), RATE), "is not audio"),
    "bytes samples": (np.array([b"RIFF"] * 3), "is not audio"),
    "objects": ((np.array([WAVE, None], dtype=object), RATE), "is not audio"),
    "mixed list": ([0.1, None, "a"], "is not audio"),
    "ragged": ([[0.1, 0.2], [0.3]], "cannot be converted to samples"),
    "complex": ((WAVE.astype(np.complex64), RATE), "complex64 is not audio"),
    "bools": ((WAVE > 0, RATE), "bool is not audio"),
    "uint8": (np.frombuffer(WAV, np.uint8), "uint8 is not audio.*tobytes"),
    "int8": ((WAVE.astype(np.int8), RATE), "int8 is not audio"),
    "int64": ((RATE, [0, 5, -9]), "int64 is not audio"),
    "records": (np.zeros(9, dtype=[("left", "f4")]), "is not audio"),
    "dates": (np.zeros(9, dtype="datetime64[s]"), "is not audio"),
    "masked": (np.ma.masked_array(WAVE, WAVE > 0.2), "masked"),
    "sparse": (torch.from_numpy(WAVE).to_sparse(), "cannot be converted to samples"),
    "meta": (torch.zeros(9000, device="meta"), "cannot be converted to samples"),
    "NaN": ((np.where(WAVE > 0.29, np.nan, WAVE), RATE), "NaN or infinite"),
    "infinite": ((np.where(WAVE > 0.29, np.inf, WAVE), RATE), "NaN or infinite"),
    "failing array": (Odd(), "no array"),
    "closed file": (closed(), "closed file"),
    "text file": (io.StringIO("RIFF"), "returns str, not bytes.*'rb'"),
    "file without a byte": (io.BytesIO(), "empty"),
    "write-only file": (SimpleNamespace(read=None), "cannot be read"),
    "asynchronous file": (SimpleNamespace(read=lambda size: Later()), "returns Later, not bytes"),
    "failing decoder": (
        Decoder(error=RuntimeError("bad at 0x7f0012345678"), path="a/b.wav"),
        "a/b.wav: cannot be dec",
    ),
    "decoder without torchcodec": (Decoder(error=ImportError("torchcodec")), "torchcodec"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_recordings_raise_the_same_error_everywhere(case):
    audio, message = REFUSED[case]
    rate = None if case in ("no rate", "bool rate", "NaN rate") else RATE
    extractor = GEmoClapFeatureExtractor()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(AudioError, match=message) as error:
            read_audio(audio, rate)
        with pytest.raises(AudioError, match=message):
            extractor([WAV, audio], rate)
        with pytest.raises(AudioError, match=message):
            load_clip(extractor, audio, rate)
        answers = [load_clip(extractor, item, rate, "return") for item in (audio, WAV)]
    text = str(error.value)
    assert "\n" not in text and not re.search(r" at 0x[0-9a-f]{6}", text) and ": " in text and len(text) < 500
    assert answers[0] == {"error": text} and len(answers[1]) == len(WAVE)


def half_read_lines(path):
    """A text-mode file whose iteration has begun: it does not give its position."""
    file = open(path, encoding="latin-1")
    next(file)
    return file


def temporary_copy(path):
    file = tempfile.NamedTemporaryFile("w+", encoding="utf-8")
    pathlib.Path(file.name).write_bytes(path.read_bytes())
    return file


TEXT_MODE = {
    "the default encoding": open,
    "an encoding that decodes all bytes": lambda path: open(path, encoding="latin-1"),
    "an encoding with a byte order mark": lambda path: open(path, encoding="utf-16"),
    "codecs": lambda path: codecs.getreader("utf-8")(open(path, "rb")),
    "tempfile": temporary_copy,
    "lines": half_read_lines,
}


@pytest.mark.parametrize("kind", TEXT_MODE)
def test_every_file_in_text_mode_is_refused_with_the_call_that_works(kind, tmp_path):
    (tmp_path / "clip.wav").write_bytes(WAV)
    with contextlib.closing(TEXT_MODE[kind](tmp_path / "clip.wav")) as file:
        with pytest.raises(AudioError, match=r"returns str, not bytes; open it with open\(path, 'rb'\)$"):
            read_audio(file)
    with open(tmp_path / "clip.wav", "rb") as file:
        assert len(read_audio(file)[0]) == len(WAVE)


@pytest.mark.parametrize(
    "audio", [None, 5, object(), {}, np.array(0.5), torch.tensor(0.5), "no.wav", io.BytesIO(), (RATE, WAVE)]
)
def test_objects_that_cannot_be_iterated_are_one_item(audio):
    assert is_one_recording(audio)


def test_messages_name_the_recording(tmp_path):
    named = tmp_path / "named.wav"
    named.write_bytes(b"no audio")
    for audio in (
        named,
        {"path": named},
        {"path": str(named), "bytes": b"no audio"},
        {"audio": str(named)},
        open(named, "rb"),
    ):
        with pytest.raises(AudioError, match="named.wav: not audio"):
            read_audio(audio)
    with pytest.raises(AudioError, match="^recording 1: not audio"):
        GEmoClapFeatureExtractor()([WAV, b"no audio"])
    with pytest.raises(AudioError, match="^mine: "):
        read_audio(named, name="mine")


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=20),
    st.sampled_from([WAVE, STEREO, STEREO.T, torch.from_numpy(WAVE), np.array(RATE), torch.tensor(0.1), RATE, WAV]),
    arrays(st.sampled_from([np.float32, np.int16, np.int64, np.uint8, object, "U2", ">f8"]), array_shapes(min_dims=0)),
)
KEYS = st.sampled_from(["array", "raw", "bytes", "path", "audio", "sampling_rate", "sample_rate", "label"])


def test_sampling_rate_in_message_has_no_address():
    with pytest.raises(AudioError, match="^recording: a sampling rate of <memory> is not a number"):
        check_rate(memoryview(b""), "recording")


@settings(max_examples=500, deadline=None)
@given(
    audio=st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(KEYS, inner, max_size=4)
        ),
        max_leaves=8,
    ),
    rate=st.sampled_from([None, RATE, 8000.0, float("nan"), "16000"]),
)
def test_any_object_is_read_or_raises_an_audio_error(audio, rate):
    extractor = GEmoClapFeatureExtractor()
    several = not is_one_recording(audio)
    for item in audio if several else [audio]:
        answer = load_clip(extractor, item, rate, "return")
        if isinstance(answer, dict):
            assert not re.search(r" at 0x[0-9a-f]{6}", answer["error"]) and len(answer["error"]) < 900
        else:
            assert answer.dtype == np.float32 and np.isfinite(answer).all()


def test_other_errors_are_not_returned_as_results(monkeypatch):
    extractor = GEmoClapFeatureExtractor()
    monkeypatch.setattr(GEmoClapFeatureExtractor, "features", lambda self, wave: int("no number"))
    with pytest.raises(ValueError, match="invalid literal"):
        load_clip(extractor, WAV, on_error="return")


def test_clip_shorter_than_a_frame_is_refused():
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel", min_seconds=0.0)
    for samples in (2, 100, 399):
        answer = load_clip(extractor, WAVE[:samples], RATE, "return")
        assert "too short" in answer["error"]
    assert load_clip(extractor, WAVE[:400], RATE, "return").shape == (1, 64)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_paths_that_are_not_regular_files_are_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", "/dev/zero"):
        with pytest.raises(AudioError, match="not a regular file"):
            read_audio(path)


def test_pipeline_accepts_all_types(make_model, make_processor):
    from transformers import pipeline

    model = make_model()
    processor = make_processor(model)
    pipe = pipeline("zero-shot-emotion-recognition", model=model, processor=processor)
    expected = pipe(WAV)
    for audio in ((RATE, WAVE), (WAVE, RATE), io.BytesIO(WAV), Decoder(np.stack([WAVE])), {"audio": (WAVE, RATE)}):
        assert [item["label"] for item in pipe(audio)] == [item["label"] for item in expected]
        assert torch.equal(processor(audio=audio)["input_features"], processor(audio=WAV)["input_features"])
    items = [(RATE, WAVE), None, io.BytesIO(WAV), 5, {}, io.BytesIO(b"x"), Decoder(error=RuntimeError("x")), WAV]
    answers = pipe(items, on_error="return", batch_size=3)
    assert [isinstance(answer, dict) for answer in answers] == [False, True, False, True, True, True, True, False]
    for audio in (None, 5, object(), {}):
        assert set(pipe(audio, on_error="return")) == {"error"}
        with pytest.raises(AudioError):
            pipe(audio)
