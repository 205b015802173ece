"""Every family of encoders: the paper's cells, batch independence, loading of pretrained weights, bad checkpoints."""

import itertools
import json
import re

import learning
import numpy as np
import pytest
import torch
import transformers
from conftest import BIN, RATE, ROOT, audio_config, batch_of, text_config
from families import AUDIO, PAPER, TEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modeling_gemoclap import (
    GEmoClapAudioModel,
    GEmoClapConfig,
    GEmoClapFeatureExtractor,
    GEmoClapModel,
    GEmoClapProcessor,
)
from modeling_gemoclap.towers_gemoclap import FIXED_LENGTH, build_audio_tower, ignores_padding

EMOTIONS = ["angry", "happy", "sad"]


def noise(count, seed=0, shortest=0.15, longest=1.9):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(int(s * RATE)).astype(np.float32) for s in rng.uniform(shortest, longest, count)]


def prompts(count):
    return {"input_ids": torch.randint(5, 300, (count, 7)), "attention_mask": torch.ones(count, 7, dtype=torch.long)}


def learns(model, audio):
    """Forward and backward in training; every parameter that is to learn has a gradient."""
    count = len(next(iter(audio.values())))
    labels = {"emotion_labels": torch.arange(count) % 3, "gender_labels": torch.arange(count) % 2}
    texts = prompts(count)
    if model.config.objective == "ml":
        texts |= {f"gender_{name}": value for name, value in prompts(count).items()}
    output = model.train()(**audio, **texts, **labels)
    output.loss.backward()
    assert output.loss.isfinite() and output.loss > 0
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if model.config.audio_config.model_type == "wav2vec2-conformer":  # transformers makes it and never runs it
        without = [name for name in without if "pos_conv_embed" not in name]
    assert without == []
    return output


