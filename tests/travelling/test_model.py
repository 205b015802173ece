"""The model: shapes, pooling, batch independence, pretrained towers, configuration."""

import inspect
import math
import re

import pytest
import torch
import transformers
from conftest import audio_config, batch_of, text_config
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap import GEmoClapAudioConfig, GEmoClapAudioModel, GEmoClapConfig, GEmoClapModel


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(8, 200), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_compact_encoder_ignores_padding(lengths, seed):
    model = GEmoClapAudioModel(audio_config("compact")).eval()
    clips = [
        torch.randn(length, 16, generator=torch.Generator().manual_seed(seed + i)) for i, length in enumerate(lengths)
    ]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(length) for length in lengths], True)
    garbage = torch.nn.utils.rnn.pad_sequence(clips, True, padding_value=7.0)
    with torch.no_grad():
        hidden = model(garbage, attention_mask=mask).last_hidden_state
        frames = model._get_feature_vector_attention_mask(hidden.shape[1], mask)
        for row, clip in enumerate(clips):
            alone = model(clip[None]).last_hidden_state[0]
            assert len(alone) == frames[row].sum() == -(-len(clip) // 4)
            assert (hidden[row, : len(alone)] - alone).abs().max() < 1e-4


def test_compact_encoder_has_hidden_states_and_a_size():
    config = GEmoClapAudioConfig()
    model = GEmoClapAudioModel(config).eval()
    output = model(torch.randn(2, 99, 64), output_hidden_states=True)
    assert len(output.hidden_states) == config.num_hidden_layers + 1
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert output.last_hidden_state.shape == (2, 25, config.hidden_size)
    assert 50_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 2_000_000
    assert isinstance(model(torch.randn(1, 20, 64), return_dict=False), tuple)


def test_spec_augment_masks_only_in_training():
    model = GEmoClapAudioModel(GEmoClapAudioConfig(hidden_dropout=0.0, conv_dropout=0.0))
    features, mask = torch.ones(8, 50, 64), torch.ones(8, 50)
    masked = model._spec_augment(features, mask.bool())
    assert 0.5 < masked.mean() < 1.0
    model.train()
    assert not torch.equal(model(features).last_hidden_state, model(features).last_hidden_state)
    model.eval()
    assert torch.equal(model(features).last_hidden_state, model(features).last_hidden_state)
    assert torch.isfinite(model.train()(torch.randn(2, 8, 64)).last_hidden_state).all()


def test_pooling_is_the_mean_over_valid_frames(make_model):
    model = make_model("wavlm-large")
    batch, clips = batch_of(model, [16000, 8000])
    hidden = model.audio_model(clips[1][None]).last_hidden_state.mean(1)
    expected = model.audio_projection(hidden)
    assert torch.allclose(model.get_audio_features(**batch)[1:], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "self_attention", "mean_std"])
def test_pooled_dropout_is_only_in_training(make_model, tmp_path, pooling):
    """Also of a frozen encoder."""
    plain, model = make_model(pooling=pooling), make_model(pooling=pooling, pooled_dropout=0.5)
    batch, _ = batch_of(plain, [16000] * 8)
    whole = plain.train().pool_audio(**batch)
    assert torch.equal(model.pool_audio(**batch), whole), "eval mode"
    model.freeze_audio_encoder()
    pooled = model.train().pool_audio(**batch)
    dropped = pooled == 0
    assert 0.2 < dropped.float().mean() < 0.8 and not torch.equal(dropped[0], dropped[1])
    assert torch.allclose(pooled[~dropped], 2 * whole[~dropped], atol=1e-6)
    model.save_pretrained(tmp_path)
    assert GEmoClapModel.from_pretrained(tmp_path).audio_pooling.dropout.p == 0.5


def test_text_is_the_first_token(make_model):
    model = make_model()
    ids = torch.randint(5, 300, (2, 6))
    hidden = model.text_model(ids).last_hidden_state[:, 0]
    assert torch.allclose(model.get_text_features(ids), model.text_projection(hidden))


def test_scales_are_bounded_and_initialised(make_model):
    model = make_model(logit_scale_init_value=1.5)
    assert model.audio_logit_scale.item() == pytest.approx(1.5)
    assert model.text_scale.item() == pytest.approx(math.exp(1.5))
    with torch.no_grad():
        model.audio_logit_scale.fill_(9.0)
    assert model.audio_scale.item() == pytest.approx(100.0, rel=1e-5)
    assert not make_model(logit_scale_trainable=False).audio_logit_scale.requires_grad


def test_class_embeddings_are_means_of_normalised_prompts(make_model, make_processor):
    model = make_model(objective="emo", emotion_templates=["a {} voice", "somebody who is {}"])
    tokenizer = make_processor(model).tokenizer
    classes = model.get_class_embeddings(model.config.class_prompts(), tokenizer)
    tokens = tokenizer(["a angry voice", "somebody who is angry"], padding=True, return_tensors="pt")
    two = model.get_text_features(**tokens)
    expected = torch.nn.functional.normalize(two.mean(0), dim=-1)
    assert classes.shape == (3, 12) and torch.allclose(classes[0], expected, atol=1e-6)


