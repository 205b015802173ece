"""Whisper's window: shortened exactly, longer clips in several windows, and windows that do not fit."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import RATE, ROOT, audio_config
from families import AUDIO
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap import (
    GEmoClapFeatureExtractor,
    GEmoClapForAudioClassification,
    GEmoClapForXVector,
    GEmoClapModel,
    GEmoClapProcessor,
    ZeroShotEmotionPipeline,
)
from modeling_gemoclap.encoding_gemoclap import encode_frames
from modeling_gemoclap.inference.classifier import AudioClassifier
from modeling_gemoclap.towers_gemoclap import shorten_window

FULL = 2  # s, the window of the small encoder
WINDOWS = (FULL, 1, 0.5, 1.02)


def clip(seconds, seed=0):
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return {"array": 0.1 * wave, "sampling_rate": RATE}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A folder with a small Whisper, as the Hub has it."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    transformers.WhisperModel(audio_config("whisper")).save_pretrained(folder)
    AUDIO["whisper"].save_extractor(folder)
    return str(folder)


def load(whisper, seconds=None, **fields):
    model = GEmoClapForXVector.from_audio_pretrained(whisper, audio_window_seconds=seconds, **fields)
    for parameter in model.audio_model.parameters():  # larger than initial values
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 and parameter.requires_grad else None
    return model, GEmoClapFeatureExtractor.from_audio_pretrained(whisper, seconds)


@pytest.fixture(scope="module")
def loaded(whisper):
    return {seconds: load(whisper, seconds) for seconds in WINDOWS}


# ---- the encoder and the extractor ---------------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", WINDOWS)
def test_the_shorter_encoder_has_the_first_positions(whisper, seconds):
    whole = GEmoClapForXVector.from_audio_pretrained(whisper)
    full = whole.state_dict()
    model = GEmoClapForXVector.from_audio_pretrained(whisper, audio_window_seconds=seconds)
    positions = "audio_model.embed_positions.weight"
    count = round(50 * seconds)
    assert model.config.audio_config.max_source_positions == model.audio_model.max_source_positions == count
    for name, value in model.state_dict().items():
        assert torch.equal(value, full[name][:count] if name == positions else full[name]), name
    trained = [each.audio_model.embed_positions.weight.requires_grad for each in (whole, model)]
    assert trained[0] == trained[1]


@pytest.mark.parametrize("seconds", WINDOWS)
def test_a_saved_window_is_that_of_the_loaded_checkpoint(loaded, tmp_path, seconds):
    model, extractor = loaded[seconds]
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    again = transformers.AutoModelForAudioXVector.from_pretrained(tmp_path, trust_remote_code=True)
    features = transformers.AutoFeatureExtractor.from_pretrained(tmp_path, trust_remote_code=True)
    assert again.audio_model.embed_positions.weight.shape == (round(50 * seconds), 16)
    assert features.own["chunk_length"] == seconds and features.own["nb_max_frames"] == round(100 * seconds)
    clips = [clip(0.7), clip(2.6)]
    inputs = features(clips)
    assert inputs["input_features"].shape == (2, 16, math.ceil(2.6 / seconds) * round(100 * seconds))
    with torch.no_grad():
        assert torch.equal(again(**inputs).embeddings, model(**extractor(clips)).embeddings)


def test_a_window_of_the_extractor_is_the_spectrogram_of_its_samples(loaded):
    _, extractor = loaded[1.02]
    long = clip(2.5)
    values, mask = (extractor(long)[name][0] for name in ("input_features", "audio_attention_mask"))
    plain = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    for number, size in enumerate((16320, 16320, 7360)):
        part = long["array"][number * 16320 :][:size]
        expected = plain(part, sampling_rate=RATE, max_length=16320, return_tensors="pt")["input_features"][0]
        assert torch.equal(values[:, 102 * number :][:, :102], expected)
        assert mask[102 * number :][:102].sum() == size / 160
    assert (mask.diff() <= 0).all()


def frames_of(model, inputs):
    """The valid frames of one clip, `(frames, hidden_size)`."""
    [([frames], count)] = model.frozen_states(**inputs)
    assert len(frames) == count
    return frames


@pytest.mark.parametrize("seconds", WINDOWS)
@pytest.mark.parametrize("length", [0.3, 2.0, 4.7])
def test_frames_are_those_of_the_windows_by_themselves(loaded, seconds, length):
    model, extractor = loaded[seconds]
    inputs = extractor(clip(length))
    with torch.no_grad():
        frames = frames_of(model, inputs)
        parts = inputs["input_features"].split(round(100 * seconds), dim=2)
        expected = torch.cat([model.audio_model(part).last_hidden_state[0] for part in parts])
    assert len(frames) == math.ceil(length * 50)  # nothing is cut off
    assert (frames - expected[: len(frames)]).abs().max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "self_attention", "mean_std"])
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.floats(0.1, 6.5), min_size=1, max_size=4),
    seconds=st.sampled_from(WINDOWS),
    empty=st.integers(0, 2),
    data=st.data(),
)
def test_embeddings_are_independent_of_the_batch(whisper, pooling, lengths, seconds, empty, data):
    torch.manual_seed(0)
    model, extractor = load(whisper, seconds, pooling=pooling)
    clips = [clip(length, number) for number, length in enumerate(lengths)]
    order = data.draw(st.permutations(range(len(clips))))
    with torch.no_grad():
        alone = torch.cat([model(**extractor(each)).embeddings for each in clips])
        batch = extractor([clips[index] for index in order])
        padding = (0, empty * round(100 * seconds))  # windows of padding with arbitrary values
        values = torch.nn.functional.pad(batch["input_features"], padding, value=3.0)
        mask = torch.nn.functional.pad(batch["audio_attention_mask"], padding)
        together = model(input_features=values, audio_attention_mask=mask).embeddings
        layers = model.layer_means(input_features=values, audio_attention_mask=mask)
        layers_alone = torch.cat([model.layer_means(**extractor(each)) for each in clips])
    assert (together - alone[order]).abs().max() < 1e-4
    assert (layers - layers_alone[order]).abs().max() < 1e-4


def test_a_very_short_last_window_weighs_little(loaded):
    model, extractor = loaded[1]
    wave = clip(1.02)
    with torch.no_grad():
        complete = {"array": wave["array"][:RATE], "sampling_rate": RATE}
        frames, first = (frames_of(model, extractor(each)) for each in (wave, complete))
        pooled = model(**extractor(wave)).embeddings[0]
    assert (len(frames), len(first)) == (51, 50)
    assert torch.allclose(pooled, (first.sum(0) + frames[50]) / 51, atol=1e-5)


def test_windows_of_padding_are_not_run_and_memory_is_bounded(loaded, monkeypatch):
    model, extractor = loaded[1]
    calls, forward = [], model.audio_model.forward
    monkeypatch.setattr(model.audio_model, "forward", lambda x, **k: calls.append(len(x)) or forward(x, **k))
    inputs = extractor([clip(0.5), clip(2.5)])
    with torch.no_grad():
        model(**inputs)
    assert calls == [4]  # of six windows, three of each clip
    calls.clear()
    long = extractor([clip(70), clip(1)])
    with torch.no_grad():
        expected = model(**long).embeddings
    assert sum(calls) == 71 and max(calls) == 60  # 30 s for each clip
    calls.clear()
    assert torch.allclose(model(**long).embeddings, expected, atol=1e-5) and calls == [71]  # with a graph


def test_a_clip_without_frames_has_the_embedding_zero(loaded):
    model, extractor = loaded[1]
    inputs = extractor([clip(0.5), clip(2.5)])
    expected = model(**inputs).embeddings
    inputs["audio_attention_mask"][0] = 0
    embeddings = model(**inputs).embeddings
    assert embeddings[0].eq(0).all() and torch.allclose(embeddings[1], expected[1], atol=1e-6)


def test_windows_are_exported(loaded):
    model, extractor = loaded[1]

    class Embed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, features, mask):
            return self.model(input_features=features, audio_attention_mask=mask).embeddings

    batches = [extractor([clip(length) for length in lengths]) for lengths in ([0.5, 2.5], [3.5, 0.2, 1.4])]
    example, other = ((batch["input_features"], batch["audio_attention_mask"]) for batch in batches)
    auto = torch.export.Dim.AUTO
    with torch.no_grad():
        shapes = (dict.fromkeys((0, 2), auto), dict.fromkeys((0, 1), auto))
        program = torch.export.export(Embed(), example, dynamic_shapes=shapes, strict=False)
        assert (program.module()(*other) - Embed()(*other)).abs().max() < 1e-5


# ---- what is refused -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (0.03, "must be a multiple of 0.02 s"),
        (0.001, "must be a multiple of 0.02 s"),
        (2.02, "longer than the window of the encoder, 2 s"),
        (30, "longer than the window of the encoder, 2 s"),
        *((value, "must be a finite number of seconds above 0") for value in (0, -1, math.nan, math.inf, True, "1")),
    ],
)
def test_invalid_windows_are_refused(whisper, seconds, message):
    for create in (GEmoClapForXVector, GEmoClapFeatureExtractor):
        with pytest.raises(ValueError, match=f"audio_window_seconds=.*{message}"):
            create.from_audio_pretrained(whisper, audio_window_seconds=seconds)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("ast", "has learnt positions for a grid of patches"),
        ("wavlm-base", "hears clips of any length"),
        ("wav2vec2-bert", "hears clips of any length"),
        ("compact", "hears clips of any length"),
    ],
)
def test_other_families_are_refused_with_a_reason(make_model, family, reason, tmp_path):
    tower = make_model(family).audio_model
    with pytest.raises(ValueError, match=f"audio_window_seconds=1: a {tower.config.model_type!r} encoder {reason}"):
        shorten_window(tower, 1)
    with pytest.raises(ValueError, match="only the input of Whisper is cut into windows"):
        AUDIO[family].small_extractor(tmp_path).set_window(1)


def test_a_model_and_an_extractor_with_different_windows_are_refused(loaded, whisper, make_model, make_processor):
    message = r"window of the audio encoder is 2 s .*feature extractor 1 s .*audio_window_seconds=1 for both"
    _, extractor = loaded[1]
    model = make_model("whisper")
    processor = make_processor(model, "whisper")
    ZeroShotEmotionPipeline(model=model, processor=processor)
    other = GEmoClapProcessor(extractor, processor.tokenizer)
    with pytest.raises(ValueError, match=message):
        ZeroShotEmotionPipeline(model=model, processor=other)
    with pytest.raises(ValueError, match=message):
        AudioClassifier(make_model("whisper", model_class=GEmoClapForAudioClassification), extractor)
    with pytest.raises(ValueError, match=r"300 mel frames, which are not windows of 200 \(2 s\)"):
        model.get_audio_features(**extractor(clip(2.5)))
    with pytest.raises(ValueError, match="0 mel frames"):
        model.get_audio_features(input_features=torch.zeros(1, 16, 0))


def test_the_whole_window_is_as_before(whisper):
    """At the full window nothing changes for a clip that fits, and the settings in the file are the same."""
    model, extractor = load(whisper)
    again = GEmoClapFeatureExtractor.from_audio_pretrained(whisper, FULL)
    assert extractor.to_dict() == again.to_dict() and extractor.max_seconds is None
    inputs = extractor([clip(0.5), clip(1.9)])
    plain = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    waves = [clip(0.5)["array"], clip(1.9)["array"]]
    expected = plain(waves, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
    assert torch.equal(inputs["input_features"], expected["input_features"])
    assert torch.equal(inputs["audio_attention_mask"], expected["attention_mask"].long())
    with torch.no_grad():
        states, _ = encode_frames(model.audio_model, **dict(zip(("inputs", "mask"), inputs.values(), strict=True)))
        assert torch.equal(states[0], model.audio_model(inputs["input_features"]).last_hidden_state)


# ---- the true weights ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def true_whisper():
    folder = Path(os.environ.get("GEMOCLAP_PRETRAINED") or ROOT / "pretrained", "whisper-base")
    if not folder.is_dir():
        assert not os.environ.get("CI"), f"{folder} must exist in continuous integration"
        pytest.skip(f"{folder} is missing: set GEMOCLAP_PRETRAINED to the folder with whisper-base/")
    return str(folder)


def test_true_weights_with_a_shorter_window(true_whisper):
    """The positions are sinusoids, whatever the window; a clip has nearly the same embedding."""
    from modeling_gemoclap.towers_gemoclap import load_audio_tower

    tower = load_audio_tower(true_whisper)
    length, channels = tower.embed_positions.weight.shape
    rates = torch.exp(-math.log(10000) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * rates
    sinusoids = torch.cat([angles.sin(), angles.cos()], 1)
    assert (tower.embed_positions.weight - sinusoids).abs().max() < 1e-2  # the weights may be in half precision
    time = np.arange(3 * RATE) / RATE
    wave = 0.2 * np.sin(2 * np.pi * (150 + 40 * np.sin(3 * time)) * time) * (1 + np.sin(9 * time))
    embeddings = []
    for seconds in (None, 8, 4):
        model = GEmoClapForXVector.from_audio_pretrained(true_whisper, audio_window_seconds=seconds)
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(true_whisper, seconds)
        with torch.no_grad():
            embeddings.append(model(**extractor(wave, sampling_rate=RATE)).embeddings[0])
    full, *shorter = embeddings
    assert all(torch.cosine_similarity(full, each, dim=0) > 0.9 for each in shorter)


def test_python_users_give_the_window_to_model_and_processor(whisper, tmp_path):
    from conftest import text_config

    transformers.RobertaModel(text_config()).save_pretrained(tmp_path)
    model = GEmoClapModel.from_audio_text_pretrained(whisper, str(tmp_path), audio_window_seconds=1, text_layers=1)
    extractor = GEmoClapFeatureExtractor.from_audio_pretrained(whisper, audio_window_seconds=1)
    extractor.check_window(model.config.audio_config)
    assert model.get_audio_features(**extractor(clip(2.5))).shape == (1, 512)
