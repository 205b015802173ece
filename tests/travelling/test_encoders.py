"""All families of encoders: combinations of the paper, batch independence, pretrained weights, invalid checkpoints."""

import itertools
import json
import re

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
    GEmoClapForAudioClassification,
    GEmoClapModel,
    GEmoClapProcessor,
)
from modeling_gemoclap.encoding_gemoclap import FIXED_LENGTH, encode_frames, ignores_padding
from modeling_gemoclap.towers_gemoclap import build_audio_tower, load_complete_model

EMOTIONS = ["angry", "happy", "sad"]


def noise(count, seed=0, shortest=0.15, longest=1.9):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(int(s * RATE)).astype(np.float32) for s in rng.uniform(shortest, longest, count)]


def prompts(count):
    return {"input_ids": torch.randint(5, 300, (count, 7)), "attention_mask": torch.ones(count, 7, dtype=torch.long)}


def learns(model, audio):
    """Run a training step; all trainable parameters have a gradient."""
    count = len(next(iter(audio.values())))
    labels = {"emotion_labels": torch.arange(count) % 3, "gender_labels": torch.arange(count) % 2}
    texts = prompts(count)
    if model.config.objective == "ml":
        texts |= {f"gender_{name}": value for name, value in prompts(count).items()}
    output = model.train()(**audio, **texts, **labels)
    output.loss.backward()
    assert output.loss.isfinite() and output.loss > 0
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if model.config.audio_config.model_type == "wav2vec2-conformer":  # transformers creates but does not use it
        without = [name for name in without if "pos_conv_embed" not in name]
    assert without == []
    return output


@pytest.mark.parametrize(("family", "objective"), itertools.product(PAPER, ("emo", "ml", "sl")))
def test_twelve_combinations_of_the_paper(make_model, family, objective):
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
    """A cache of one model and extractor for each family."""
    cache = {}

    def get(family, pooling="mean"):
        if (family, pooling) not in cache:
            torch.manual_seed(0)
            towers = {"audio_config": audio_config(family), "text_config": text_config()}
            model = GEmoClapModel(GEmoClapConfig(**towers, projection_dim=12, pooling=pooling)).eval()
            for parameter in model.audio_model.parameters():  # larger than initial values
                torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
            cache[family, pooling] = model, AUDIO[family].small_extractor(tmp_path_factory.mktemp(family))
        return cache[family, pooling]

    return get


@pytest.mark.parametrize("family", AUDIO)
@settings(max_examples=10, deadline=None)
@given(samples=st.lists(st.integers(1600, 32000), min_size=1, max_size=5), seed=st.integers(0, 99), data=st.data())
def test_embeddings_are_independent_of_the_batch(built, family, samples, seed, data):
    model, extractor = built(family)
    rng = np.random.default_rng(seed)
    waves = [{"array": rng.standard_normal(n).astype(np.float32), "sampling_rate": RATE} for n in samples]
    order = data.draw(st.permutations(range(len(waves))))
    with torch.no_grad():
        alone = torch.cat([model.get_audio_features(**extractor(wave)) for wave in waves])
        batch = extractor([waves[index] for index in order])
        together = model.get_audio_features(**batch)
        if family not in ("whisper", "ast"):  # additional padding with arbitrary values
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
def test_unpadded_frames_equal_those_of_transformers(family, tmp_path):
    torch.manual_seed(0)
    config = audio_config(family)
    plain = transformers.AutoModel.from_config(config).eval()
    plain = plain.get_encoder() if config.is_encoder_decoder else plain
    tower = build_audio_tower(config).eval()
    tower.load_state_dict(plain.state_dict())  # strict: the names are equal
    extractor = AUDIO[family].small_extractor(tmp_path)
    inputs = extractor({"array": noise(1)[0], "sampling_rate": RATE})[extractor.input_name]
    with torch.no_grad():
        expected = plain(inputs).last_hidden_state
        assert (tower(inputs).last_hidden_state - expected).abs().max() < 1e-5
        if config.model_type not in FIXED_LENGTH and ignores_padding(config):
            mask = torch.ones(inputs.shape[:2], dtype=torch.long)
            assert (encode_frames(tower, inputs, mask)[0][-1] - expected).abs().max() < 1e-5


def test_plain_transformers_fails_the_independence_test(built):
    """The error of plain transformers with padding and mask far exceeds the tolerance of the tests above."""
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


def test_pooling_equals_a_direct_computation(make_model):
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


