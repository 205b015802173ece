"""Stretches of speech from probabilities, beside Silero VAD's own function; detectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap.inference.segments import TimelineOptions
from modeling_gemoclap.inference.streaming.detectors import LevelDetector, build_detector
from modeling_gemoclap.inference.streaming.regions import SpeechRegions

RATE, FRAME = 16_000, 512


def regions_of(probabilities, options, total=None):
    regions, found = SpeechRegions(options, RATE, FRAME), []
    for probability in probabilities:
        found += filter(None, [regions.step(probability)])
    found += filter(None, [regions.finish(len(probabilities) * FRAME if total is None else total)])
    return [(region.start, region.end) for region in found]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.6, 1.0]), st.integers(1, 30)), max_size=30),
    st.sampled_from([0, 32, 100, 250]),
    st.sampled_from([0, 64, 100, 500]),
)
def test_the_rule_is_that_of_silero(runs, min_speech, min_silence):
    """But for the end of the recording, where Silero counts silence as speech: so silence follows here."""
    silero = pytest.importorskip("silero_vad")
    probabilities = [value for value, count in runs for _ in range(count)] + [0.0] * 40
    durations = {"min_speech_duration_ms": min_speech, "min_silence_duration_ms": min_silence, "speech_pad_ms": 0}
    expected = silero.get_speech_timestamps_from_probs(probabilities, RATE, threshold=0.5, **durations)
    found = regions_of(probabilities, TimelineOptions(**durations))
    assert found == [(speech["start"], speech["end"]) for speech in expected]


def test_noise_between_the_thresholds_does_not_prolong_speech_without_end():
    options = TimelineOptions(min_speech_duration_ms=0, speech_pad_ms=0)
    probabilities = [1] * 10 + [0.0] + [0.4] * 500
    assert regions_of(probabilities, options) == [(0, 10 * FRAME)]
    assert regions_of([1] * 10 + [0.4] * 100, options) == [(0, 110 * FRAME)]  # no silence began


def test_speech_is_extended_but_not_into_the_stretch_before():
    options = TimelineOptions(min_speech_duration_ms=0, min_silence_duration_ms=64, speech_pad_ms=64)
    probabilities = [0] * 5 + [1] * 5 + [0] * 4 + [1] * 5 + [0] * 10
    assert regions_of(probabilities, options) == [(3 * FRAME, 12 * FRAME), (12 * FRAME, 21 * FRAME)]


def test_speech_ends_with_the_recording():
    options = TimelineOptions(min_speech_duration_ms=0)
    assert regions_of([0] * 5 + [1] * 5, options, total=9 * FRAME + 7) == [(5 * FRAME - 1600, 9 * FRAME + 7)]
    [(_, end)] = regions_of([1] * 5 + [0] * 8, options)
    assert end == 5 * FRAME + 1600


def test_loading_silero_keeps_the_threads_of_torch():
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        import sys

        for name in [name for name in sys.modules if name.partition(".")[0] == "silero_vad"]:
            del sys.modules[name]
        detector = build_detector("silero", RATE)
        assert torch.get_num_threads() == 2 and detector.name == "silero"
    finally:
        torch.set_num_threads(threads)
    noise = 0.01 * np.random.default_rng(0).standard_normal((50, FRAME))
    assert max(detector(noise.astype(np.float32))) < 0.5


def test_silero_hears_speech(corpora):
    import soundfile

    wave, rate = soundfile.read(sorted((corpora / "emodb/audio").iterdir())[0], dtype="float32")
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    assert rate == RATE and np.mean(np.array(build_detector("silero", RATE)(frames)) > 0.5) > 0.7


def test_auto_falls_back_to_the_level(monkeypatch):
    assert build_detector("auto", 44_100).name == "level"
    import builtins

    real = builtins.__import__

    def without_silero(name, *args, **kwargs):
        if name.partition(".")[0] == "silero_vad":
            raise ModuleNotFoundError("No module named 'silero_vad'", name="silero_vad")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_silero)
    assert build_detector("auto", RATE).name == "level"
    with pytest.raises(ImportError, match=r"pip install 'gemoclap\[vad\]'"):
        build_detector("silero", RATE)
    with pytest.raises(ValueError, match="vad='silero' supports 16000 and 8000 Hz"):
        build_detector("silero", 44_100)


def test_level_hears_a_voice_over_room_tone():
    rng = np.random.default_rng(0)
    room = 10 ** (-60 / 20) * rng.standard_normal((200, FRAME))
    voice = room.copy()
    voice[80:120] += 0.1 * rng.standard_normal((40, FRAME))
    probabilities = np.array(LevelDetector(RATE)(voice))
    assert (probabilities[82:118] > 0.9).all() and (probabilities[125:] < 0.2).all() and probabilities[:80].max() < 0.5


@pytest.mark.parametrize("level", [-60, -48, -40, -20])
def test_steady_noise_is_no_speech_by_level(level):
    """Also after a voice, in a pause that is longer than the memory of the detector."""
    rng = np.random.default_rng(0)
    noise = 10 ** (level / 20) * rng.standard_normal((3000, FRAME))
    assert max(LevelDetector(RATE)(noise)) < 0.35
    noise[100:150] += 10 ** ((level + 25) / 20) * rng.standard_normal((50, FRAME))
    probabilities = np.array(LevelDetector(RATE)(noise))
    assert (probabilities[102:148] > 0.5).all() and probabilities[160:].max() < 0.35


def test_level_hears_a_recording_that_begins_with_speech(corpora):
    import soundfile

    for path in sorted((corpora / "emodb/audio").iterdir())[:5]:
        wave = soundfile.read(path, dtype="float32")[0]
        frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
        silero, level = (np.array(build_detector(kind, RATE)(frames)) > 0.5 for kind in ("silero", "level"))
        assert (silero & level).sum() > 0.8 * silero.sum()
