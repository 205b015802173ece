"""Fine-tuning: freezing, LoRA, layer-wise rates, gradient checkpointing, SpecAugment, and resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from conftest import RATE, ROOT, batch_of, load_script, text_config
from families import AUDIO
from safetensors.torch import load_file

from modeling_gemoclap import GEmoClapModel, GEmoClapProcessor
from modeling_gemoclap.encoding_gemoclap import ignores_padding
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer
from modeling_gemoclap.towers_gemoclap import transformer_layers
from modeling_gemoclap.training.checkpoints import FILES
from modeling_gemoclap.training.lora import add_lora, load_adapter, save_adapter
from modeling_gemoclap.training.optimizer import layerwise_groups

PRETRAINED = [name for name in AUDIO if name != "compact"]


def loss_of(model, audio):
    count = len(next(iter(audio.values())))
    torch.manual_seed(5)
    texts = {"input_ids": torch.randint(5, 300, (count, 6)), "attention_mask": torch.ones(count, 6).long()}
    labels = {"emotion_labels": torch.arange(count) % 3, "gender_labels": torch.arange(count) % 2}
    return model(**audio, **texts, **labels).loss


def noise_batch(family, tmp_path, seconds=(0.4, 0.9, 1.3)):
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal(int(s * RATE)).astype(np.float32) for s in seconds]
    return AUDIO[family].small_extractor(tmp_path)([{"array": clip, "sampling_rate": RATE} for clip in clips])


def trainable(model):
    """Names of the parameters that are trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# ---- freezing -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", AUDIO)
def test_freezing(make_model, family, tmp_path):
    audio = noise_batch(family, tmp_path)
    all_names = trainable(make_model(family))
    model = make_model(family).train()
    model.freeze_feature_encoder()
    frozen = all_names - trainable(model)
    assert frozen and all(name.startswith("audio_model.") for name in frozen)
    assert not any("layers.0" in name and "conv" not in name for name in frozen)
    model.unfreeze_last_n_layers(1)
    name, layers = transformer_layers(model.audio_model)
    unfrozen = {key for key in trainable(model) if key.startswith("audio_model.")}
    assert unfrozen and all(f"audio_model.{name}.{len(layers) - 1}." in key for key in unfrozen)
    model.freeze_text_encoder()
    loss_of(model, audio).backward()
    assert {key for key, p in model.named_parameters() if p.grad is not None} == trainable(model)
    model.freeze_audio_encoder()
    assert not any(key.startswith(("audio_model", "text_model")) for key in trainable(model)) and trainable(model)
    with pytest.raises(ValueError, match="has 2 layers"):
        model.unfreeze_last_n_layers(3)


def test_frozen_tower_has_no_graph(make_model):
    model = make_model("wav2vec2-base").train()
    model.freeze_audio_encoder()
    audio, _ = batch_of(model, [8000, 8000])
    assert not model.audio_model(audio["input_values"]).last_hidden_state.requires_grad
    loss_of(model, audio).backward()


def test_layerwise_rates(make_model):
    model = make_model("wavlm-large")
    names = {id(p): name for name, p in model.named_parameters()}
    groups = layerwise_groups(model, 1.0, 0.5, 0.1, {"audio_model.encoder.layers.0.attention.q_proj.weight"})
    rates = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert set(rates) == trainable(model)
    assert rates["audio_projection.linear1.weight"] == rates["audio_logit_scale"] == (1.0, 0.0)
    assert rates["audio_model.encoder.layers.1.attention.q_proj.weight"] == (0.5, 0.0)
    assert rates["audio_model.encoder.layers.0.attention.q_proj.weight"] == (0.25, 0.1)
    assert rates["audio_model.feature_extractor.conv_layers.0.conv.weight"] == (0.125, 0.0)
    assert rates["text_model.encoder.layer.0.attention.self.query.weight"] == (0.5, 0.0)
    assert rates["text_model.embeddings.word_embeddings.weight"] == (0.25, 0.0)
    with pytest.raises(ValueError, match="layerwise_lr_decay=1.5"):
        layerwise_groups(model, 1.0, 1.5, 0.0, set())


