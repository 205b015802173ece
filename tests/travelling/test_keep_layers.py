"""The first layers of a pretrained encoder, in every family."""

import numpy as np
import pytest
import torch
import transformers
from conftest import RATE, audio_config, text_config
from families import AUDIO, TEXT

from modeling_gemoclap import GEmoClapAudioModel, GEmoClapForXVector
from modeling_gemoclap.encoding_gemoclap import encode_frames
from modeling_gemoclap.towers_gemoclap import (
    build_audio_tower,
    build_text_tower,
    keep_layers,
    load_audio_tower,
    load_text_tower,
    transformer_layers,
)


def save_encoder(family, folder):
    """A pretrained encoder of three layers."""
    torch.manual_seed(0)
    field = "encoder_layers" if family == "whisper" else "num_hidden_layers"
    config = audio_config(family, **{field: 3})
    source = GEmoClapAudioModel(config) if family == "compact" else transformers.AutoModel.from_config(config)
    source.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", AUDIO)
def test_the_first_layers_of_every_audio_encoder(family, tmp_path):
    name = save_encoder(family, tmp_path / "encoder")
    full = load_audio_tower(name).eval()
    stack, _ = transformer_layers(full)
    extractor = AUDIO[family].small_extractor(tmp_path / "extractor")
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    inputs = extractor(noise, sampling_rate=RATE)[extractor.input_name]
    for count in (1, 2, 3):
        tower = load_audio_tower(name, layers=count).eval()
        assert tower.config.num_hidden_layers == count == len(transformer_layers(tower)[1])
        dropped = tuple(f"{stack}.{number}." for number in range(count, 3))
        expected = {key: value for key, value in full.state_dict().items() if not key.startswith(dropped)}
        state = tower.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], value) for key, value in expected.items())
        again = build_audio_tower(tower.config).eval()
        again.load_state_dict(state)  # a checkpoint with this configuration
        with torch.no_grad():
            states = [encode_frames(each, inputs, None, family != "sew")[0] for each in (full, tower, again)]
        assert torch.equal(states[1][-1], states[2][-1])
        if family != "sew":
            assert [len(each) for each in states] == [4, count + 1, count + 1]
            assert all(torch.equal(*pair) for pair in zip(states[0][:count], states[1][:count], strict=True))


def test_the_final_norm_is_kept(tmp_path):
    name = save_encoder("whisper", tmp_path)
    full, tower = load_audio_tower(name).eval(), load_audio_tower(name, layers=1).eval()
    inputs = torch.randn(1, 16, 200)
    with torch.no_grad():
        after_first = full(inputs, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(tower(inputs).last_hidden_state, full.layer_norm(after_first))


@pytest.mark.parametrize("name", TEXT)
def test_the_first_layers_of_every_text_encoder(name, tmp_path):
    torch.manual_seed(0)
    build_text_tower(text_config(name, num_hidden_layers=3)).save_pretrained(tmp_path)
    full, tower = load_text_tower(str(tmp_path)).eval(), load_text_tower(str(tmp_path), layers=2).eval()
    ids = torch.randint(5, 300, (2, 6))
    with torch.no_grad():
        expected = full(input_ids=ids, output_hidden_states=True).hidden_states[2]
        assert torch.allclose(tower(input_ids=ids).last_hidden_state, expected, atol=1e-6)
    assert tower.config.num_hidden_layers == 2 and len(tower.state_dict()) < len(full.state_dict())


@pytest.mark.parametrize("count", [0, -1, 4, 1.0, True, "2"])
def test_invalid_numbers_name_the_layers_that_there_are(count, tmp_path):
    name = save_encoder("compact", tmp_path)
    message = f"audio_layers={count!r}: the 'gemoclap_audio' encoder has 3 Transformer layers; give a whole number"
    with pytest.raises(ValueError, match=message):
        GEmoClapForXVector.from_audio_pretrained(name, audio_layers=count)
    with pytest.raises(ValueError, match="text_layers=5: the 'roberta' encoder has 1 Transformer layers"):
        keep_layers(build_text_tower(text_config()), 5, "text_layers")