@pytest.mark.parametrize(("family", "objective"), itertools.product(PAPER, ("emo", "ml", "sl")))
def test_the_papers_twelve_cells(make_model, family, objective):
    model = make_model(family, objective=objective)
    output = learns(model, batch_of(model, [8000, 12000, 6400])[0])
    assert output.logits_per_audio.shape == (3, 3)
    assert torch.allclose(output.audio_embeds.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert (output.gender_text_embeds is not None) == (objective == "ml")


@pytest.mark.parametrize("family", AUDIO)
def test_from_recordings_to_a_gradient(make_model, family, tmp_path):
    model = make_model(family)
    extractor = AUDIO[family].small_extractor(tmp_path)
    learns(model, extractor([{"array": wave, "sampling_rate": RATE} for wave in noise(3)]))


@pytest.mark.parametrize("text", TEXT)
def test_text_encoders(make_model, text):
    model = make_model(text=text)
    learns(model, batch_of(model, [8000, 12000, 6400])[0])
    assert not any("pooler" in name for name in model.state_dict())
    averaged = make_model(text=text, text_pooling="mean")
    texts = prompts(2)
    with torch.no_grad():
        alone = averaged.get_text_features(texts["input_ids"][:1, :4])
        padded = {**texts, "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1] * 7])}
        assert torch.allclose(averaged.get_text_features(**padded)[:1], alone, atol=1e-5)
        assert not torch.allclose(averaged.get_text_features(**texts)[:1], alone, atol=1e-3)


# ---- batch independence ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One model and extractor a family, kept for many examples."""
    kept = {}

    def get(family, pooling="mean"):
        if (family, pooling) not in kept:
            torch.manual_seed(0)
            towers = {"audio_config": audio_config(family), "text_config": text_config()}
            model = GEmoClapModel(GEmoClapConfig(**towers, projection_dim=12, pooling=pooling)).eval()
            for parameter in model.audio_model.parameters():  # away from the tame values of a fresh start
                torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
            kept[family, pooling] = model, AUDIO[family].small_extractor(tmp_path_factory.mktemp(family))
        return kept[family, pooling]

    return get


@pytest.mark.parametrize("family", AUDIO)
@settings(max_examples=10, deadline=None)
@given(samples=st.lists(st.integers(1600, 32000), min_size=1, max_size=5), seed=st.integers(0, 99), data=st.data())
def test_an_embedding_does_not_depend_on_its_company(built, family, samples, seed, data):
    model, extractor = built(family)
    rng = np.random.default_rng(seed)
    waves = [{"array": rng.standard_normal(n).astype(np.float32), "sampling_rate": RATE} for n in samples]
    order = data.draw(st.permutations(range(len(waves))))
    with torch.no_grad():
        alone = torch.cat([model.get_audio_features(**extractor(wave)) for wave in waves])
        batch = extractor([waves[index] for index in order])
        together = model.get_audio_features(**batch)
        if family not in ("whisper", "ast"):  # more padding than any clip asks for, and garbage in it
            name, mask = extractor.input_name, batch["audio_attention_mask"]
            padding = torch.nn.functional.pad(batch[name], (0, 0) * (batch[name].dim() - 2) + (0, 640), value=3.0)
            mask = torch.nn.functional.pad(mask, (0, 640))
            garbage = model.get_audio_features(**{name: padding, "audio_attention_mask": mask})
            assert (garbage - together).abs().max() < 1e-4
    assert (together - alone[order]).abs().max() < 1e-4


@pytest.mark.parametrize("pooling", ["self_attention", "mean_std"])
@pytest.mark.parametrize("family", ["wavlm-large", "wav2vec2-base", "data2vec-large", "whisper", "ast", "compact"])
def test_other_poolings_ignore_padding(built, family, pooling):
    model, extractor = built(family, pooling)
    waves = [{"array": wave, "sampling_rate": RATE} for wave in noise(4)]
    with torch.no_grad():
        alone = torch.cat([model.get_audio_features(**extractor(wave)) for wave in waves])
        assert (model.get_audio_features(**extractor(waves)) - alone).abs().max() < 1e-4


@pytest.mark.parametrize("family", [name for name in AUDIO if name != "compact"])
def test_unpadded_frames_are_transformers_own(family, tmp_path):
    torch.manual_seed(0)
    config = audio_config(family)
    plain = transformers.AutoModel.from_config(config).eval()
    plain = plain.get_encoder() if config.is_encoder_decoder else plain
    ours = build_audio_tower(config).eval()
    ours.load_state_dict(plain.state_dict())  # strict: every name is where it was
    extractor = AUDIO[family].small_extractor(tmp_path)
    inputs = extractor({"array": noise(1)[0], "sampling_rate": RATE})[extractor.input_name]
    with torch.no_grad():
        expected = plain(inputs).last_hidden_state
        assert (ours(inputs).last_hidden_state - expected).abs().max() < 1e-5
        if config.model_type not in FIXED_LENGTH and ignores_padding(config):
            from modeling_gemoclap.towers_gemoclap import encode_frames

            mask = torch.ones(inputs.shape[:2], dtype=torch.long)
            assert (encode_frames(ours, inputs, mask)[0][-1] - expected).abs().max() < 1e-5


def test_the_measure_would_see_a_leak(built):
    """Plain transformers, padded and masked, is off by far more than the tolerance of the tests above."""
    for family in ("wav2vec2-base", "data2vec-large"):
        model, _ = built(family)
        plain = transformers.AutoModel.from_config(audio_config(family)).eval()
        plain.load_state_dict(model.audio_model.state_dict())
        short, long = (torch.from_numpy(wave)[None] for wave in noise(2))
        short, long = sorted((short, long), key=lambda wave: wave.shape[1])
        padded = torch.nn.functional.pad(short, (0, long.shape[1] - short.shape[1]))
        mask = torch.zeros_like(padded, dtype=torch.long)
        mask[:, : short.shape[1]] = 1
        with torch.no_grad():
            alone = plain(short).last_hidden_state
            leaked = plain(padded, attention_mask=mask).last_hidden_state[:, : alone.shape[1]]
        assert (leaked - alone).abs().max() > 1e-2, family


def test_pooling_is_what_it_says(make_model):
    hidden, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    true = hidden[0, :3]
    pool = {name: make_model(pooling=name).audio_pooling for name in ("mean", "self_attention", "mean_std")}
    assert torch.allclose(pool["mean"]([hidden], mask)[0], true.mean(0), atol=1e-6)
    deviation = true.std(0, correction=0)
    assert torch.allclose(pool["mean_std"]([hidden], mask)[0], torch.cat([true.mean(0), deviation]), atol=1e-5)
    weights = (true @ pool["self_attention"].attention.weight[0]).softmax(0)
    assert torch.allclose(pool["self_attention"]([hidden], mask)[0], weights @ true, atol=1e-6)
    layers = make_model(use_weighted_layer_sum=True).audio_pooling
    states = [torch.randn(2, 5, 16) for _ in range(3)]
    with torch.no_grad():
        layers.layer_weights.copy_(torch.tensor([0.0, 1.0, 2.0]))
    expected = sum(w * state for w, state in zip(torch.tensor([0.0, 1.0, 2.0]).softmax(0), states, strict=True))
    assert torch.allclose(layers(states, None), expected.mean(1), atol=1e-6)


def test_weighted_layer_sum_is_refused_where_layers_have_another_rate(make_model):
    model = make_model("sew", use_weighted_layer_sum=True)
    with pytest.raises(ValueError, match="'sew' model run at another rate"):
        model.get_audio_features(torch.randn(1, 8000))


@pytest.mark.parametrize("family", [name for name in AUDIO if name != "sew"])
def test_weighted_layer_sum(make_model, family, tmp_path):
    more = {"encoder_layerdrop": 0.0} if family == "whisper" else {}
    model = make_model(family, use_weighted_layer_sum=True, audio=more)
    waves = [{"array": wave, "sampling_rate": RATE} for wave in noise(3)]
    extractor = AUDIO[family].small_extractor(tmp_path)
    learns(model, extractor(waves))
    assert model.audio_pooling.layer_weights.shape == (3,) and model.audio_pooling.layer_weights.grad.abs().sum() > 0
    with torch.no_grad():
        alone = torch.cat([model.eval().get_audio_features(**extractor(wave)) for wave in waves])
        assert (model.get_audio_features(**extractor(waves)) - alone).abs().max() < 1e-4


# ---- pretrained weights ---------------------------------------------------------------------------------------------
def source_of(family):
    torch.manual_seed(1)
    config = audio_config(family)
    return GEmoClapAudioModel(config) if family == "compact" else transformers.AutoModel.from_config(config)


def save_as(model, folder, form):
    """A checkpoint in one of the Hub's forms."""
    model.save_pretrained(folder, max_shard_size="8KB" if form == "sharded" else "5GB")
    if form == "sharded":
        assert (folder / "model.safetensors.index.json").is_file()
    if form == "bin":
        weights = load_file(folder / "model.safetensors")
        new, old = "conv.parametrizations.weight.original", "conv.weight_"
        weights = {k.replace(f"{new}0", f"{old}g").replace(f"{new}1", f"{old}v"): v for k, v in weights.items()}
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        return any(name.endswith("weight_g") for name in weights)


@pytest.fixture
def text_folder(tmp_path):
    torch.manual_seed(2)
    transformers.RobertaModel(text_config()).save_pretrained(tmp_path / "text")
    return str(tmp_path / "text")


@pytest.mark.parametrize("form", ["safetensors", "sharded", BIN])
@pytest.mark.parametrize("family", AUDIO)
def test_pretrained_towers_are_taken_over_whole(family, form, tmp_path, text_folder):
    source = source_of(family)
    old_names = save_as(source, tmp_path / "audio", form)
    assert (
        form != "bin"
        or old_names == hasattr(getattr(source, "encoder", None), "pos_conv_embed")
        or "data2vec" in family
    )
    model = GEmoClapModel.from_audio_text_pretrained(
        str(tmp_path / "audio"), text_folder, projection_dim=8, objective="emo"
    )
    assert model.config.objective == "emo" and model.config.projection_dim == 8
    source = source.get_encoder() if source.config.is_encoder_decoder else source
    weights, ours = source.state_dict(), model.audio_model.state_dict()
    assert set(ours) == set(weights)
    assert all(torch.equal(weights[name], ours[name]) for name in ours)
    model.save_pretrained(tmp_path / "both")
    again = GEmoClapModel.from_pretrained(tmp_path / "both").state_dict()
    assert set(again) == set(model.state_dict())
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("form", ["safetensors", "sharded", BIN])
@pytest.mark.parametrize("text", TEXT)
def test_pretrained_texts_are_taken_over_whole(text, form, tmp_path):
    torch.manual_seed(1)
    source_of("hubert-base").save_pretrained(tmp_path / "audio")
    source = transformers.AutoModel.from_config(text_config(text))
    save_as(source, tmp_path / "text", form)
    model = GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), str(tmp_path / "text"))
    weights, ours = source.state_dict(), model.text_model.state_dict()
    assert {name for name in weights if name not in ours} == {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(weights[name], ours[name]) for name in ours)