# ---- gradient checkpointing, SpecAugment, layer drop ----------------------------------------------------------------
@pytest.mark.parametrize("family", AUDIO)
def test_gradient_checkpointing_changes_no_gradient(make_model, family, tmp_path):
    audio = noise_batch(family, tmp_path)
    plain, checkpointed = make_model(family).train(), make_model(family).train()
    checkpointed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert checkpointed.is_gradient_checkpointing
    calls = Counter()
    _, layers = transformer_layers(checkpointed.audio_model)
    for part in (module for module in layers[0].modules() if isinstance(module, torch.nn.Linear)):
        part.register_forward_pre_hook(lambda part, _: calls.update([part]))
    for model in (plain, checkpointed):
        loss_of(model, audio).backward()
    passes = 1 if ignores_padding(checkpointed.config.audio_config) else 3  # three lengths
    assert max(calls.values()) == 2 * passes  # forward, and again for the gradient
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert a.grad is None if b.grad is None else torch.allclose(a.grad, b.grad, atol=1e-6), name


@pytest.mark.parametrize("seconds", [(0.15,), (0.5,), (0.5, 0.15), (1.5, 0.2)])
@pytest.mark.parametrize("family", [name for name in PRETRAINED if name not in ("whisper", "ast")])
def test_spec_augment_of_short_clips(make_model, family, seconds, tmp_path):
    masks = {"apply_spec_augment": True, "mask_time_prob": 0.3, "mask_time_length": 40, "mask_feature_prob": 0.3}
    audio_fields = {**masks, "mask_feature_length": 4}
    model = make_model(family, audio=audio_fields).train()
    audio = noise_batch(family, tmp_path, seconds)
    assert model.get_audio_features(**audio).isfinite().all()
    loss_of(model, audio).backward()
    if max(seconds) > 1:  # clips that are long enough are masked
        np.random.seed(0)
        first = model.get_audio_features(**audio)
        assert not torch.allclose(first, model.get_audio_features(**audio), atol=1e-5)


@pytest.mark.parametrize("family", ["wavlm-large", "hubert-base", "data2vec-large", "whisper", "compact"])
def test_layer_drop(make_model, family, tmp_path):
    field = "encoder_layerdrop" if family == "whisper" else "layerdrop"
    audio = noise_batch(family, tmp_path)
    model = make_model(family, audio={field: 0.5}).train()
    torch.manual_seed(0)
    outputs = {tuple(model.get_audio_features(**audio)[0].detach().mul(1e4).round().tolist()) for _ in range(20)}
    assert len(outputs) == (2 if family.startswith("wavlm") else 4)  # of two layers; WavLM keeps its first
    with torch.no_grad():
        model.eval()
        assert torch.equal(model.get_audio_features(**audio), model.get_audio_features(**audio))
    with pytest.raises(ValueError, match="layerdrop"):
        make_model(family, audio={field: 0.5}, use_weighted_layer_sum=True)


# ---- LoRA -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def towers(tmp_path):
    """Creates two small pretrained encoders in the format of the Hub."""

    def make(family="hubert-base", **fields):
        torch.manual_seed(3)
        model = transformers.AutoModel.from_config(AUDIO[family].config(small=True, **fields))
        model.save_pretrained(tmp_path / "audio-encoder")
        AUDIO[family].save_extractor(tmp_path / "audio-encoder")
        transformers.RobertaModel(text_config()).save_pretrained(tmp_path / "text-encoder")
        from modeling_gemoclap import GEmoClapConfig

        build_tokenizer(GEmoClapConfig(emotions=["angry", "happy", "sad"])).save_pretrained(tmp_path / "text-encoder")
        return str(tmp_path / "audio-encoder"), str(tmp_path / "text-encoder")

    return make


@pytest.mark.parametrize("family", AUDIO)
def test_every_lora_update_has_a_gradient(make_model, family, tmp_path):
    model = add_lora(make_model(family, pooling="self_attention"), ["audio", "text"], rank=2)
    loss_of(model.train(), noise_batch(family, tmp_path)).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    names = trainable(model)
    for part in ("audio_model", "text_model", "audio_projection", "audio_pooling", "audio_logit_scale"):
        assert any(part in name for name in names), part
    assert all("lora_" in name for name in names if "_model." in name.removeprefix("base_model.model."))


