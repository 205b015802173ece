"""Feature extraction from recordings of all accepted types, and invalid recordings."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import ROOT
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from modeling_gemoclap import AudioError, GEmoClapFeatureExtractor, audio_files_gemoclap, feature_extraction_gemoclap
from modeling_gemoclap.feature_extraction_gemoclap import read_audio
from modeling_gemoclap.spectrograms_gemoclap import log_mel

WAVE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


def encoded(wave=WAVE, rate=16000, format="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.T, rate, format=format, subtype=subtype)
    return buffer.getvalue()


@pytest.fixture
def extractor():
    return GEmoClapFeatureExtractor(do_normalize=False)


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded())
    return path


def test_all_types_of_input_agree(extractor, wav):
    kinds = [
        wav,
        str(wav),
        wav.read_bytes(),
        {"path": str(wav)},
        {"bytes": wav.read_bytes(), "path": None},
        {"array": WAVE, "sampling_rate": 16000},
        {"array": np.stack([WAVE, WAVE]), "sampling_rate": 16000},
        {"array": torch.from_numpy(WAVE), "sampling_rate": 16000},
        {"array": WAVE.tolist(), "sampling_rate": 16000},
        {"array": (WAVE * 32768).astype(np.int16), "sampling_rate": 16000},
    ]
    batch = extractor(kinds)
    assert batch["input_values"].shape == (len(kinds), 16000) and batch["audio_attention_mask"].all()
    assert (batch["input_values"] - torch.from_numpy(WAVE)).abs().max() < 1e-4
    values = extractor(WAVE, sampling_rate=16000)["input_values"]
    assert torch.equal(values[0], torch.from_numpy(WAVE))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count(extractor, rate, channels):
    time = np.arange(rate) / rate
    wave = np.stack([0.3 * np.sin(2 * np.pi * 440 * time)] * channels).astype(np.float32)
    values = extractor({"array": wave, "sampling_rate": rate})["input_values"][0].numpy()
    assert len(values) == pytest.approx(16000, abs=2)
    assert np.abs(values - soxr.resample(wave.mean(0), rate, 16000)).max() < 1e-6
    spectrum = np.abs(np.fft.rfft(values))
    assert np.argmax(spectrum) * 16000 / len(values) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU"])
def test_formats(extractor, format):
    wave = extractor(encoded(format=format))["input_values"]
    assert wave.shape[1] == pytest.approx(16000, rel=0.1)


def test_channels_are_averaged():
    wave, rate = read_audio({"array": np.stack([WAVE, 3 * WAVE]), "sampling_rate": 8000})
    assert rate == 8000 and np.allclose(wave, 2 * WAVE)


def test_normalisation_is_per_clip():
    extractor = GEmoClapFeatureExtractor()
    quiet = {"array": 0.1 * WAVE[:8000] + 0.2, "sampling_rate": 16000}
    batch = extractor([quiet, {"array": WAVE, "sampling_rate": 16000}])
    values, mask = batch["input_values"], batch["audio_attention_mask"].bool()
    assert torch.equal(values[0][mask[0]], extractor(quiet)["input_values"][0])
    assert values[0][mask[0]].std().item() == pytest.approx(1, abs=0.01)
    assert not values[0][~mask[0]].any()


def test_log_mel_shapes_and_level():
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel", num_mel_bins=40)
    batch = extractor([WAVE, WAVE[:5000]], sampling_rate=16000)
    assert batch["input_features"].shape == (2, 98, 40)
    assert batch["audio_attention_mask"].sum(1).tolist() == [98, 29]
    louder = extractor(0.5 * WAVE, sampling_rate=16000)["input_features"]
    assert torch.allclose(louder, batch["input_features"][:1], atol=1e-2)  # do_normalize removes the level


def test_saved_and_loaded(tmp_path):
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel", num_mel_bins=32, do_normalize=False)
    extractor.save_pretrained(tmp_path)
    again = GEmoClapFeatureExtractor.from_pretrained(tmp_path)
    assert again.model_input_names == ["input_features", "audio_attention_mask"]
    pair = (e(WAVE, sampling_rate=16000)["input_features"] for e in (extractor, again))
    assert torch.equal(*pair)


BAD = {
    "missing": (lambda p: p / "no.wav", "no such file"),
    "empty": (lambda p: written(p, b""), "empty"),
    "text": (lambda p: written(p, b"this is no audio at all"), "not audio"),
    "truncated wav": (lambda p: written(p, encoded()[:9000]), "truncated"),
    "truncated flac": (lambda p: written(p, encoded(format="FLAC")[:4000], "x.flac"), "truncated"),
    "truncated aiff": (lambda p: written(p, encoded(format="AIFF")[:9000], "x.aiff"), "truncated"),
    "truncated au": (lambda p: written(p, encoded(format="AU")[:9000], "x.au"), "truncated"),
    "cut in its header": (lambda p: written(p, encoded()[:30]), "truncated"),
    "header only": (lambda p: written(p, encoded(WAVE[:0])), "no samples"),
    "nan": (lambda p: written(p, encoded(np.where(WAVE > 0.29, np.nan, WAVE), subtype="FLOAT")), "NaN"),
    "rate zero": (lambda p: {"array": WAVE, "sampling_rate": 0}, "0 Hz"),
    "negative rate": (lambda p: {"array": WAVE, "sampling_rate": -8000}, "-8000 Hz"),
    "rate is a word": (lambda p: {"array": WAVE, "sampling_rate": "16000"}, "not a number"),
    "integers of unknown scale": (lambda p: {"array": [0, 5, 9], "sampling_rate": 16000}, "int64 is not audio"),
    "rate unknown": (lambda p: WAVE, "sampling rate is unknown"),
    "dict without rate": (lambda p: {"array": WAVE}, "sampling rate is unknown"),
    "dict without audio": (lambda p: {"sampling_rate": 8000}, "'array', 'bytes' or 'path'"),
    "too many channels": (lambda p: {"array": WAVE.reshape(-1, 40), "sampling_rate": 16000}, "up to 32 channels"),
    "three axes": (lambda p: {"array": WAVE.reshape(2, 2, -1), "sampling_rate": 16000}, "shape"),
    "words": (lambda p: {"array": np.array(["a"]), "sampling_rate": 16000}, "not audio"),
    "too short": (lambda p: {"array": WAVE[:800], "sampling_rate": 16000}, "too short"),
    "empty list": (lambda p: [], "empty"),
}


def written(folder, data, name="clip.wav"):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(extractor, tmp_path, case):
    make, message = BAD[case]
    audio = make(tmp_path)
    with pytest.raises(AudioError, match=message) as error:
        extractor(audio)
    if hasattr(audio, "name"):
        assert audio.name in str(error.value)


def test_wav_header_with_rate_zero(extractor, tmp_path):
    data = bytearray(encoded())
    data[24:28] = bytes(4)
    with pytest.raises(AudioError, match="clip.wav"):
        extractor(written(tmp_path, bytes(data)))


def test_streamed_wav_without_a_length_is_read(extractor):
    data = bytearray(encoded())
    data[40:44] = b"\xff\xff\xff\xff"
    assert extractor(bytes(data))["input_values"].shape[1] == 16000


def test_silence_is_refused(extractor):
    with pytest.raises(AudioError, match="quiet.wav: silent"):
        extractor.load_speech(np.zeros(16000), 16000, name="quiet.wav")
    with pytest.raises(AudioError, match="silent"):
        extractor.load_speech(np.full(16000, 0.5), 16000)
    assert len(extractor.load_speech(WAVE * 1e-3, 16000)) == 16000


def test_missing_soxr_is_named(extractor, monkeypatch):
    monkeypatch.setattr(feature_extraction_gemoclap, "soxr", None)
    assert extractor(WAVE, sampling_rate=16000)["input_values"].shape == (1, 16000)
    with pytest.raises(ImportError, match="44100 Hz.*soxr"):
        extractor(WAVE, sampling_rate=44100)


def test_missing_soundfile_is_named(extractor, monkeypatch, wav):
    monkeypatch.setattr(audio_files_gemoclap, "soundfile", None)
    with pytest.raises(ImportError, match="soundfile"):
        extractor(wav)


# ---- log-mel --------------------------------------------------------------------------------------------------------
def reference_log_mel(wave, bands, frame=400, hop=160, fft=512, frequencies=(50.0, 8000.0)):
    mel = mel_filter_bank(fft // 2 + 1, bands, *frequencies, 16000, mel_scale="htk")
    options = {"power": 2.0, "center": False, "mel_filters": mel, "mel_floor": 1e-6, "log_mel": "log"}
    return spectrogram(wave, window_function(frame, "hann"), frame, hop, fft, **options).T


@pytest.mark.parametrize("gain", [1.0, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("samples", [400, 559, 560, 16000, 70001])
def test_log_mel_is_that_of_transformers(samples, gain):
    """The normalised log-mel differs by less than 1e-5, also of quiet clips, whose bands are near the floor."""
    random = np.random.default_rng(samples)
    wave = (gain * np.cumsum(random.standard_normal(samples)) / 50).astype(np.float32)
    for bands in (16, 64):
        mel = log_mel(wave, 16000, 0.025, 0.01, bands, (50.0, None))
        assert mel.dtype == np.float32 and mel.shape == (1 + (samples - 400) // 160, bands)
        assert np.abs(mel - reference_log_mel(wave, bands)).max() / 4 < 1e-5


def test_log_mel_of_a_clip_does_not_depend_on_others():
    waves = np.random.default_rng(0).standard_normal((5, 30000)).astype(np.float32)
    together = log_mel(waves, 16000, 0.025, 0.01, 64, (50.0, None))
    for wave, mel in zip(waves, together, strict=True):
        assert np.abs(log_mel(wave, 16000, 0.025, 0.01, 64, (50.0, None)) - mel).max() < 1e-5


def test_log_mel_of_speech_is_that_of_transformers(corpora):
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel")
    for path in sorted((corpora / "emodb" / "audio").iterdir())[::40]:
        wave = extractor.load_speech(path)
        normalised = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        expected = (reference_log_mel(normalised, 64) - extractor.log_mel_mean) / extractor.log_mel_std
        assert np.abs(extractor.features(wave) - expected).max() < 1e-5


MANY_THREADS = """
import os, sys, threading
import numpy as np
from modeling_gemoclap.spectrograms_gemoclap import encoder_features, log_mel
wave, features = np.random.default_rng(0).standard_normal(16000), {}
def compute(number):
    barrier.wait()
    for _ in range(int(sys.argv[2])):
        if sys.argv[1] == "log_mel":
            features[number] = log_mel(wave, 16000, 0.025, 0.010, 64, (50.0, None))
        else:
            own = {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 100}
            features[number] = encoder_features(own, wave, 16000)[0]
def compute_in_threads():
    threads = [threading.Thread(target=compute, args=(number,)) for number in range(barrier.parties)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
barrier = threading.Barrier(300)
compute_in_threads()
assert len(features) == 300 and all(np.array_equal(features[0], found) for found in features.values())
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        barrier = threading.Barrier(4)
        compute_in_threads()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(("kind", "repeats"), [("log_mel", 6), pytest.param("own", 3, marks=pytest.mark.slow)])
def test_hundreds_of_threads_compute_features(kind, repeats):
    """More than 64 matrix products at a time ended the process by a fault of OpenBLAS."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", MANY_THREADS, kind, str(repeats)], capture_output=True, text=True, cwd=ROOT, env=env
    )
    assert done.returncode == 0 and "OpenBLAS" not in done.stderr, done.stderr[-2000:]