def test_half_precision_on_the_hub_becomes_float32(tmp_path, text_folder):
    source_of("whisper").half().save_pretrained(tmp_path / "audio")
    model = GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), text_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    both = str(tmp_path / "audio"), text_folder
    half = GEmoClapModel.from_audio_text_pretrained(*both, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="one precision"):
        GEmoClapModel.from_audio_text_pretrained(*both, audio_dtype=torch.float16)


# ---- bad checkpoints ------------------------------------------------------------------------------------------------
def join(audio, text):
    return GEmoClapModel.from_audio_text_pretrained(str(audio), str(text))


def test_a_model_of_another_kind_is_named(tmp_path, text_folder):
    source_of("wavlm-base").save_pretrained(tmp_path / "audio")
    with pytest.raises(ValueError, match="'roberta' model, not an audio encoder"):
        join(text_folder, text_folder)
    with pytest.raises(ValueError, match="'wavlm' model, not a text encoder"):
        join(tmp_path / "audio", tmp_path / "audio")
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="'vit' model, not an audio encoder"):
        join(tmp_path / "vit", text_folder)
    with pytest.raises(ValueError, match="'vit' model, not an audio encoder"):
        GEmoClapModel(GEmoClapConfig(audio_config=transformers.ViTConfig()))


@pytest.mark.parametrize("family", ["wavlm-large", "wav2vec2-base", "whisper", "compact"])
def test_missing_weights_are_named(family, tmp_path, text_folder):
    source_of(family).save_pretrained(tmp_path / "audio")
    weights = load_file(tmp_path / "audio/model.safetensors")
    lost = next(name for name in weights if "layers.1" in name and "bias" in name and "decoder" not in name)
    save_file({k: v for k, v in weights.items() if k != lost}, tmp_path / "audio/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"audio lacks 1 of the weights.*{lost.removeprefix('encoder.')}"):
        join(tmp_path / "audio", text_folder)
    (tmp_path / "audio/model.safetensors").unlink()
    with pytest.raises(OSError, match="audio"):
        join(tmp_path / "audio", text_folder)


@pytest.mark.parametrize("broken", ["audio", "text"])
def test_another_size_than_the_configuration_says(broken, tmp_path, text_folder):
    source_of("hubert-large").save_pretrained(tmp_path / "audio")
    path = tmp_path / broken / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": 32}))
    with pytest.raises(ValueError, match=rf"{broken}: the weights have other sizes than config.json"):
        join(tmp_path / "audio", text_folder)


def test_missing_tokenizer_and_extractor_are_named(tmp_path, text_folder):
    AUDIO["wavlm-base"].save_extractor(tmp_path / "audio")
    with pytest.raises(ValueError, match="text: no tokenizer beside the text encoder"):
        GEmoClapProcessor.from_audio_text_pretrained(str(tmp_path / "audio"), text_folder)
    source_of("wavlm-base").save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="bare: no feature extractor beside"):
        GEmoClapProcessor.from_audio_text_pretrained(str(tmp_path / "bare"), text_folder)


