"""Fields in `--audio_config`, `--text_config` and `--feature_config`: misspelt names, wrong types and ranges."""

import json
import math

import pytest
from conftest import AUDIO, audio_config, text_config
from transformers import BertConfig, RobertaModel, WavLMModel

from modeling_gemoclap import GEmoClapAudioConfig, GEmoClapFeatureExtractor
from modeling_gemoclap.objectives.tower_fields import check_config_fields
from modeling_gemoclap.runs.recipe import recipe_of
from modeling_gemoclap.runs.run import objective_of

EMOTIONS = ["angry", "happy", "sad"]
TINY_TOWER = {"num_mel_bins": 16, "conv_channels": [8, 8], "hidden_size": 32, "num_attention_heads": 2}


def build(head="contrastive", **options):
    options = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in options.items()}
    return objective_of(recipe_of(head, use_cpu=True, **options)).build(EMOTIONS)


@pytest.mark.parametrize("head", ["contrastive", "classifier"])
@pytest.mark.parametrize(
    ("option", "fields", "message"),
    [
        ("audio_config", {"num_mel_bin": 16}, "--audio_config: .*'num_mel_bin'; did you mean num_mel_bins"),
        ("audio_config", {"hidden_sise": 32}, "--audio_config: .*did you mean hidden_size"),
        ("audio_config", {"model_type": "bert"}, "--audio_config model_type 'bert': the tower is a 'gemoclap_audio'"),
        ("audio_config", {"num_hidden_layers": -1}, "num_hidden_layers -1 must be a whole number of at least 1"),
        ("audio_config", {"num_attention_heads": 0}, "num_attention_heads 0 must be"),
        ("audio_config", {"num_hidden_layers": True}, "num_hidden_layers True must be"),
        ("audio_config", {"apply_spec_augment": "false"}, "apply_spec_augment 'false' must be true or false"),
        ("audio_config", {"conv_channels": 0}, "conv_channels 0 must be a list"),
        ("audio_config", {"conv_channels": [8, 0]}, r"conv_channels=\[8, 0\] must be"),
        ("audio_config", {"conv_dropout": "x"}, "conv_dropout 'x' must be"),
        ("audio_config", {"return_dict": False}, "no field 'return_dict'"),
        ("feature_config", {"hop_second": 0.02}, "--feature_config: .*did you mean hop_seconds"),
        ("feature_config", {"num_mel_bins": 32}, "--feature_config num_mel_bins 32: the audio encoder has 64"),
        ("feature_config", {"feature_type": "wave"}, "--feature_config feature_type 'wave'"),
        ("feature_config", {"do_normalize": "no"}, "do_normalize 'no' must be true or false"),
        ("feature_config", {"hop_seconds": 0}, "hop_seconds=0 must be"),
    ],
)
def test_invalid_fields_from_scratch(head, option, fields, message):
    with pytest.raises(ValueError, match=message):
        build(head, **{option: fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": -1}, "--text_config num_hidden_layers -1 must be"),
        ({"num_hidden_layers": "x"}, "num_hidden_layers 'x' must be"),
        ({"num_hiden_layers": 1}, "did you mean num_hidden_layers"),
        ({"vocab_size": 1}, "vocab_size 1: the tokenizer of the prompts has"),
        ({"max_position_embeddings": 3}, "max_position_embeddings 3: the longest prompt has"),
        ({"hidden_act": 3}, "hidden_act 3 must be text"),
        ({"model_type": "bert"}, "the tower is a 'roberta' model"),
    ],
)
def test_invalid_text_fields_from_scratch(fields, message):
    with pytest.raises(ValueError, match=message):
        build(text_config=fields)


def test_valid_fields_are_applied():
    fields = {"text_config": {"num_hidden_layers": 1, "max_position_embeddings": 40, "hidden_size": 32}}
    audio = {**TINY_TOWER, "model_type": "gemoclap_audio", "attn_implementation": "eager"}
    model, processor = build(audio_config=audio, feature_config={"num_mel_bins": 16, "hop_seconds": 0.02}, **fields)
    assert processor.feature_extractor.num_mel_bins == 16 and processor.feature_extractor.hop_seconds == 0.02
    assert model.config.text_config.num_hidden_layers == 1
    inputs = processor(text="this person is feeling " + "angry " * 60)
    assert inputs["input_ids"].shape[1] == 38, "texts are truncated to the number of positions"
    model.get_text_features(**inputs)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    WavLMModel(audio_config("wavlm-base")).save_pretrained(folder / "audio")
    AUDIO["wavlm-base"].small_extractor(folder / "extractor").save_pretrained(folder / "audio")
    RobertaModel(text_config()).save_pretrained(folder / "text")
    return {"audio_model": str(folder / "audio"), "text_model": str(folder / "text")}