def test_adapter_is_saved_and_loaded(towers, tmp_path):
    import peft

    audio, text = towers()
    fields = {"emotions": ["angry", "happy", "sad"], "projection_dim": 12, "objective": "emo", "pooling": "mean_std"}
    model = add_lora(GEmoClapModel.from_audio_text_pretrained(audio, text, **fields), ["audio"], rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.0 if "scale" in name else 0.2))
        model.audio_logit_scale.fill_(1.25)
    waves = {"input_values": torch.randn(2, 9000)}
    expected = model.eval().get_audio_features(**waves)
    save_adapter(model, tmp_path / "adapter")
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 60_000
    loaded = load_adapter(tmp_path / "adapter", audio, text)
    assert torch.allclose(loaded.get_audio_features(**waves), expected, atol=1e-5)
    assert loaded.audio_logit_scale.item() == 1.25 and loaded.config.pooling == "mean_std"
    base = GEmoClapModel.from_audio_text_pretrained(audio, text, **fields)
    assert not torch.allclose(base.get_audio_features(**waves), expected, atol=1e-2)
    peft_model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.allclose(peft_model.eval().get_audio_features(**waves), expected, atol=1e-5)
    with pytest.raises(ValueError, match="no adapter_config.json"):
        load_adapter(tmp_path, audio, text)
    towers("wavlm-base")
    with pytest.raises(ValueError, match="trained on a 'hubert' audio encoder.*'wavlm'"):
        load_adapter(tmp_path / "adapter", audio, text)


@pytest.fixture
def train(monkeypatch):
    monkeypatch.chdir(ROOT)
    script = load_script("train")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


BASE = ("--per_device_train_batch_size", 12, "--disable_tqdm", "true", "--use_cpu", "--projection_dim", 12)
BASE += ("--learning_rate", "3e-3", "--logging_strategy", "epoch", "--max_seconds", "0.5")


def test_script_with_lora(train, towers, tones, tmp_path):
    audio, text = towers(layerdrop=0.1)
    run = tmp_path / "run"
    options = (*BASE, "--data_dir", tones, "--output_dir", run, "--audio_model", audio, "--text_model", text)
    options += ("--audio_config", '{"num_hidden_layers": 1, "layerdrop": 0.0}', "--use_weighted_layer_sum", "true")
    options += ("--gradient_checkpointing", "true")
    more = ("--lora_towers", "audio", "--lora_rank", 2, "--layerwise_lr_decay", 0.9, "--num_train_epochs", 2)
    train(*options, *more, "--save_strategy", "epoch")
    merged = GEmoClapModel.from_pretrained(run)  # needs neither PEFT nor the adapter
    processor = GEmoClapProcessor.from_pretrained(run)
    inputs = processor(audio=str(tones / "audio/01_sad_0.wav"))
    loaded = load_adapter(run / "adapter", audio, text)
    updates = [v for k, v in load_file(run / "adapter/adapter_model.safetensors").items() if "lora_B" in k]
    assert updates and all(update.abs().sum() > 0 for update in updates)
    assert loaded.config.audio_config.num_hidden_layers == 1
    assert torch.allclose(merged.get_audio_features(**inputs), loaded.get_audio_features(**inputs), atol=1e-5)
    assert merged.audio_logit_scale.item() == loaded.audio_logit_scale.item() != merged.config.logit_scale_init_value
    assert "learnt in training" in (run / "README.md").read_text()
    model_size, adapter_size = (
        (run / name).stat().st_size for name in ("model.safetensors", "adapter/adapter_model.safetensors")
    )
    assert adapter_size < model_size / 2
    assert not (run / "checkpoint-4/model.safetensors").exists()
    for invalid in (("--freeze_text_encoder", "true"), ("--lora_towers", "video"), ("--lora_rank", "0")):
        with pytest.raises(ValueError, match=r"lora_(towers|rank)"):
            train(*options, *more, "--overwrite_output", "true", *invalid)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_script_with_frozen_parts(train, towers, tones, tmp_path, checkpointing):
    audio, text = towers()
    run = tmp_path / "run"
    options = (*BASE, "--data_dir", tones, "--output_dir", run, "--audio_model", audio, "--text_model", text)
    frozen = ("--freeze_text_encoder", "true", "--unfreeze_last_n_layers", 1, "--pooling", "self_attention")
    train(*options, *frozen, "--num_train_epochs", 1, "--gradient_checkpointing", checkpointing)
    initial = GEmoClapModel.from_audio_text_pretrained(audio, text).state_dict()
    changed = {
        name
        for name, value in GEmoClapModel.from_pretrained(run).state_dict().items()
        if name in initial and name.startswith(("audio_model", "text_model")) and not torch.equal(value, initial[name])
    }
    assert changed and all(name.startswith("audio_model.encoder.layers.1.") for name in changed)
    with pytest.raises(ValueError, match="contradict"):
        train(*options, *frozen, "--freeze_audio_encoder", "true", "--overwrite_output", "true")


