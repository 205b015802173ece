"""Audio files of common tools: complete files, files that cause a warning, and files that are refused."""

import io
import struct
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_gemoclap import AudioError, GEmoClapFeatureExtractor, audio_files_gemoclap, audio_headers_gemoclap
from modeling_gemoclap.feature_extraction_gemoclap import read_audio
from modeling_gemoclap.inference.streaming.signal import ModelSignal

RATE = 16000
NOISE = np.random.default_rng(0).standard_normal(24000)
WAVE = (0.3 * np.sin(np.arange(24000) / 6) + 0.02 * NOISE).astype(np.float32)


def encoded(wave=WAVE, rate=RATE, format="WAV", subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=format, subtype=subtype)
    return buffer.getvalue()


WAV = encoded()
SIZE = len(WAV) - 44


def with_sizes(data, riff=None):
    """A WAV file with other sizes in its header."""
    riff = len(WAV) - 8 if riff is None else riff
    return WAV[:4] + struct.pack("<I", riff) + WAV[8:40] + struct.pack("<I", data) + WAV[44:]


@pytest.fixture
def remarks(monkeypatch):
    seen = []
    for module in (audio_headers_gemoclap, audio_files_gemoclap):
        monkeypatch.setattr(module.logger, "warning_once", seen.append)
    return seen


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(audio_files_gemoclap, "find_ffmpeg", lambda: None)


def whole(data, strict=False):
    wave, rate = read_audio(data, name="clip", strict=strict)
    return rate == RATE and np.abs(wave - WAVE).max() < 1e-3 if len(wave) == len(WAVE) else False


# ---- the sizes of headers -------------------------------------------------------------------------------------------
PLACEHOLDERS = [0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFD4, 0x7FFF0000, 0x7FFFFFFF, 0x80000000, 0x80000024, 0xFFFFFFFF]


@pytest.mark.parametrize("size", [*PLACEHOLDERS, 0xFFFFF000, 0xFFFFFFDB], ids=hex)
def test_streamed_wav_is_read_to_its_end(size, remarks):
    for riff in (size, min(size + 36, 2**32 - 1), 0):
        assert whole(with_sizes(size, riff), strict=True)
    assert not remarks


def put(data, place, layout, *values):
    return data[:place] + struct.pack(layout, *values) + data[place + struct.calcsize(layout) :]


STREAMED = {  # format: the chunk that holds the size, the size's place in it, its layout, and the placeholders
    "AIFF": (b"SSND", 4, ">I", [0, 0x7FFFF000, 0xFFFFFFFF]),
    "AU": (b".snd", 8, ">I", [0, 0x7FFFF000, 0xFFFFFFFF]),
    "CAF": (b"data", 4, ">q", [-1, 0]),
    "RF64": (b"ds64", 16, "<Q", [0, 2**64 - 1]),
    "W64": (b"data", 16, "<q", [2**63 - 1, 2**62]),
}


@pytest.mark.parametrize(("format", "size"), [(name, size) for name, case in STREAMED.items() for size in case[-1]])
@pytest.mark.parametrize("outer", [False, True])
def test_other_streamed_formats_are_read_to_their_end(format, size, outer, remarks):
    chunk, place, layout, _ = STREAMED[format]
    data = encoded(format=format)
    data = put(data, data.index(chunk) + place, layout, size)
    if outer and format in ("AIFF", "RF64", "W64"):
        at = {"AIFF": 4, "W64": 16, "RF64": data.find(b"ds64") + 8}[format]
        data = put(data, at, layout, size)
    assert whole(data, strict=True) and not remarks


