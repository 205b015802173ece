"""The synthesized corpus of the demo: training and test share no voice and no sentence; flat variants are flat."""

import sys

import numpy as np
import pytest
from conftest import ROOT

pytest.importorskip("espeakng_loader", reason="the demo's extra is not installed")
sys.path.insert(0, str(ROOT / "demo"))
import espeak_corpus  # noqa: E402

from modeling_gemoclap.corpora.manifest import load_corpus  # noqa: E402


@pytest.fixture(scope="module")
def synthesizer():
    return espeak_corpus.Synthesizer()


def loudness(wave, rate):
    frames = wave[: len(wave) // (rate // 20) * (rate // 20)].reshape(-1, rate // 20)
    return np.sqrt((frames**2).mean(1))


def test_training_and_test_share_no_voice_and_no_sentence(synthesizer, tmp_path, monkeypatch):
    monkeypatch.setattr(espeak_corpus, "TRAIN_VOICES", espeak_corpus.TRAIN_VOICES[::4])
    monkeypatch.setattr(espeak_corpus, "TEST_VOICES", espeak_corpus.TEST_VOICES[::2])
    espeak_corpus.build(tmp_path / "all", synthesizer, "all")
    corpus = load_corpus(tmp_path / "all")
    sentences = {}
    for clip in corpus.clips:
        sentences.setdefault(clip["speaker_id"], set()).add(clip["transcript"])
    test, train = (
        {voice[3:] for voice in voices} for voices in (espeak_corpus.TEST_VOICES, espeak_corpus.TRAIN_VOICES)
    )
    assert set(sentences) == test | train and not test & train
    assert not set.union(*(sentences[v] for v in test)) & set.union(*(sentences[v] for v in train))
    assert corpus.emotions == ["angry", "happy", "neutral", "sad"]
    assert set(corpus.clips["gender"]) == {"female", "male"}


def test_a_voice_repeats_itself_and_flat_energy_is_flat(synthesizer):
    manner = espeak_corpus.MANNERS["angry"]
    wave = synthesizer.say("We will paint the door.", "en+f2", manner)
    again = synthesizer.say("We will paint the door.", "en+f2", manner)
    levels = [loudness(samples, synthesizer.sampling_rate) for samples in (wave, again)]
    assert len(wave) == len(again) and np.corrcoef(*levels)[0, 1] > 0.95  # espeak-ng adds noise
    assert 0.5 < len(wave) / synthesizer.sampling_rate < 4
    flat = espeak_corpus.shape_energy(wave, synthesizer.sampling_rate, -1.0)
    ratio = loudness(flat, synthesizer.sampling_rate), loudness(wave, synthesizer.sampling_rate)
    spread = [np.std(np.log(level[level > 0.01])) for level in ratio]
    assert spread[0] < 0.5 * spread[1]
    with pytest.raises(ValueError, match="no voice"):
        synthesizer.say("x", "nobody", manner)