@pytest.mark.parametrize(
    ("option", "fields", "message"),
    [
        ("audio_config", {"layer_drop": 0.0}, "--audio_config: a 'wavlm' configuration .*did you mean layerdrop"),
        ("audio_config", {"num_hidden_layers": 0}, "num_hidden_layers 0 must be"),
        ("audio_config", {"model_type": "hubert"}, "the tower is a 'wavlm' model"),
        ("audio_config", {"mask_time_prob": 1.5}, "mask_time_prob 1.5 must be"),
        ("text_config", {"hidden_dropout": 0.0}, "--text_config: a 'roberta' configuration has no field"),
        ("feature_config", {"hop_second": 0.02}, "did you mean hop_seconds"),
        ("feature_config", {"feature_type": "log_mel"}, "feature_type 'log_mel': the audio tower sets it"),
        ("feature_config", {"num_mel_bins": 32}, "num_mel_bins 32: the audio tower sets it"),
    ],
)
def test_invalid_fields_of_pretrained_towers(option, fields, message, pretrained):
    with pytest.raises(ValueError, match=message):
        build(**pretrained, **{option: fields})
    if option != "text_config":
        with pytest.raises(ValueError, match=message):
            build("classifier", audio_model=pretrained["audio_model"], **{option: fields})


@pytest.mark.parametrize(
    ("option", "fields", "message"),
    [
        ("audio_config", {"hidden_sise": 32}, "did you mean hidden_size"),
        ("audio_config", {"hidden_size": 64}, "has hidden_size 32"),
        ("feature_config", {"hop_second": 0.02}, "did you mean hop_seconds"),
        ("text_config", {"num_hidden_layers": -1}, "num_hidden_layers -1 must be"),
    ],
)
def test_invalid_fields_with_init_from(option, fields, message, tmp_path):
    model, extractor = build("classifier", audio_config=TINY_TOWER)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        build(init_from=str(tmp_path), **{option: fields})


def test_fields_of_all_families_are_checked():
    for family in AUDIO:
        config = audio_config(family)
        check_config_fields("audio_config", {"num_hidden_layers": 1, "hidden_size": 32}, config)
        with pytest.raises(ValueError, match="no field 'num_hiden_layers'; did you mean num_hidden_layers"):
            check_config_fields("audio_config", {"num_hiden_layers": 1}, config)
    check_config_fields("text_config", {"pad_token_id": 1, "hidden_dropout_prob": 0}, BertConfig())


# ---- the feature extractor's own checks ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields",
    [
        *({"frame_seconds": value} for value in (0, -0.1, math.nan, "x", True, 2)),
        *({"hop_seconds": value} for value in (0, -0.1, math.inf, None)),
        *({"min_seconds": value} for value in ("x", -1, math.nan)),
        *({"max_seconds": value} for value in (-1, 0, math.nan, "x", 0.01)),
        *({"log_mel_std": value} for value in (0, math.nan, -1)),
        *({"log_mel_mean": value} for value in (math.nan, "x")),
        *({"num_mel_bins": value} for value in (0, 1.5, "x")),
        *({"padding_value": value} for value in (math.nan, None)),
        *({"min_frequency": value} for value in (-1, 9000)),
        *({"max_frequency": value} for value in (20, 9000, math.nan)),
    ],
)
def test_feature_extractor_names_the_invalid_field(fields):
    [name] = fields
    with pytest.raises(ValueError, match=rf"{name}=\S* (is invalid: .*)?must be"):
        GEmoClapFeatureExtractor(feature_type="log_mel", **fields)


def test_channels_of_the_compact_encoder_are_checked():
    for channels in (0, [8, 0], [8, "x"], "88", [8, 8.5]):
        with pytest.raises(ValueError, match="conv_channels=.* must be a list of whole numbers"):
            GEmoClapAudioConfig(conv_channels=channels)


@pytest.mark.parametrize("head", ["contrastive", "classifier", "supcon", "speaker"])
def test_options_of_the_pooling_reach_the_model(head):
    options = {"pooling": "mean_std", "pooled_dropout": 0.3, "use_weighted_layer_sum": True}
    model, _ = build(head, **options, audio_config={"layerdrop": 0.0})
    config = model.config
    assert (config.pooling, config.pooled_dropout, config.use_weighted_layer_sum) == ("mean_std", 0.3, True)
    assert model.training and model.audio_pooling.dropout.p == 0.3