WRONG = {
    "one byte": (SIZE + 1, None),
    "the file's size": (SIZE + 36, None),
    "36 in both sizes": (SIZE + 36, SIZE + 72),
    "twice": (2 * SIZE, None),
    "twice in both sizes": (2 * SIZE, 2 * SIZE + 36),
    "four times in both sizes": (4 * SIZE, 4 * SIZE + 36),
    "any size beside that of the whole file": (3 * SIZE + 18, None),
    "a third": (SIZE // 3 // 2 * 2, None),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_header_causes_a_warning(case, remarks, tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(with_sizes(*WRONG[case]))
    assert whole(path)
    [remark] = remarks
    assert "clip" in remark and "header" in remark
    with pytest.raises(AudioError, match="clip.*header"):
        read_audio(path, strict=True)
    with pytest.raises(AudioError, match="clip.wav: its header"):
        GEmoClapFeatureExtractor(strict=True).load(path)


def test_strict_is_saved(tmp_path):
    GEmoClapFeatureExtractor(strict=True).save_pretrained(tmp_path)
    assert GEmoClapFeatureExtractor.from_pretrained(tmp_path).strict is True
    assert GEmoClapFeatureExtractor().strict is False


WITH_LENGTH = {"WAV": 44, "AIFF": 100, "AU": 30, "CAF": 4200, "W64": 140, "RF64": 110, "NIST": 1030, "WAVEX": 90}


@pytest.mark.parametrize("format", WITH_LENGTH)
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(format, fraction, remarks):
    data = encoded(format=format)
    start = WITH_LENGTH[format]
    with pytest.raises(AudioError, match="clip: truncated"):
        read_audio(data[: start + int(fraction * (len(data) - start)) + 1], name="clip")
    assert not remarks


def test_truncated_file_with_chunks_before_and_after_the_samples():
    extra = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"
    data = WAV[:36] + extra + WAV[36:] + extra
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert whole(data, strict=True)
    with pytest.raises(AudioError, match="truncated"):
        read_audio(data[:20000])


WRITABLE = [
    (format, subtype)
    for format in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(format)
    if format not in ("RAW", "SD2") and soundfile.check_format(format, subtype)
]


@pytest.mark.parametrize(("format", "subtype"), WRITABLE)
def test_complete_files_of_every_format_pass_strict_checks(format, subtype, remarks):
    """Files of libsndfile are read completely and without a warning."""
    rate = 8000 if subtype in ("GSM610", "G721_32", "G723_24", "G723_40", "NMS_ADPCM_16", "NMS_ADPCM_24") else RATE
    rate = 8000 if format == "WVE" else rate
    try:
        data = encoded(rate=rate, format=format, subtype=subtype)
        soundfile.read(io.BytesIO(data), frames=1)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        pytest.skip(f"libsndfile does not read its own {format} with {subtype} from memory ({error})")
    wave, _ = read_audio(data, strict=True)
    assert 0 <= len(wave) - len(WAVE) < 1300 and not remarks


# ---- FLAC, MP3, GSM, Ogg --------------------------------------------------------------------------------------------
def streamed_flac():
    data = bytearray(encoded(format="FLAC"))
    assert data[:4] == b"fLaC" and data[4] & 127 == 0
    data[21] &= 0xF0  # the number of samples: 36 bits, 0 if it is unknown
    data[22:26] = bytes(4)
    return bytes(data)


def test_streamed_flac_is_complete():
    assert whole(streamed_flac(), strict=True)


@pytest.mark.parametrize("data", [encoded(format="FLAC"), streamed_flac()], ids=["known", "streamed"])
@pytest.mark.parametrize("fraction", [0.3, 0.55, 0.98])
def test_truncated_flac_is_refused(data, fraction):
    if data == streamed_flac() and soundfile.__libsndfile_version__ < "1.2.2":
        pytest.skip("this version of libsndfile does not see the end of a FLAC stream that does not tell its length")
    with pytest.raises(AudioError, match="clip: truncated"):
        read_audio(data[: int(fraction * len(data))], name="clip")


def test_gsm_is_complete():
    data = encoded(rate=8000, format="WAV", subtype="GSM610")
    wave, rate = read_audio(data, strict=True)
    assert rate == 8000 and 0 <= len(wave) - len(WAVE) <= 320
    with pytest.raises(AudioError, match="clip: truncated"):
        read_audio(data[:2000], name="clip")


def uncounted(data):
    """An MP3 file without its first frame, which is the Xing or Info header."""
    tag = data.index(b"Xing") if b"Xing" in data[:200] else data.index(b"Info")
    starts = (
        i for i in range(tag + 120, len(data)) if data[i : i + 2] == data[:2] and not (data[i + 2] ^ data[2]) & 12
    )
    return data[next(starts) :]


MP3 = encoded(format="MP3", subtype=None)
TAG = b"TAG" + bytes(125)
QUIET_THEN_LOUD = np.concatenate([1e-3 * WAVE, NOISE / 5, WAVE, NOISE / 4]).astype(np.float32)


ID3V2 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
MP3_TAGS = {
    "none": (b"", b""),
    "id3v1": (b"", TAG),
    "id3v2": (ID3V2, TAG),
    "ape": (ID3V2, b"APETAGEX" + bytes(24) + TAG),
}


@pytest.mark.parametrize("tags", MP3_TAGS)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (22050, 1), (44100, 1), (48000, 2)])
def test_mp3_with_an_estimated_length_is_complete(tags, rate, channels, remarks):
    first, tag = MP3_TAGS[tags]
    for wave in (WAVE, QUIET_THEN_LOUD, QUIET_THEN_LOUD[::-1]):
        data = encoded(np.stack([wave] * channels, axis=1), rate, "MP3", None)
        for stream in (uncounted(data), data):
            read, _ = read_audio(first + stream + tag, strict=True)
            assert 0 <= len(read) - len(wave) < 4 * 1152
    assert not remarks


