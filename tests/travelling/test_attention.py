"""Attention: the implementations of WavLM are equal, and every family runs the fastest that it has."""

import copy

import pytest
import torch
import transformers
from conftest import RATE, audio_config, batch_of, text_config
from families import AUDIO
from torch.nn import functional as F

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel
from modeling_gemoclap import attention_gemoclap as attention

WAVLM = ("wavlm-base", "wavlm-large")  # norm after and before attention
BIAS = {"num_buckets": 32, "max_bucket_distance": 20}
LENGTHS = [RATE, RATE // 2, RATE // 5]


@pytest.fixture
def make_wavlm(make_model):
    """A small WavLM whose bias matters: its initial values of some parameters are 0 or 1."""

    def make(family, implementation, **fields):
        names = ("attention_dropout", "layerdrop", "hidden_dropout")
        audio = BIAS | {name: fields.pop(name) for name in names if name in fields}
        model = make_model(family, audio=audio, attn_implementation={"audio_config": implementation}, **fields)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.audio_model.named_parameters():
                if "rel_attn_embed" in name or parameter.dim() < 2 or "gru_rel_pos" in name:
                    parameter.add_(
                        torch.randn(parameter.shape, generator=generator) / (1 if "rel_attn" in name else 4)
                    )
        return model

    return make


def gradients(model, seed=0, **checkpointing):
    """The embeddings of a padded batch and the gradient of each parameter of the audio tower."""
    batch, _ = batch_of(model, LENGTHS)
    if checkpointing:
        model.train().gradient_checkpointing_enable(checkpointing)
    torch.manual_seed(seed)
    embeds = model.get_audio_features(**batch)
    (embeds * torch.linspace(-1, 1, embeds.shape[1])).sum().backward()
    named = model.audio_model.named_parameters()
    return embeds.detach(), {name: p.grad for name, p in named if p.grad is not None}


def assert_equal(first, second):
    (embeds, grads), (others, other_grads) = first, second
    assert (embeds - others).abs().max() < 1e-5
    assert grads.keys() == other_grads.keys()
    for name, grad in grads.items():
        assert (grad - other_grads[name]).abs().max() < 1e-5 * max(1, grad.abs().max()), name
    assert all(grad.abs().max() > 1e-7 for name, grad in grads.items() if "rel_attn" in name or "gru_rel" in name)


@pytest.mark.parametrize("family", WAVLM)
@pytest.mark.parametrize("case", ["all", "layers", "frozen", "checkpointed", "layerdrop"])
def test_sdpa_equals_eager_with_padding(make_wavlm, family, case):
    results = []
    for implementation in ("eager", "sdpa"):
        fields = {"use_weighted_layer_sum": True} if case == "layers" else {}
        model = make_wavlm(family, implementation, **fields, **({"layerdrop": 0.5} if case == "layerdrop" else {}))
        if case == "frozen":
            model.unfreeze_last_n_layers(1)
        if case == "layerdrop":
            model.train()
        results.append(gradients(model, **({"use_reentrant": False} if case == "checkpointed" else {})))
    assert_equal(*results)
    assert any("rel_attn_embed" in name for name in results[0][1]) == (case != "frozen")


def test_a_wrong_bias_would_be_found(make_wavlm, monkeypatch):
    eager = gradients(make_wavlm("wavlm-base", "eager"))
    correct = attention.GEmoClapWavLMAttention.compute_bias
    monkeypatch.setattr(attention.GEmoClapWavLMAttention, "compute_bias", lambda *args: correct(*args).flip(1))
    with pytest.raises(AssertionError):
        assert_equal(eager, gradients(make_wavlm("wavlm-base", "sdpa")))


def test_aligned_rows_of_a_gpu_give_the_same_output(make_wavlm, monkeypatch):
    model = make_wavlm("wavlm-base", "sdpa")
    expected = gradients(copy.deepcopy(model))
    monkeypatch.setattr(attention, "aligned_keys", lambda frames, on_gpu: -(-frames // 8) * 8)
    assert_equal(expected, gradients(model))


def test_dropout_has_the_distribution_of_eager(make_wavlm):
    means, deviations = [], []
    for implementation in ("eager", "sdpa"):
        model = make_wavlm("wavlm-large", implementation, attention_dropout=0.3).train()
        batch, _ = batch_of(model, [RATE // 4, RATE // 8])
        torch.manual_seed(0)
        with torch.no_grad():
            draws = torch.stack([model.pool_audio(**batch) for _ in range(200)])
        means.append(draws.mean(0))
        deviations.append(draws.std(0))
    assert deviations[0].min() > 0  # dropout acts
    assert ((means[0] - means[1]).abs() < 5 * deviations[0] * (2 / 200) ** 0.5).all()
    assert (deviations[1] / deviations[0] - 1).abs().mean() < 0.15


@pytest.mark.parametrize("lengths", [None, [49, 7, 20]])
def test_flex_attention_adds_the_gated_bias_and_ignores_padding(lengths):
    pytest.importorskip("torch.nn.attention.flex_attention")
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 3, 2, 49, 16)
    gate, table = torch.rand(3, 2, 49) + 1, torch.randn(2, 97)
    bias = torch.stack([table[:, 48 - row : 97 - row] for row in range(49)], 1)
    scores = gate[..., None] * bias
    if lengths:
        scores = scores.masked_fill(torch.arange(49) >= torch.tensor(lengths)[:, None, None, None], -torch.inf)
    expected = F.scaled_dot_product_attention(query, key, value, scores)
    with torch.no_grad():
        counts = torch.tensor(lengths) if lengths else None
        got = attention.flex_attention_of(query, key, value, gate, table, counts)
    assert (got - expected).abs().max() < 1e-5


def test_flex_attention_gives_the_tower_the_same_output(make_wavlm, monkeypatch):
    pytest.importorskip("torch.nn.attention.flex_attention")
    model = make_wavlm("wavlm-large", "flex_attention")
    batch, _ = batch_of(model, LENGTHS)
    with torch.no_grad():
        expected = make_wavlm("wavlm-large", "eager").get_audio_features(**batch)
        with pytest.raises(ValueError, match="'flex_attention' needs a GPU.*use attn_implementation='sdpa'"):
            model.get_audio_features(**batch)
        monkeypatch.setattr(attention, "refuse_flex", lambda *args: None)
        monkeypatch.setattr(attention, "compiled_flex_attention", lambda: attention.flex_attention_of)
        assert (model.get_audio_features(**batch) - expected).abs().max() < 1e-5


def test_flex_attention_has_no_dropout():
    gate = torch.zeros(1, device="meta")
    with pytest.raises(ValueError, match="no dropout of attention weights: set attention_dropout"):
        attention.refuse_flex(gate, 0.1)
    attention.refuse_flex(gate, 0.0)


@pytest.mark.parametrize("family", AUDIO)
def test_no_family_runs_eager_by_default(make_model, family):
    model = make_model(family)
    if family in ("wav2vec2-bert", "wav2vec2-conformer") and transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 has eager attention only")
    assert model.audio_model.config._attn_implementation == "sdpa"
    assert model.text_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["wavlm-base", "hubert-base", "whisper", "data2vec-base", "compact"])
def test_scaled_dot_product_attention_runs(make_model, family, monkeypatch):
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    model = make_model(family)
    frames = 2 * getattr(model.config.audio_config, "max_source_positions", 25)
    inputs = {model.main_input_name: torch.randn(1, 16, frames)} if family == "whisper" else batch_of(model, [8000])[0]
    with torch.no_grad():
        model.pool_audio(**inputs)
    assert len(calls) == model.config.audio_config.num_hidden_layers


def test_loading_selects_the_implementation_and_saves_none(make_wavlm, tmp_path):
    model = make_wavlm("wavlm-base", "eager")
    model.save_pretrained(tmp_path)
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()
    loads = {
        "sdpa": ({}, {"attn_implementation": "sdpa"}, {"attn_implementation": {"audio_config": "sdpa"}}),
        "eager": ({"attn_implementation": "eager"}, {"attn_implementation": {"audio_config": "eager"}}),
        "flex_attention": ({"attn_implementation": {"audio_config": "flex_attention"}},),
    }
    for expected, several in loads.items():
        for options in several:
            loaded = GEmoClapModel.from_pretrained(tmp_path, **options)
            assert loaded.audio_model.config._attn_implementation == expected
    loaded.set_attn_implementation({"audio_config": "sdpa"})
    assert_equal(gradients(model), gradients(loaded.eval()))


def test_towers_from_checkpoints(tmp_path):
    transformers.WavLMModel(audio_config("wavlm-base", **BIAS)).save_pretrained(tmp_path / "audio")
    transformers.RobertaModel(text_config()).save_pretrained(tmp_path / "text")
    names = (str(tmp_path / "audio"), str(tmp_path / "text"))

    def implementation(**options):
        return GEmoClapModel.from_audio_text_pretrained(*names, **options).audio_model.config._attn_implementation

    assert implementation() == "sdpa"
    assert implementation(audio_attn_implementation="eager") == "eager"
    assert implementation(attn_implementation={"audio_config": "eager"}) == "eager"
    with pytest.raises(ValueError, match="'flash_attention_2' does not support WavLM.*'eager', 'sdpa'"):
        implementation(audio_attn_implementation="flash_attention_2")


def test_ready_tower_of_transformers_can_change(make_wavlm):
    tower = transformers.WavLMModel(audio_config("wavlm-base", **BIAS)).eval()
    names = set(tower.state_dict())
    model = GEmoClapModel(GEmoClapConfig(audio_config=tower.config, text_config=text_config()), audio_model=tower)
    assert set(model.audio_model.state_dict()) == names and tower.config._attn_implementation == "eager"
    eager = gradients(model.eval())
    model.zero_grad()
    model.set_attn_implementation({"audio_config": "sdpa"})
    assert tower.config._attn_implementation == "sdpa"
    assert_equal(eager, gradients(model))


@pytest.mark.parametrize("value", ["flash_attention_2", "nonsense"])
def test_other_implementations_are_refused(make_model, value):
    model = make_model("wavlm-base")
    with pytest.raises(ValueError, match=f"'{value}' does not support WavLM.*'eager', 'sdpa', 'flex_attention'"):
        make_model("wavlm-base", attn_implementation={"audio_config": value})
    with pytest.raises(ValueError, match=f"'{value}' does not support WavLM"):
        model.set_attn_implementation({"audio_config": value})
    with pytest.raises(ValueError, match=f"'{value}' does not support all towers.*give one for each tower"):
        model.set_attn_implementation(value)


def test_sdpa_is_exported_with_dynamic_lengths(make_wavlm):
    model = make_wavlm("wavlm-base", "sdpa")
    tower, (batch, _) = model.audio_model, batch_of(model, LENGTHS)
    dims, inputs = dict.fromkeys(range(2), torch.export.Dim.AUTO), {"input_values": batch["input_values"]}
    exported = torch.export.export(tower, (), inputs, dynamic_shapes={"input_values": dims}, strict=False)
    longer = torch.randn(2, 24000)
    with torch.no_grad():
        got = exported.module()(input_values=longer).last_hidden_state
        assert (got - tower(longer).last_hidden_state).abs().max() < 1e-5