def test_weighted_layer_sum_requires_equal_frame_rates(make_model):
    model = make_model("sew", use_weighted_layer_sum=True)
    with pytest.raises(ValueError, match="the frame rate of the layers of a 'sew' model differs"):
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
    """Save a checkpoint in one of the formats of the Hub."""
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
def test_all_weights_of_pretrained_audio_towers_are_loaded(family, form, tmp_path, text_folder):
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
    weights, loaded = source.state_dict(), model.audio_model.state_dict()
    assert set(loaded) == set(weights)
    assert all(torch.equal(weights[name], loaded[name]) for name in loaded)
    model.save_pretrained(tmp_path / "both")
    again = GEmoClapModel.from_pretrained(tmp_path / "both").state_dict()
    assert set(again) == set(model.state_dict())
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("form", ["safetensors", "sharded", BIN])
@pytest.mark.parametrize("text", TEXT)
def test_all_weights_of_pretrained_text_towers_are_loaded(text, form, tmp_path):
    torch.manual_seed(1)
    source_of("hubert-base").save_pretrained(tmp_path / "audio")
    source = transformers.AutoModel.from_config(text_config(text))
    save_as(source, tmp_path / "text", form)
    model = GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), str(tmp_path / "text"))
    weights, loaded = source.state_dict(), model.text_model.state_dict()
    assert {name for name in weights if name not in loaded} == {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(weights[name], loaded[name]) for name in loaded)


def test_half_precision_checkpoints_are_loaded_in_float32(tmp_path, text_folder):
    source_of("whisper").half().save_pretrained(tmp_path / "audio")
    model = GEmoClapModel.from_audio_text_pretrained(str(tmp_path / "audio"), text_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    both = str(tmp_path / "audio"), text_folder
    half = GEmoClapModel.from_audio_text_pretrained(*both, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="the same dtype"):
        GEmoClapModel.from_audio_text_pretrained(*both, audio_dtype=torch.float16)


# ---- invalid checkpoints --------------------------------------------------------------------------------------------
def join(audio, text):
    return GEmoClapModel.from_audio_text_pretrained(str(audio), str(text))


def test_models_that_are_not_encoders_are_named(tmp_path, text_folder):
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
def test_weights_of_other_shapes_are_refused(broken, tmp_path, text_folder):
    source_of("hubert-large").save_pretrained(tmp_path / "audio")
    path = tmp_path / broken / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": 32}))
    with pytest.raises(ValueError, match=rf"{broken}: the shapes of the weights do not match config.json"):
        join(tmp_path / "audio", text_folder)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"hidden_size": 128_000, "intermediate_size": 128_000}, r"\d+ million weights"),  # 200 GB
        ({"num_hidden_layers": 10**6}, "1000000 layers"),
        ({"vocab_size": 2**62}, "more values than can be counted"),
    ],
)
@pytest.mark.parametrize("broken", ["text", "both"])
def test_a_configuration_of_a_larger_model_takes_no_memory(broken, fields, size, tmp_path, text_folder):
    """transformers allocates the model before it compares the shapes."""
    source_of("hubert-large").save_pretrained(tmp_path / "audio")
    join(tmp_path / "audio", text_folder).save_pretrained(tmp_path / "both")
    path = tmp_path / broken / "config.json"
    config = json.loads(path.read_text())
    part = config["text_config"] if broken == "both" else config
    part.update(fields)
    path.write_text(json.dumps(config))
    words = f"{broken}: the shapes of the weights do not match config.json, which describes a model of {size}"
    with pytest.raises(ValueError, match=words):
        if broken == "both":
            load_complete_model(GEmoClapModel, str(tmp_path / "both"))
        else:
            join(tmp_path / "audio", text_folder)


def test_a_part_of_the_weights_is_loaded(tmp_path, text_folder):
    """The new text encoder is larger than all files."""
    classifier = GEmoClapForAudioClassification(
        GEmoClapConfig(audio_config=audio_config("compact"), emotions=["a", "b"])
    )
    classifier.save_pretrained(tmp_path / "classifier")
    model, report = GEmoClapModel.from_pretrained(tmp_path / "classifier", output_loading_info=True)
    assert any(name.startswith("text_model") for name in report["missing_keys"])


def test_missing_tokenizer_and_extractor_are_named(tmp_path, text_folder):
    AUDIO["wavlm-base"].save_extractor(tmp_path / "audio")
    with pytest.raises(ValueError, match="text: the text encoder has no tokenizer"):
        GEmoClapProcessor.from_audio_text_pretrained(str(tmp_path / "audio"), text_folder)
    source_of("wavlm-base").save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="bare: the audio encoder has no feature extractor"):
        GEmoClapProcessor.from_audio_text_pretrained(str(tmp_path / "bare"), text_folder)


