"""Ready towers, shared configurations, and invalid towers."""

import json

import pytest
import torch
import transformers
from conftest import BIN, RATE, audio_config, batch_of, text_config
from safetensors.torch import load_file, save_file

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification, GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import ignores_padding
from modeling_gemoclap.towers_gemoclap import load_audio_tower, load_text_tower


def save_text(folder, **fields):
    torch.manual_seed(2)
    transformers.RobertaModel(text_config(**fields)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", ["hubert-base", "wavlm-base", "data2vec-large"])
def test_ready_towers_ignore_padding_and_keep_their_attention(family):
    torch.manual_seed(0)
    audio = transformers.AutoModel.from_config(audio_config(family)).eval()
    attention = audio.config._attn_implementation
    text = transformers.RobertaModel(text_config(), add_pooling_layer=False)
    config = GEmoClapConfig(audio_config=audio.config, text_config=text.config, projection_dim=8)
    model = GEmoClapModel(config, audio_model=audio, text_model=text).eval()
    again = GEmoClapModel(config, audio_model=model.audio_model, text_model=text).eval()  # layers are replaced once
    assert again.audio_model.config._attn_implementation == attention in ("eager", "sdpa")
    assert set(model.state_dict()) == set(again.state_dict())
    batch, clips = batch_of(model, [RATE, RATE // 3, RATE // 2])
    with torch.no_grad():
        together = model.get_audio_features(**batch)
        alone = torch.cat([model.get_audio_features(clip[None]) for clip in clips])
    assert (together - alone).abs().max() < 1e-4


def test_hubert_with_batch_norm_is_batched_by_length():
    config = audio_config("hubert-large", conv_pos_batch_norm=True)
    assert not ignores_padding(config) and ignores_padding(audio_config("hubert-large"))
    torch.manual_seed(0)
    model = GEmoClapModel(GEmoClapConfig(audio_config=config, text_config=text_config(), projection_dim=8)).eval()
    norm = model.audio_model.encoder.pos_conv_embed.batch_norm
    torch.nn.init.normal_(norm.running_mean)
    batch, clips = batch_of(model, [RATE, RATE // 3])
    with torch.no_grad():
        alone = torch.cat([model.get_audio_features(clip[None]) for clip in clips])
        assert (model.get_audio_features(**batch) - alone).abs().max() < 1e-4


def test_classifier_does_not_change_a_shared_configuration(make_model, tmp_path):
    model = make_model()
    GEmoClapForAudioClassification(model.config)
    model.save_pretrained(tmp_path)
    assert "zero-shot-emotion-recognition" in json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]


def test_hub_options_apply_to_configuration_and_weights(tmp_path):
    for folder, seed in ((tmp_path / "audio", 0), (tmp_path / "audio/sub", 1)):
        torch.manual_seed(seed)
        transformers.HubertModel(audio_config("hubert-base")).save_pretrained(folder)
    expected = load_file(tmp_path / "audio/sub/model.safetensors")
    tower = load_audio_tower(str(tmp_path / "audio"), subfolder="sub", layerdrop=0.25)
    assert torch.equal(tower.state_dict()["encoder.layer_norm.weight"], expected["encoder.layer_norm.weight"])
    name = "feature_projection.projection.weight"
    assert torch.equal(tower.state_dict()[name], expected[name]) and tower.config.layerdrop == 0.25
    save_text(tmp_path / "text/sub")
    assert load_text_tower(str(tmp_path / "text"), subfolder="sub").config.model_type == "roberta"


@pytest.mark.parametrize("kind", ["torch.bfloat16", torch.bfloat16, "bfloat16"])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_dtype_options(tmp_path, kind, name):
    transformers.HubertModel(audio_config("hubert-base")).save_pretrained(tmp_path / "audio")
    text = save_text(tmp_path / "text")
    model = GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), text, **{name: kind})
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    classifier = GEmoClapForAudioClassification.from_audio_pretrained(str(tmp_path / "audio"), dtype="auto")
    assert {p.dtype for p in classifier.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="dtype='half-ish'"):
        GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), text, **{name: "half-ish"})
    with pytest.raises(ValueError, match="the same dtype"):
        GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), text, audio_torch_dtype="float16")


# ---- invalid towers -------------------------------------------------------------------------------------------------
def test_first_token_of_a_causal_text_encoder_is_refused(tmp_path):
    small = {"vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 66}
    transformers.GPT2Model(transformers.GPT2Config(**small)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="gpt2: its first token does not attend to .*: give text_pooling='mean'"):
        load_text_tower(str(tmp_path / "gpt2"))
    assert load_text_tower(str(tmp_path / "gpt2"), "mean").config.model_type == "gpt2"
    transformers.T5Config().save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="'t5' model, not a text encoder"):
        load_text_tower(str(tmp_path / "t5"))


def test_audio_codecs_are_refused(tmp_path):
    fields = {"hidden_size": 8, "num_filters": 4, "codebook_size": 16, "target_bandwidths": [1.5]}
    transformers.EncodecModel(transformers.EncodecConfig(**fields)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'encodec' model, not an audio encoder"):
        load_audio_tower(str(tmp_path))


@pytest.mark.parametrize("form", ["safetensors", BIN, "pointer"])
def test_truncated_weight_files_are_named(tmp_path, form):
    transformers.HubertModel(audio_config("hubert-base")).save_pretrained(tmp_path / "audio")
    path = tmp_path / "audio/model.safetensors"
    if form == "bin":
        weights = load_file(path)
        path.unlink()
        path = tmp_path / "audio/pytorch_model.bin"
        torch.save(weights, path)
    data = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    path.write_bytes(pointer if form == "pointer" else data[: len(data) // 2])
    # transformers 4 has another message for the old format
    with pytest.raises(
        (ValueError, OSError),
        match=r"audio: its weights cannot be read.*again|Unable to load .*audio|a pointer of git-lfs",
    ):
        load_audio_tower(str(tmp_path / "audio"))


def test_evaluate_refuses_a_checkpoint_without_all_weights(make_model, make_processor, tones, tmp_path):
    from conftest import run_script

    model = make_model()
    model.save_pretrained(tmp_path)
    make_processor(model).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.linear2.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    done = run_script("evaluate.py", "--model", tmp_path, "--data_dir", tones, check=False)
    assert done.returncode == 1 and "lacks 1 of the weights" in done.stderr and "Traceback" not in done.stderr