# ---- resuming a killed run ------------------------------------------------------------------------------------------
def weights(folder):
    return GEmoClapModel.from_pretrained(folder).state_dict()


def kill_after(checkpoint, command, env):
    """Start a training and kill it when a checkpoint is complete."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (checkpoint / FILES).is_file():
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_resuming_without_a_complete_checkpoint_is_refused(train, tones, tmp_path):
    (tmp_path / "run/checkpoint-4").mkdir(parents=True)
    (tmp_path / "run/checkpoint-4/model.safetensors").write_bytes(b"part")
    options = (*BASE, "--data_dir", tones, "--output_dir", tmp_path / "run")
    with pytest.raises(ValueError, match="no complete checkpoint to resume from.*--overwrite_output true"):
        train(*options, "--resume_from_checkpoint", "true")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compact", "pretrained", "lora"])
def test_resumed_run_equals_uninterrupted_run(towers, tones, tmp_path, kind):
    """A run with dropout, SpecAugment, cuts, warps, random templates and a scheduler is killed within an epoch."""
    common = (
        *("--data_dir", tones, "--exclude_speakers", "04", "--use_cpu", "--disable_tqdm", "true"),
        *("--per_device_train_batch_size", 6, "--num_train_epochs", 4, "--lr_scheduler_type", "cosine"),
        *("--warmup_steps", 3, "--learning_rate", "1e-3", "--projection_dropout", 0.2, "--unknown_gender_prob", 0.3),
        *("--save_strategy", "steps", "--save_steps", 4, "--max_seconds", 0.4, "--projection_dim", 16),
        *("--emotion_templates", "this person is feeling {}", "a {} voice"),
    )
    if kind == "compact":
        fields = {"num_mel_bins": 16, "conv_channels": [8, 8], "hidden_size": 16, "num_attention_heads": 2}
        fields |= {"apply_spec_augment": True, "hidden_dropout": 0.2, "layerdrop": 0.2}
        common += ("--audio_config", json.dumps(fields), "--time_warp", 0.1, "--mel_warp", 0.1)
        common += ("--class_balanced_sampling", "true")  # the other kinds shuffle
    else:
        noise = {"hidden_dropout": 0.2, "attention_dropout": 0.1, "layerdrop": 0.2, "apply_spec_augment": True}
        noise |= {
            "mask_time_prob": 0.3,
            "mask_time_length": 4,
            "mask_feature_prob": 0.2,
            "mask_feature_length": 4,
        }
        audio, text = towers(**noise)
        common += ("--audio_model", audio, "--text_model", text)
    if kind == "lora":
        common += ("--lora_towers", "audio", "text", "--lora_rank", 2, "--lora_dropout", 0.1)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", *map(str, common)]
    for run, resume in (("complete", ()), ("killed", None), ("killed", ("--resume_from_checkpoint", "true"))):
        words = [*command, "--output_dir", str(tmp_path / run)]
        if resume is None:  # six steps an epoch: the checkpoints of steps 8 and 16 are within the second and third
            kill_after(tmp_path / "killed/checkpoint-8", words, env)
            assert not (tmp_path / "killed/model.safetensors").exists(), "the run ended before it was killed"
            partial = tmp_path / "killed/checkpoint-999"  # a checkpoint of a run that is killed while it saves
            partial.mkdir()
            (partial / "model.safetensors").write_bytes(b"part")
            continue
        done = subprocess.run([*words, *resume], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "checkpoint-999 is incomplete and is ignored" in done.stderr
    first, second = weights(tmp_path / "complete"), weights(tmp_path / "killed")
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = json.loads((tmp_path / "killed/trainer_state.json").read_text())
    assert state["global_step"] == 24