def test_ast_truncates_with_a_warning(built, caplog):
    _, extractor = built("ast")
    wave = noise(1, shortest=3.5, longest=3.5)[0]
    with caplog.at_level("WARNING"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.utils.logging.get_logger(), "propagate", True)
        long = extractor([{"array": wave, "sampling_rate": RATE}])
    assert any("the audio tower uses only the first 2 s" in message for message in caplog.messages)
    cut = extractor({"array": wave[: 2 * RATE], "sampling_rate": RATE})
    assert torch.equal(long[extractor.input_name], cut[extractor.input_name])
    assert long["audio_attention_mask"].float().mean() >= 0.99  # two seconds have 198 complete frames


def test_valid_frames_of_fixed_length_towers(built):
    """Whisper pools one frame for two valid mel frames, AST pools the patches within the valid frames."""

    wave = {"array": noise(1)[0][: RATE // 2], "sampling_rate": RATE}
    for family, expected in (
        ("whisper", 25),
        ("ast", 11 * 3),
    ):  # AST: (48 - 8) // 4 + 1 patches in time, (16 - 8) // 4 + 1 in frequency
        model, extractor = built(family)
        inputs = extractor(wave)
        with torch.no_grad():
            _, frames = encode_frames(model.audio_model, inputs[extractor.input_name], inputs["audio_attention_mask"])
        assert frames.sum() == expected, family


@pytest.mark.parametrize("tower", ["audio", "text"])
def test_unsupported_dtype_is_named(make_model, monkeypatch, tower):
    model = make_model("wavlm-base").to(torch.float16)

    def lacks(*args, **kwargs):
        raise RuntimeError("\"slow_conv1d\" not implemented for 'Half'")

    monkeypatch.setattr(getattr(model, f"{tower}_model"), "forward", lacks)
    with pytest.raises(ValueError, match=r"cannot run the model in torch.float16.*dtype=torch.float32"):
        model(input_values=torch.randn(1, 8000), **prompts(1))


def test_settings_of_the_extractor_are_saved(tmp_path):
    for family in ("whisper", "wav2vec2-bert", "ast"):
        extractor = AUDIO[family].small_extractor(tmp_path / family)
        extractor.save_pretrained(tmp_path / "saved")
        again = GEmoClapFeatureExtractor.from_pretrained(tmp_path / "saved")
        wave = {"array": noise(1)[0], "sampling_rate": RATE}
        assert torch.equal(extractor(wave)[extractor.input_name], again(wave)[again.input_name])
    with pytest.raises(ValueError, match="own"):
        GEmoClapFeatureExtractor(feature_type="own")
    with pytest.raises(ValueError, match="NoSuchExtractor. is unknown"):
        GEmoClapFeatureExtractor(feature_type="own", own={"feature_extractor_type": "NoSuchExtractor"})


@pytest.mark.parametrize("family", AUDIO)
def test_contrastive_training_learns_with_every_family(family):
    """Clips match the text of their class; equal embeddings of all clips would be a collapse."""
    import learning  # of benchmarks/, which needs the extra `train`

    if family == "wav2vec2-conformer" and transformers.__version__.startswith("4."):
        pytest.xfail("its loss falls, but three clips of twelve are wrong in evaluation mode")
    result = learning.learn(family)
    assert result.uniform == pytest.approx(np.log(3))
    assert result.accuracy >= 0.9 and result.after < result.uniform / 10 < result.before


def test_collapse_is_detected():
    """With identical clips nothing can be learnt, although the loss decreases."""
    import learning

    same = [learning.tones(0)[0][0]] * 12
    result = learning.learn("compact", waves=same)
    assert result.before > result.uniform + 0.1, "the loss falls"
    assert result.after == pytest.approx(result.uniform, abs=0.05) and result.accuracy == pytest.approx(1 / 3)


def test_table_of_encoders_shows_learning():
    table = (ROOT / "docs/encoders.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    head = next(row for row in rows if row[0] == "family")
    column = head.index("learns")
    cells = {row[0]: row[column] for row in rows if row[0] in AUDIO and len(row) == len(head)}
    assert set(cells) == set(AUDIO)
    for cell in cells.values():
        before, after, accuracy = re.fullmatch(r"([\d.]+) → ([\d.]+), (\d+)%, new \d+%", cell).groups()
        assert float(after) < np.log(3) / 10 < float(before) and int(accuracy) >= 90