@pytest.mark.parametrize(("family", "seconds"), [("whisper", 3.0), ("ast", 3.5)])
def test_a_fixed_length_cuts_and_says_so(built, family, seconds, caplog):
    _, extractor = built(family)
    wave = noise(1, shortest=seconds, longest=seconds)[0]
    with caplog.at_level("WARNING"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.utils.logging.get_logger(), "propagate", True)
        long = extractor([{"array": wave, "sampling_rate": RATE}])
    assert any("of which the audio tower hears the first 2 s" in message for message in caplog.messages)
    cut = extractor({"array": wave[: 2 * RATE], "sampling_rate": RATE})
    assert torch.equal(long[extractor.input_name], cut[extractor.input_name])
    assert long["audio_attention_mask"].float().mean() >= 0.99  # AST: 198 whole frames lie within two seconds


def test_true_frames_of_a_fixed_length(built):
    """Whisper pools half the true mel frames, AST the patches that lie within them."""
    from modeling_gemoclap.towers_gemoclap import encode_frames

    wave = {"array": noise(1)[0][: RATE // 2], "sampling_rate": RATE}
    for family, expected in (
        ("whisper", 25),
        ("ast", 11 * 3),
    ):  # ast: (48 - 8) // 4 + 1 times, (16 - 8) // 4 + 1 bands
        model, extractor = built(family)
        inputs = extractor(wave)
        with torch.no_grad():
            _, frames = encode_frames(model.audio_model, inputs[extractor.input_name], inputs["audio_attention_mask"])
        assert frames.sum() == expected, family


@pytest.mark.parametrize("tower", ["audio", "text"])
def test_half_precision_that_a_device_lacks_is_named(make_model, monkeypatch, tower):
    model = make_model("wavlm-base").to(torch.float16)

    def lacks(*args, **kwargs):
        raise RuntimeError("\"slow_conv1d\" not implemented for 'Half'")

    monkeypatch.setattr(getattr(model, f"{tower}_model"), "forward", lacks)
    with pytest.raises(ValueError, match=r"cannot run the model in torch.float16.*dtype=torch.float32"):
        model(input_values=torch.randn(1, 8000), **prompts(1))


def test_an_extractor_is_saved_with_its_own(tmp_path):
    for family in ("whisper", "wav2vec2-bert", "ast"):
        extractor = AUDIO[family].small_extractor(tmp_path / family)
        extractor.save_pretrained(tmp_path / "saved")
        again = GEmoClapFeatureExtractor.from_pretrained(tmp_path / "saved")
        wave = {"array": noise(1)[0], "sampling_rate": RATE}
        assert torch.equal(extractor(wave)[extractor.input_name], again(wave)[again.input_name])
    with pytest.raises(ValueError, match="own"):
        GEmoClapFeatureExtractor(feature_type="own")
    with pytest.raises(ValueError, match="NoSuchExtractor. is not known"):
        GEmoClapFeatureExtractor(feature_type="own", own={"feature_extractor_type": "NoSuchExtractor"})


@pytest.mark.parametrize("family", AUDIO)
def test_a_contrastive_model_on_every_family_learns(family):
    """Clips find the text of their own class; a divergence as low as the uniform one would be a collapse."""
    found = learning.learn(family)
    assert found.uniform == pytest.approx(np.log(3))
    assert found.accuracy >= 0.9 and found.after < found.uniform / 10 < found.before


def test_a_collapse_is_seen_as_one():
    """Of clips that are all the same nothing can be learnt, however far the loss falls."""
    same = [learning.tones(0)[0][0]] * 12
    found = learning.learn("compact", waves=same)
    assert found.before > found.uniform + 0.1, "the loss falls"
    assert found.after == pytest.approx(found.uniform, abs=0.05) and found.accuracy == pytest.approx(1 / 3)


def test_the_table_of_encoders_shows_learning():
    table = (ROOT / "docs/encoders.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    head = next(row for row in rows if row[0] == "family")
    column = head.index("learns")
    cells = {row[0]: row[column] for row in rows if row[0] in AUDIO and len(row) == len(head)}
    assert set(cells) == set(AUDIO)
    for cell in cells.values():
        before, after, accuracy = re.fullmatch(r"([\d.]+) → ([\d.]+), (\d+)%, new \d+%", cell).groups()
        assert float(after) < np.log(3) / 10 < float(before) and int(accuracy) >= 90