def test_mp3_without_a_frame_count_that_ends_within_a_frame(remarks):
    data = uncounted(MP3)
    wave, _ = read_audio(data[: len(data) * 2 // 3], name="clip")
    assert 0.5 * len(WAVE) < len(wave) < len(WAVE)
    assert len(remarks) == 1 and "clip: its last frame is incomplete" in remarks[0]
    with pytest.raises(AudioError, match="clip: its last frame"):
        read_audio(data[: len(data) * 2 // 3], name="clip", strict=True)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8])
def test_truncated_mp3_with_a_frame_count_is_refused(fraction):
    with pytest.raises(AudioError, match="clip: truncated"):
        read_audio(MP3[: int(fraction * len(MP3))], name="clip")


def test_mp3_with_a_wrong_frame_count_and_the_right_size_is_read(remarks):
    at = MP3.index(b"Xing") + 8
    frames, size = struct.unpack_from(">II", MP3, at)
    assert size == pytest.approx(len(MP3), abs=1000)
    data = MP3[:at] + struct.pack(">I", 3 * frames) + MP3[at + 4 :]
    wave, _ = read_audio(data, name="clip")
    assert len(wave) >= len(WAVE)
    assert len(remarks) == 1 and "clip: its header counts" in remarks[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_pages(subtype, remarks):
    data = encoded(np.tile(WAVE, 8), format="OGG", subtype=subtype)
    pages = [index for index in range(len(data)) if data.startswith(b"OggS", index)]
    assert len(read_audio(data, strict=True)[0]) == 8 * len(WAVE)
    for cut in (pages[-1] + 20, pages[-1] + 27, len(data) - 1, pages[-2] + 100):
        with pytest.raises(AudioError, match="clip: truncated"):
            read_audio(data[:cut], name="clip")
    assert not remarks
    assert len(read_audio(data[: pages[-1]], name="clip")[0]) < 8 * len(WAVE)
    assert len(remarks) == 1 and "clip: its last page" in remarks[0]
    with pytest.raises(AudioError, match="clip: its last page"):
        read_audio(data[: pages[-1]], name="clip", strict=True)


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_concatenated_files_are_read_to_the_end(format, subtype, remarks):
    data, other = (encoded(wave, format=format, subtype=subtype) for wave in (WAVE, WAVE[:16000]))
    wave, _ = read_audio(data + other + data, name="clip")
    expected = np.concatenate([WAVE, WAVE[:16000], WAVE])
    assert 0 <= len(wave) - len(expected) < 6 * 1152
    assert np.abs(wave[-6000:]).max() > 0.2
    assert len(remarks) == (format == "MP3")  # a chained Ogg file is valid
    with pytest.raises(AudioError, match="clip: truncated" if format == "OGG" else "clip: "):
        read_audio(data + other[: len(other) // 2], name="clip", strict=True)


def test_concatenated_files_of_two_rates_are_refused():
    with pytest.raises(AudioError, match="clip: its rate or number of channels changes"):
        read_audio(encoded(format="OGG", subtype="VORBIS") + encoded(WAVE, 8000, "OGG", "VORBIS"), name="clip")


@pytest.mark.parametrize("behind", [WAV, bytes(512), b"TAG" + bytes(125)], ids=["wav", "zeros", "tag"])
def test_bytes_after_the_end_of_a_wav_cause_a_warning(behind, remarks):
    assert whole(WAV + behind)
    assert len(remarks) == 1 and f"clip: {len(behind)} bytes after" in remarks[0].replace(",", "")


# ---- limits ---------------------------------------------------------------------------------------------------------
def with_rate(rate):
    return WAV[:24] + struct.pack("<I", rate) + WAV[28:]


@pytest.mark.parametrize("rate", [0, 1, 100, 999, 768_001, 2**31 - 1, 2**32 - 1])
def test_invalid_rates_are_refused(rate):
    with pytest.raises(AudioError, match="clip.wav: "):
        GEmoClapFeatureExtractor().load(with_rate(rate), name="clip.wav")
    with pytest.raises(AudioError, match="clip.wav: .* Hz is invalid"):
        GEmoClapFeatureExtractor().load(WAVE, rate, name="clip.wav")


def test_invalid_channels_and_lengths_are_refused(monkeypatch):
    channels = 200
    wide = WAV[:22] + struct.pack("<HIIH", channels, RATE, RATE * channels * 2, channels * 2) + WAV[34:]
    with pytest.raises(AudioError, match="clip: 200 channels"):
        read_audio(wide, name="clip")
    monkeypatch.setattr(audio_files_gemoclap, "MAX_SAMPLES", 20000)
    with pytest.raises(AudioError, match="clip: longer than 20,000 samples"):
        read_audio(encoded(format="FLAC"), name="clip")
    monkeypatch.setattr(audio_files_gemoclap, "MAX_BYTES", 1000)
    with pytest.raises(AudioError, match="clip: larger than 1,000 bytes"):
        read_audio(WAV, name="clip")


def test_resampled_length_is_bounded(monkeypatch):
    from modeling_gemoclap import feature_extraction_gemoclap

    monkeypatch.setattr(feature_extraction_gemoclap, "MAX_SAMPLES", 300_000)
    assert len(GEmoClapFeatureExtractor().load(with_rate(8000))) == 48000
    with pytest.raises(AudioError, match="clip: 24000 samples at 1000 Hz are too long"):
        GEmoClapFeatureExtractor().load(with_rate(1000), name="clip")


def test_invalid_samples_are_refused():
    with pytest.raises(AudioError, match="clip: .*1.0e.30"):
        read_audio(np.full(5000, 1e30), RATE, name="clip")
    with pytest.raises(AudioError, match="clip: .*1.0e.300"):
        read_audio(np.full(5000, 1e300), RATE, name="clip")
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(AudioError, match="clip: .*NaN or infinite"):
            read_audio(np.r_[WAVE, value], RATE, name="clip")


@pytest.mark.parametrize("at", [0, -1])
def test_samples_that_the_mean_of_the_channels_would_hide_are_refused(tmp_path, at):
    """As a damaged AU file has them; a stream is refused too."""
    channels = np.stack([WAVE, WAVE], 1)
    channels[at] = 6e9, -6e9
    soundfile.write(tmp_path / "clip.au", channels, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="clip.au: .*6.0e.09"):
        read_audio(tmp_path / "clip.au")
    with pytest.raises(AudioError, match="clip.au: .*6.0e.09"):
        ModelSignal(RATE, RATE, "clip.au").feed(channels)


# ---- channels -------------------------------------------------------------------------------------------------------
OTHER = (0.3 * np.random.default_rng(1).standard_normal(24000)).astype(np.float32)
CHANNELS = {  # channels, and the selected channel (None: their mean)
    "the same": ([WAVE, WAVE], None),
    "one silent": ([WAVE, 0 * WAVE], None),
    "independent": ([WAVE, OTHER], None),
    "slightly opposed": ([WAVE, OTHER - 0.3 * WAVE], None),
    "opposed": ([WAVE, -WAVE], 0),
    "opposed, the second louder": ([0.5 * WAVE, -0.6 * WAVE], 1),
    "opposed with noise": ([WAVE + 0.1 * OTHER, -WAVE + 0.1 * OTHER], 1),
    "opposed in three of four": ([WAVE, -WAVE, WAVE, -1.1 * WAVE], 3),
    "opposite offsets": ([WAVE + 0.2, WAVE - 0.2], None),
    "opposed under one offset": ([WAVE + 0.2, -WAVE + 0.2], None),
    "silence": ([0 * WAVE, 0 * WAVE], None),
}


@pytest.mark.parametrize("case", CHANNELS)
def test_channels_that_cancel_out(case, remarks):
    channels, taken = CHANNELS[case]
    channels = np.stack(channels).astype(np.float32)
    if case == "opposed with noise":
        taken = int(np.argmax(channels.var(1)))
    if case == "opposed under one offset":
        taken = int(np.argmax(channels.var(1, dtype=np.float64)))
    expected = channels.mean(0) if taken is None else channels[taken]
    for audio in (channels, encoded(channels.T, subtype="FLOAT")):
        wave, _ = read_audio(audio, RATE, name="clip")
        assert np.abs(wave - expected).max() < 1e-6
    assert len(remarks) == (0 if taken is None else 2)
    for remark in remarks:
        assert "clip: its channels cancel out" in remark and f"channel {taken + 1} of" in remark


def test_opposed_channels_are_not_silent(remarks):
    data = encoded(np.stack([WAVE, -WAVE], axis=1))
    assert np.abs(GEmoClapFeatureExtractor().load_speech(data)).max() > 0.2 and remarks


# ---- exceptions of decoders -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [ValueError, MemoryError, OSError, OverflowError, TypeError, ZeroDivisionError])
@pytest.mark.parametrize("where", ["__init__", "read"])
def test_every_exception_of_the_decoder_names_the_file(error, where, monkeypatch, tmp_path):
    from modeling_gemoclap.training.clips import _examine

    def fail(*args, **kwargs):
        raise error("broken <_io.BytesIO object at 0x7fea99f633d0>")

    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    monkeypatch.setattr(soundfile.SoundFile, where, fail)
    monkeypatch.setattr(soundfile.SoundFile, "__del__", lambda self: None)
    result = _examine({"path": str(path)}, GEmoClapFeatureExtractor())
    assert "clip.wav: " in result["error"] and "0x" not in result["error"] and "\n" not in result["error"]


@pytest.mark.parametrize("data", [b"no audio" * 20, b"OggS" * 20, b"fLaC" + bytes(60), b"\xff\xfb" * 9, b"FORM"])
def test_messages_contain_no_memory_addresses(data, no_ffmpeg):
    with pytest.raises(AudioError, match="^clip: ") as error:
        read_audio(data, name="clip")
    assert "0x" not in str(error.value) and "BytesIO" not in str(error.value)


NOT_RECORDINGS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n": "pointer of git-lfs.*git lfs pull",
    b"/annex/objects/MD5E-s1--0.wav\n": "pointer of git-annex.*git annex get",
    b"\n<!DOCTYPE html><title>404": "web page",
}


@pytest.mark.parametrize("data", NOT_RECORDINGS)
def test_files_that_replace_a_recording_are_named(data, tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=f"clip.wav: a {NOT_RECORDINGS[data]}"):
        read_audio(path)


SAMPLES = [
    WAV,
    encoded(np.stack([WAVE, -WAVE], axis=1)[:3000]),
    MP3,
    streamed_flac(),
    *(encoded(WAVE[:6000], format=format) for format in ("AIFF", "AU", "CAF", "W64", "RF64", "NIST", "FLAC")),
    encoded(WAVE[:6000], format="OGG", subtype="VORBIS"),
    encoded(WAVE[:6000], 8000, subtype="GSM610"),
]


@settings(max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sample=st.sampled_from(SAMPLES),
    flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8),
    header=st.booleans(),
    cut=st.none() | st.integers(0, 2**20),
    random=st.none() | st.binary(max_size=300),
)
def test_damaged_files_return_samples_or_raise_an_audio_error(sample, flips, header, cut, random, no_ffmpeg):
    data = bytearray(sample)
    for place, value in flips:
        data[place % (64 if header else len(data))] = value
    data = bytes(data[: None if cut is None else cut % len(data)])
    data = data if random is None else data[:12] + random
    extractor = GEmoClapFeatureExtractor()
    try:
        wave = extractor.load_speech(data, name="clip")
    except AudioError as error:
        assert str(error).startswith("clip: ") and "object at 0x" not in str(error) and "\n" not in str(error)
    else:
        assert wave.dtype == np.float32 and np.isfinite(extractor.features(wave)).all()


# ---- ffmpeg ---------------------------------------------------------------------------------------------------------
ONLY_FFMPEG = {
    "m4a": b"\0\0\0\x1cftypM4A " + bytes(20),
    "webm": b"\x1aE\xdf\xa3" + bytes(40),
    "wma": b"0&\xb2u\x8ef\xcf\x11" + bytes(40),
    "aac": b"\xff\xf1\x5c\x40" + bytes(40),
    "aac with a tag": b"ID3\x04\0\0\0\0\0\0\xff\xf1\x5c\x40" + bytes(40),
    "amr": b"#!AMR\n" + bytes(40),
}
FAKE = """#!{python}
import json, os, sys
open({record!r}, "a").write(json.dumps([sys.argv[1:], os.getcwd(), open("input", "rb").read().hex()]) + "\\n")
{body}
"""


@pytest.mark.parametrize("case", ONLY_FFMPEG)
def test_missing_ffmpeg_is_named(case, no_ffmpeg):
    with pytest.raises(AudioError, match=r"^clip: [^\n]*ffmpeg[^\n]*pip install imageio-ffmpeg") as error:
        read_audio(ONLY_FFMPEG[case], name="clip")
    assert str(error.value).count("ffmpeg") >= 2


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Put a program named ffmpeg on the PATH; return a function that lists its calls."""

    def install(body):
        folder, record = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir()
        (tmp_path / "answer.wav").write_bytes(with_sizes(0xFFFFFFFF, 0xFFFFFFFF))
        body = body.replace("ANSWER", f"sys.stdout.buffer.write(open({str(tmp_path / 'answer.wav')!r}, 'rb').read())")
        (folder / "ffmpeg").write_text(FAKE.format(python=sys.executable, record=str(record), body=body))
        (folder / "ffmpeg").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return lambda: [eval(line) for line in record.read_text().splitlines()] if record.exists() else []

    return install


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
class TestFakeFfmpeg:
    def test_arguments_are_safe(self, fake_ffmpeg, remarks):
        import os

        calls = fake_ffmpeg("ANSWER")
        assert whole(ONLY_FFMPEG["m4a"]) and not remarks
        [(arguments, folder, given)] = calls()
        assert bytes.fromhex(given) == ONLY_FFMPEG["m4a"]
        before = arguments[: arguments.index("-i")]
        assert "-nostdin" in before and before[before.index("-protocol_whitelist") + 1] == "file"
        assert before[before.index("-f") + 1] == "mov"  # detection by ffmpeg would accept playlists
        assert arguments[arguments.index("-i") + 1] == "file:input" and arguments[-1] == "pipe:1"
        assert "-fs" in arguments and not os.path.exists(folder)

    def test_not_called_for_formats_of_soundfile_and_for_other_files(self, fake_ffmpeg):
        calls = fake_ffmpeg("ANSWER")
        for data in (WAV, MP3, encoded(format="FLAC"), encoded(format="OGG", subtype="VORBIS")):
            read_audio(data)
        playlists = [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
        for data in (*playlists, b"[playlist]\nFile1=x", WAV[:5000], encoded(format="FLAC")[:9000], b"\x89PNG" * 9):
            with pytest.raises(AudioError, match="^clip: "):
                read_audio(data, name="clip")
        assert calls() == []

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("sys.exit('[mov @ 0x55d1c] moov atom not found')", r"clip: truncated \(moov atom not found\)"),
            ("ANSWER; sys.stderr.write('[x @ 0x5] stream 0, offset 0x2426: partial file')", "clip: truncated"),
            ("sys.exit('[in @ 0xffff] Invalid data found')", "clip: not audio that ffmpeg can read .Invalid data"),
            ("sys.exit(3)", "clip: .*exit status 3"),
            ("print('no audio')", "clip: truncated or damaged"),
            ("pass", "clip: truncated or damaged"),
            ("import time; time.sleep(60)", "clip: ffmpeg took more than 0.5 s"),
        ],
    )
    def test_failures_name_the_file(self, fake_ffmpeg, monkeypatch, body, message):
        monkeypatch.setattr(audio_files_gemoclap, "FFMPEG_SECONDS", 0.5)
        if "sleep" not in body:
            monkeypatch.setattr(audio_files_gemoclap, "FFMPEG_SECONDS", 60)
        fake_ffmpeg(body)
        with pytest.raises(AudioError, match=message) as error:
            read_audio(ONLY_FFMPEG["m4a"], name="clip")
        assert "@ 0x" not in str(error.value)

    def test_messages_become_a_warning(self, fake_ffmpeg, remarks):
        fake_ffmpeg("ANSWER; sys.stderr.write('[aac @ 0x5] Number of bands exceeds limit\\n')")
        assert whole(ONLY_FFMPEG["aac"])
        assert len(remarks) == 1 and "clip: " in remarks[0] and "Number of bands" in remarks[0]
        with pytest.raises(AudioError, match="Number of bands"):
            read_audio(ONLY_FFMPEG["aac"], name="clip", strict=True)

    def test_unbounded_output_is_refused(self, fake_ffmpeg, monkeypatch):
        monkeypatch.setattr(audio_files_gemoclap, "FFMPEG_BYTES", 2**20 + 1000)
        fake_ffmpeg("ANSWER")
        with pytest.raises(AudioError, match="clip: longer than"):
            read_audio(ONLY_FFMPEG["m4a"], name="clip")

    def test_program_that_cannot_be_run_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "ffmpeg").write_bytes(b"\x7fELF no program")
        (tmp_path / "ffmpeg").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(AudioError, match="clip: ffmpeg cannot be run"):
            read_audio(ONLY_FFMPEG["m4a"], name="clip")


REAL = audio_files_gemoclap.find_ffmpeg()
CODECS = {"m4a": ["-c:a", "aac"], "aac": ["-c:a", "aac"], "webm": ["-c:a", "libopus"], "wma": ["-c:a", "wmav2"]}


@pytest.mark.skipif(REAL is None, reason="no ffmpeg on the PATH, and imageio-ffmpeg is not installed")
@pytest.mark.parametrize("kind", CODECS)
def test_real_ffmpeg(kind, tmp_path, remarks):
    import subprocess

    (tmp_path / "in.wav").write_bytes(WAV)
    path = tmp_path / f"clip.{kind}"
    subprocess.run([REAL, "-v", "error", "-i", tmp_path / "in.wav", *CODECS[kind], path], check=True)
    wave, rate = read_audio(path, strict=True)
    assert len(wave) / rate == pytest.approx(len(WAVE) / RATE, abs=0.15)  # the codecs add padding
    spectrum = np.abs(np.fft.rfft(wave))
    tone = RATE / 6 / (2 * np.pi)
    assert np.argmax(spectrum) * rate / len(wave) == pytest.approx(tone, abs=2)
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    with pytest.raises(AudioError, match=f"clip.{kind}: truncated"):
        read_audio(path)
    assert not remarks
