"""Model files of CTranslate2, written by the tests in the documented format, and their conversion to transformers."""

import json

import numpy as np
import pytest
import torch
from ctranslate2_writer import SETTINGS, TOKENS, model_bytes, tiny_whisper, variables_of, write_files
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel

from modeling_gemoclap.pretrained.ctranslate2 import read_model_file
from modeling_gemoclap.pretrained.whisper import check_positions, convert, convert_model


def converted(variables, **header):
    return convert_model(read_model_file(model_bytes(variables, **header)), SETTINGS, TOKENS)


@pytest.fixture
def variables():
    return variables_of(tiny_whisper())


def test_every_parameter_is_converted(variables):
    source, model = tiny_whisper(), converted(variables)
    expected, state = source.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert model.config.encoder_ffn_dim == 12 and model.config.decoder_ffn_dim == 16
    features = torch.randn(1, 4, 12)
    inputs = {"input_features": features, "decoder_input_ids": torch.tensor([[7, 8]])}
    assert torch.equal(model(**inputs).logits, source(**inputs).logits)


def test_a_file_is_written_in_the_form_of_transformers(variables, tmp_path):
    write_files(tmp_path / "source")
    files = (tmp_path / "source/config.json", tmp_path / "source/tokenizer.json")
    convert(model_bytes(variables), *files, tmp_path / "model")
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    expected = tiny_whisper().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "float16"
    assert torch.equal(
        WhisperModel.from_pretrained(tmp_path / "model", dtype=torch.float32).encoder.conv1.weight,
        expected["model.encoder.conv1.weight"],
    )
    assert WhisperFeatureExtractor.from_pretrained(tmp_path / "model").feature_size == 4
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.convert_tokens_to_ids("<|de|>") == TOKENS["<|de|>"] and tokenizer.eos_token == "<|endoftext|>"
    generation = model.generation_config
    assert generation.suppress_tokens == SETTINGS["suppress_ids"] and generation.is_multilingual
    assert generation.begin_suppress_tokens == SETTINGS["suppress_ids_begin"]
    assert generation.lang_to_id == {name: TOKENS[name] for name in ("<|en|>", "<|de|>")}
    assert generation.no_timestamps_token_id == TOKENS["<|notimestamps|>"]


def test_single_precision_is_converted_too(variables):
    wide = {name: value.astype(np.float32) if value.ndim else value for name, value in variables.items()}
    assert torch.equal(converted(wide).model.encoder.conv1.weight, converted(variables).model.encoder.conv1.weight)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 5}, "version 5 of CTranslate2's format; only version 6"),
        ({"specification": "TransformerSpec"}, "TransformerSpec of revision 3; only WhisperSpec"),
        ({"revision": 2}, "WhisperSpec of revision 2; only WhisperSpec of revision 3"),
        ({"aliases": {}}, "its aliases are {}"),
        ({"aliases": {"x": "y"}}, "x cannot be an alias of y"),
    ],
)
def test_other_formats_are_refused(variables, header, message):
    with pytest.raises(ValueError, match=f"^model.bin: {message}"):
        converted(variables, **header)


def test_a_truncated_file_is_refused_wherever_it_ends(variables):
    data = model_bytes(variables)
    for end in (*range(0, 200), *range(200, len(data), 97), len(data) - 1):
        with pytest.raises(ValueError, match="^model.bin: truncated: .* delete it"):
            read_model_file(data[:end])
    with pytest.raises(ValueError, match="3 bytes after the end"):
        read_model_file(data + b"abc")


CHANGES = {
    "missing": (lambda v: v.pop("encoder/conv1/bias"), "lacks variables: encoder/conv1/bias$"),
    "missing layer": (lambda v: [v.pop(n) for n in [*v] if "encoder/layer_0" in n], "lacks .* and 9 more"),
    "surplus": (lambda v: v.update({"encoder/extra": np.float16(1)}), "has unknown variables: encoder/extra"),
    "int8": (
        lambda v: v.update({"encoder/conv1/weight": v["encoder/conv1/weight"].astype(np.int8)}),
        "encoder/conv1/weight is int8; only models in float16",
    ),
    "shape": (lambda v: v.update({"encoder/conv2/bias": np.zeros(9, np.float16)}), "shapes of its variables"),
    "rows": (
        lambda v: v.update({"encoder/layer_0/self_attention/linear_0/bias": np.zeros(25, np.float16)}),
        "25 rows, which 3 parameters",
    ),
    "bias of keys": (
        lambda v: v.update({"decoder/layer_1/attention/linear_1/bias": np.ones(16, np.float16)}),
        "decoder/layer_1/attention/linear_1/bias has a bias of keys",
    ),
    "activation": (lambda v: v.update({"decoder/activation": np.int8(0)}), "activation is 0, where Whisper has 3"),
    "positions": (
        lambda v: v.update({"encoder/position_encodings/encodings": np.zeros((6, 8), np.float16)}),
        "differ from sinusoids by 1",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_variables_that_are_not_whispers_are_refused(variables, change):
    modify, message = CHANGES[change]
    modify(variables)
    with pytest.raises(ValueError, match=f"^model.bin: .*{message}"):
        converted(variables)


def test_a_file_that_contradicts_itself_is_refused(variables):
    data = model_bytes({"encoder/conv1/bias": np.zeros(4, np.float16)}, aliases={})
    kind = data.index(b"\x04\x08\x00\x00\x00")
    with pytest.raises(ValueError, match=r"has 8 bytes, which is not the size of \[4\] float32"):
        read_model_file(data[:kind] + b"\x00" + data[kind + 1 :])
    with pytest.raises(ValueError, match="encoder/conv1/bias has the unknown type 9"):
        read_model_file(data[:kind] + b"\x09" + data[kind + 1 :])
    with pytest.raises(ValueError, match="no string before byte"):
        read_model_file(data.replace(b"WhisperSpec\0", b"WhisperSpec!"))


def test_another_tokenizer_is_refused(variables):
    with pytest.raises(ValueError, match=r"no token <\|notimestamps\|>"):
        tokens = {name: number for name, number in TOKENS.items() if name != "<|notimestamps|>"}
        convert_model(read_model_file(model_bytes(variables)), SETTINGS, tokens)


def test_positions_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="differ from sinusoids by nan"):
        check_positions(torch.full((6, 8), torch.nan))
