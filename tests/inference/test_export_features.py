"""The feature extractor as a part of an exported graph gives what the feature extractor gives."""

import numpy as np
import pytest
import torch
from conftest import RATE, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap import GEmoClapFeatureExtractor
from modeling_gemoclap.inference.export_features import ExportedFeatures, trim_silence
from modeling_gemoclap.speech_gemoclap import speech_span

WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "chunk_length": 2}
EXTRACTORS = {
    "normalised": {"feature_type": "wave"},
    "as recorded": {"feature_type": "wave", "do_normalize": False, "padding_value": 0.5},
    "at most 1 s": {"feature_type": "wave", "max_seconds": 1.0},
    "compact": {"feature_type": "log_mel", "num_mel_bins": 16},
    "compact, other frames": {"feature_type": "log_mel", "frame_seconds": 0.032, "hop_seconds": 0.012},
    "compact, 8 kHz": {"feature_type": "log_mel", "sampling_rate": 8000, "trim_silence": True},
    "whisper": {"feature_type": "own", "do_normalize": False, "own": WHISPER},
    "whisper, speech at a level": {
        "feature_type": "own", "do_normalize": False, "own": WHISPER, "level_db": -20.0, "trim_silence": True,
    },
}  # fmt: skip
SECONDS = (0.1, 0.137, 0.6, 1.9999, 2.0, 2.0001, 5.3, 31.0)


def with_pauses(seconds: float, seed: int = 0) -> np.ndarray:
    """A tone with silence before and after it, and noise."""
    wave = 0.0002 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)
    start, end = len(wave) // 5, len(wave) - len(wave) // 3
    wave[start:end] += tone("angry", seed, seconds=seconds)[: end - start]
    return wave


def padded(clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(clip) for clip in clips], True), lengths


@pytest.mark.parametrize("settings", EXTRACTORS.values(), ids=EXTRACTORS)
def test_features_of_clips_of_all_lengths(settings):
    extractor = GEmoClapFeatureExtractor(**settings)
    clips = [with_pauses(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    rate = extractor.sampling_rate  # samples are samples: the clips stand for recordings at this rate
    inputs, mask = ExportedFeatures(extractor)(*padded(clips))
    for row, clip in enumerate(clips):
        wanted = extractor({"array": clip, "sampling_rate": rate})
        values, valid = wanted[extractor.input_name][0], wanted["audio_attention_mask"][0]
        assert mask[row].sum() == valid.sum() and mask[row, : valid.sum()].all()
        time_axis = 1 if values.shape[0] == 16 else 0
        count = values.shape[time_axis]
        if extractor.feature_type != "own":  # of Whisper, padding within a window is silence, which is compared too
            count = int(valid.sum())
        got = inputs[row].narrow(time_axis, 0, count)
        assert (got - values.narrow(time_axis, 0, count)).abs().max() < 2e-3
        assert (got - values.narrow(time_axis, 0, count)).abs().mean() < 1e-5


def test_padding_has_the_value_of_the_extractor():
    inputs, _ = ExportedFeatures(GEmoClapFeatureExtractor(**EXTRACTORS["as recorded"]))(
        *padded([tone("sad", 0), tone("sad", 1)[:4000]])
    )
    assert (inputs[1, 4000:] == 0.5).all() and (inputs[1, :4000] != 0.5).all()


def test_windows_that_no_clip_reaches_are_cut_off():
    features = ExportedFeatures(GEmoClapFeatureExtractor(**EXTRACTORS["whisper, speech at a level"]))
    wave = np.zeros(10 * RATE, np.float32)
    wave[:RATE] = tone("happy", 0, seconds=1.0)
    assert features(*padded([wave]))[0].shape == (1, 16, 200)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-4, 1e-3, 0.01, 0.1, 0.5]), min_size=1, max_size=30), st.integers(0, 319))
def test_speech_is_found_where_the_extractor_finds_it(levels, rest):
    rng = np.random.default_rng(len(levels) + rest)
    loud = np.concatenate([level * rng.standard_normal(640) for level in levels]).astype(np.float32)
    clips = [np.append(loud, np.zeros(rest, np.float32)), loud[:200], loud[: len(loud) // 2 + 1]]
    trimmed, lengths = trim_silence(*padded(clips), 320)
    for row, clip in enumerate(clips):
        start, end = speech_span(clip, RATE)
        assert lengths[row] == end - start
        assert np.array_equal(trimmed[row, : end - start], clip[start:end])