def test_ml_needs_gender_prompts(make_model):
    model = make_model(objective="ml")
    audio, _ = batch_of(model, [8000, 8000])
    ids = torch.randint(5, 300, (2, 6))
    labels = {"emotion_labels": torch.tensor([0, 1]), "gender_labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="gender_input_ids"):
        model(**audio, input_ids=ids, **labels)
    assert model(**audio, input_ids=ids, gender_input_ids=ids, **labels).loss.isfinite()
    with pytest.raises(ValueError, match="one text and one label for each clip"):
        model(**audio, input_ids=ids[:1], gender_input_ids=ids[:1], **labels)


def test_ready_towers_keep_their_attention_and_accept_fields(tmp_path):
    transformers.HubertModel(audio_config("hubert-large")).save_pretrained(tmp_path / "audio")
    transformers.RobertaModel(text_config()).save_pretrained(tmp_path / "text")
    names = (str(tmp_path / "audio"), str(tmp_path / "text"))
    model = GEmoClapModel.from_audio_text_pretrained(
        *names, projection_dim=8, audio_hidden_dropout=0.25, text_hidden_dropout_prob=0.35
    )
    assert model.config.audio_config.hidden_dropout == 0.25 and model.config.text_config.hidden_dropout_prob == 0.35
    for tower in (model.audio_model, model.text_model):
        assert tower.config._attn_implementation == "sdpa"
    assert model.get_audio_features(torch.randn(1, 8000)).shape == (1, 8)
    half = model.to(torch.bfloat16)
    assert half.get_audio_features(torch.randn(1, 8000)).dtype == torch.bfloat16


def test_fields_of_the_output_are_in_order(make_model):
    model = make_model()
    audio, _ = batch_of(model, [8000, 8000])
    ids, labels = torch.randint(5, 300, (2, 6)), torch.tensor([0, 1])
    output = model(**audio, input_ids=ids, emotion_labels=labels)
    names = ["loss", "logits_per_audio", "logits_per_text", "audio_embeds", "text_embeds", "audio_scale", "text_scale"]
    assert list(output.keys()) == names
    as_tuple = model(**audio, input_ids=ids, emotion_labels=labels, return_dict=False)
    assert len(as_tuple) == 7 and torch.equal(as_tuple[0], output.loss)
    assert next(iter(model(**audio, input_ids=ids).keys())) == "logits_per_audio"


@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "clap"},
        {"similarity": "cosine"},
        {"targets": "hard"},
        {"sl_texts": "none"},
        {"pooling": "max"},
        {"text_pooling": "last"},
        {"use_weighted_layer_sum": True},  # the layerdrop of the default tower is not 0
        {"alpha": 1.5},
        {"emotions": ["sad", "sad"]},
        {"emotion_templates": ["no place"]},
        {"joint_templates": ["{emotion} alone"]},
        {"calibration_temperature": 0.0},
        {"logit_scale_init_value": 10.0},
    ],
)
def test_invalid_configurations_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        GEmoClapConfig(**fields)


def test_synonyms_are_used_only_in_training():
    synonyms = {"angry": ["furious"], "fear": ["afraid", "scared"]}
    config = GEmoClapConfig(emotions=["angry", "sad"], objective="emo", emotion_synonyms=synonyms)
    assert config.emotion_synonyms == {"angry": ["furious"]}, "synonyms of its emotions"
    assert config.emotion_prompts("angry", synonyms=True) == [
        "this person is feeling angry",
        "this person is feeling furious",
    ]
    assert config.class_prompts() == [["this person is feeling angry"], ["this person is feeling sad"]]
    assert GEmoClapConfig.from_dict(config.to_dict()).emotion_synonyms == config.emotion_synonyms
    for wrong, message in (
        ({"angry": ["sad"]}, "'sad' stands for angry and for sad"),
        ({"angry": ["sadness"]}, "'sadness' of angry is a name of sad"),
        ({"angry": "furious"}, "lists of words"),
    ):
        with pytest.raises(ValueError, match=message):
            GEmoClapConfig(emotions=["angry", "sad"], emotion_synonyms=wrong)


def test_unknown_words():
    config = GEmoClapConfig(known_words=["this", "person", "is", "feeling", "angry"])
    assert config.unknown_words(["This person is feeling livid!", "feeling livid"]) == ["livid"]
    assert GEmoClapConfig().unknown_words(["whatever"]) == [], "a pretrained text tower knows most words"


def test_configuration_prompts():
    config = GEmoClapConfig(emotions=["fear", "surprise", "sleepy"])
    assert config.class_prompts()[0] == [
        "this female person is feeling fearful",
        "this male person is feeling fearful",
    ]
    assert config.class_prompts(["happiness"], "{}!") == [["happy!"]]
    assert config.gender_class_prompts()[1][2] == "this male person is feeling sleepy"
    emo = GEmoClapConfig(objective="emo")
    assert emo.class_prompts()[0] == ["this person is feeling angry"]
    with pytest.raises(ValueError, match="no texts for gender"):
        emo.gender_class_prompts()


FIELDS = {**inspect.signature(GEmoClapAudioConfig).parameters, **inspect.signature(GEmoClapConfig).parameters}
NUMBERS = [name for name in FIELDS if str(FIELDS[name].annotation).removesuffix(" | None") in ("int", "float")]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_a_configuration_is_checked(name):
    """Of either configuration: also null, which a file may have, is refused before anything is computed from it."""
    kind = GEmoClapAudioConfig if name in inspect.signature(GEmoClapAudioConfig).parameters else GEmoClapConfig
    optional = FIELDS[name].annotation.endswith("None")
    for value in ("x", True, float("nan"), math.inf, [1], *([] if optional else [None])):
        with pytest.raises(ValueError, match=f"^{name}={re.escape(repr(value))} must be "):
            kind(**{name: value})
    if optional:
        kind(**{name: None})
