"""Training stops at the first loss, gradient or weight that is not finite, and names it."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, TONES, TORCHRUN, run_script
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.corpora.manifest import load_corpora
from modeling_gemoclap.objectives.base import AudioCollator
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.objectives.speaker_clusters.trainer import SpeakerTrainer
from modeling_gemoclap.objectives.two_stage.trainer import SupConTrainer
from modeling_gemoclap.runs.calibration import temperature_of
from modeling_gemoclap.training import finite
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.training.finite import FiniteGuard, NotFiniteError, refuse_weights_not_finite

# Run by every process instead of train.py: on one process, the loss is not finite at one step.
FAILING_SCRIPT = """
import os, runpy, sys
import torch
sys.path.insert(0, os.getcwd())
from modeling_gemoclap.objectives.classifier import ClassifierTrainer as Trainer
kind, original = sys.argv[1], Trainer.compute_loss
def compute_loss(self, model, inputs, **kwargs):
    loss = original(self, model, inputs, **kwargs)
    if self.state.global_step == 2 and self.args.process_index == 1:
        return loss * float("nan") if kind == "loss" else loss + float("inf")
    return loss
Trainer.compute_loss = compute_loss
sys.argv = ["train.py", *sys.argv[2:]]
runpy.run_path("train.py", run_name="__main__")
"""


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


@pytest.fixture(scope="module")
def vectors(tones, tmp_path_factory):
    """Speaker embeddings with a cluster for each emotion."""
    corpus, generator = load_corpora([str(tones)]), np.random.default_rng(0)
    names, emotions = (corpus.column(name).to_pylist() for name in ("file_name", "emotion"))
    values = np.stack(
        [np.eye(8)[list(TONES).index(emotion)] + 0.1 * generator.standard_normal(8) for emotion in emotions]
    )
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, file_name=np.array(names), embeddings=values)
    return path


def change_loss(monkeypatch, trainer_class, step, change):
    """Change the loss at a step. Return a list to which each optimizer step adds an item."""
    original, steps = trainer_class.compute_loss, []

    def compute_loss(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        return change(loss) if self.state.global_step == step else loss

    monkeypatch.setattr(trainer_class, "compute_loss", compute_loss)
    optimizer_step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *a, **k: steps.append(1) or optimizer_step(*a, **k))
    return steps


# ---- all four trainers ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("quantity", ["loss", "norm of the gradient"])
@pytest.mark.parametrize(
    "head", ["contrastive", "shards", "chunks", "classifier", "frames", "accumulation", "supcon", "speaker"]
)
def test_every_trainer_stops_before_the_step(head, quantity, train, tones, vectors, trained, tmp_path, monkeypatch):
    options = {
        "contrastive": ("--dataloader_num_workers", "2"),
        "shards": ("--dataloader_num_workers", "1"),
        "chunks": ("--contrastive_chunk_size", "5"),
        "classifier": ("--head", "classifier", "--max_grad_norm", "0"),
        "frames": ("--head", "classifier", "--init_from", trained, "--freeze_audio_encoder", "true"),
        "accumulation": ("--head", "classifier", "--gradient_accumulation_steps", "2"),
        "supcon": ("--head", "supcon", "--per_device_train_batch_size", "8"),
        "speaker": ("--head", "speaker", "--speaker_embeddings", vectors),
    }[head]
    if head == "frames":
        options += ("--cache_frozen_frames", "true")
    trainer_class = {"supcon": SupConTrainer, "speaker": SpeakerTrainer, "contrastive": GEmoClapTrainer}
    trainer_class = trainer_class.get(head, GEmoClapTrainer if head in ("shards", "chunks") else ClassifierTrainer)
    data = tones
    if head == "shards":
        data = tmp_path / "shards"
        run_script("-m", "modeling_gemoclap.corpora.shards", tones, data)
    change = {"loss": lambda loss: loss * float("nan"), "norm of the gradient": _InfiniteGradient.apply}[quantity]
    steps = change_loss(monkeypatch, trainer_class, 2, change)
    run = tmp_path / "run"
    saving = ("--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "1")
    with pytest.raises(NotFiniteError) as error:
        train("--data_dir", data, "--output_dir", run, *options, *saving)
    message = str(error.value)
    assert re.match(rf"step 3 of \d+, in epoch [12]: the {quantity} is (nan|inf)", message)
    assert f"Last good checkpoint: {run / 'checkpoint-2'}." in message
    named = re.search("The clips: (.*)", message)[1].split(", ")
    size = 24 if head == "accumulation" else 8 if head == "supcon" else 12
    assert len(set(named)) == size and all((tones / name).is_file() for name in named)
    assert len(steps) == 2, "the optimizer took no third step"
    assert not list(run.glob("*.safetensors")) and not (run / "checkpoint-3").exists()


def test_only_the_affected_clip_is_named(train, tones, tmp_path, monkeypatch):
    """In a batch of twelve clips, one embedding is not finite."""
    original = GEmoClapModel.forward

    def forward(self, **inputs):
        output = original(self, **inputs)
        index = inputs["audio_attention_mask"].sum(1).argmax()
        if self.training:
            output.audio_embeds = output.audio_embeds.index_fill(0, index, float("nan"))
        return output

    monkeypatch.setattr(GEmoClapModel, "forward", forward)
    with pytest.raises(NotFiniteError, match=r"Last good checkpoint: none.*The clips: audio/\d\d_[a-z]+_3.wav$"):
        train("--data_dir", tones, "--output_dir", tmp_path / "run")


def test_script_reports_divergence_in_one_sentence(tones, tmp_path):
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--learning_rate", "1e36")
    done = run_script("train.py", *TINY, *options, check=False)
    assert done.returncode == 1 and "Trained on" not in done.stdout and "Traceback" not in done.stderr
    assert re.search(r"train.py: step \d of 120, in epoch 1: the (loss|norm of the gradient) is", done.stderr)
    assert not (tmp_path / "run/model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loss", "a loss without a gradient"])
def test_all_processes_stop_together(tones, tmp_path, kind):
    """One of two processes has a loss that is not finite; the gradient of the second kind of loss is finite."""
    (tmp_path / "failing.py").write_text(FAILING_SCRIPT)
    options = (*TINY, "--data_dir", tones, "--output_dir", tmp_path / "run", "--head", "classifier")
    more = ("--per_device_train_batch_size", 6, "--ddp_timeout", 60)
    done = run_script(tmp_path / "failing.py", kind, *options, *more, launcher=TORCHRUN, check=False)
    assert done.returncode != 0 and not (tmp_path / "run/model.safetensors").exists()
    match = re.search(r"train.py: step 3 of 120, in epoch 1: the loss is (nan|inf).*The clips: (.*)", done.stderr)
    named = match[2].removeprefix("process 1: ").split(", ")
    assert len(named) == 6 and all((tones / name).is_file() for name in named), (
        "the clips of the process with that loss"
    )
    assert "Timed out" not in done.stderr and "timeout" not in done.stderr


# ---- weights --------------------------------------------------------------------------------------------------------
def damaged_copy(checkpoint, folder):
    """A copy of a checkpoint with a NaN in one weight of the audio tower."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file() and path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(checkpoint / "model.safetensors")
    name = next(name for name in weights if name.startswith("audio_model") and weights[name].dim() == 2)
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder, name


@pytest.mark.parametrize("head", ["contrastive", "classifier", "frozen"])
def test_damaged_initial_weights_are_named(train, trained, tones, tmp_path, head):
    start, name = damaged_copy(trained, tmp_path / "start")
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--init_from", start)
    options += () if head == "contrastive" else ("--head", "classifier")
    options += ("--freeze_audio_encoder", "true") if head == "frozen" else ()
    with pytest.raises(NotFiniteError, match=rf"weights are not finite before the first step.*{re.escape(name)}"):
        train(*options)
    assert not (tmp_path / "run/model.safetensors").exists()


def test_weights_that_became_infinite_are_not_saved(train, tones, tmp_path, monkeypatch):
    """The last step makes a weight infinite, so that no later loss shows it."""
    step = torch.optim.Adam.step

    def overflow(self, *args, **kwargs):
        step(self, *args, **kwargs)
        self.param_groups[0]["params"][-1].data.view(-1)[0] = float("inf")

    monkeypatch.setattr(torch.optim.Adam, "step", overflow)
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--max_steps", "1")
    for saving in (("--save_strategy", "steps", "--save_steps", "1"), ()):
        with pytest.raises(
            NotFiniteError,
            match=r"not finite after step 1 of 1 and are not saved. Last good checkpoint: none.*learning_rate. The "
            r"clips of the step: audio/\w+.wav, .*\(1\)",
        ):
            train(*options, *saving, "--overwrite_output", "true")
        assert not list((tmp_path / "run").glob("**/*.safetensors"))


def test_prompt_training_and_centring_are_checked(train, tones, tmp_path, monkeypatch):
    """Checks before the first step: the loss of the prompts, and the encoder's output of some clips."""
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run")
    texts, pool = GEmoClapModel.get_text_features, GEmoClapModel.pool_audio
    monkeypatch.setattr(GEmoClapModel, "get_text_features", lambda *a, **k: texts(*a, **k) * float("nan"))
    with pytest.raises(NotFiniteError, match="--prompt_steps: the loss of the prompts is nan at step 1"):
        train(*options, "--prompt_steps", "2")
    monkeypatch.setattr(GEmoClapModel, "pool_audio", lambda *a, **k: pool(*a, **k) / 0)
    with pytest.raises(NotFiniteError, match="not finite for 48 of the 48 clips that the projections are centred on"):
        train(*options, "--overwrite_output", "true")


def test_buffers_may_be_infinite_but_not_nan():
    layer = torch.nn.Linear(2, 2)
    layer.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    refuse_weights_not_finite(layer, "now.")
    layer.mask[0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"now. Affected weights \(1\): mask"):
        refuse_weights_not_finite(layer, "now.")


# ---- half precision -------------------------------------------------------------------------------------------------
def guard_of(scaler=None, precision="no"):
    accelerator = SimpleNamespace(clip_grad_norm_=lambda norm: norm, scaler=scaler, mixed_precision=precision)
    return FiniteGuard(accelerator, None), accelerator


def take_step(guard, accelerator, loss, norm):
    state = SimpleNamespace(global_step=4, max_steps=10, epoch=2.0)
    guard.begin_step([{finite.CLIP_INDEX: torch.tensor([3, -1, 5])}])
    guard.add_loss(torch.tensor(loss))
    accelerator.clip_grad_norm_(torch.tensor(norm))
    guard.on_pre_optimizer_step(SimpleNamespace(device=torch.device("cpu")), state, None)


def test_scaler_may_skip_a_step_whose_gradient_overflows():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(1))  # creates the scale
    guard, accelerator = guard_of(scaler, "fp16")
    take_step(guard, accelerator, 0.5, float("inf"))
    take_step(guard, accelerator, 0.5, float("nan"))
    with pytest.raises(NotFiniteError, match="step 5 of 10, in epoch 3: the loss is nan.*The clips: clip 3, clip 5$"):
        take_step(guard, accelerator, float("nan"), 1.0)
    scaler.update(1.0)
    with pytest.raises(NotFiniteError, match="the norm of the gradient is inf"):
        take_step(guard, accelerator, 0.5, float("inf"))
    for precision in ("no", "bf16"):
        guard, accelerator = guard_of(None, precision)
        take_step(guard, accelerator, 0.5, 1.0)
        with pytest.raises(NotFiniteError, match="the norm of the gradient is inf"):
            take_step(guard, accelerator, 0.5, float("inf"))


# ---- evaluation -----------------------------------------------------------------------------------------------------
class Noise(Dataset):
    """Clips of noise, without names; some are NaN."""

    def __init__(self, bad=()):
        self.bad, self.emotion_labels = bad, [0, 1, 2, 0, 1, 2, 0]

    def __len__(self):
        return 7

    def __getitem__(self, index):
        clip = np.random.default_rng(index).standard_normal((40, 16)).astype(np.float32)
        label = {"emotion_label": self.emotion_labels[index], "gender_label": 0}
        return {"clip": clip * float("nan") if index in self.bad else clip, **label}


@pytest.mark.parametrize("kind", ["contrastive", "classifier"])
def test_logits_that_are_not_finite_are_refused(make_model, make_processor, tmp_path, kind):
    model = make_model(model_class=GEmoClapModel if kind == "contrastive" else GEmoClapForAudioClassification)
    processor = make_processor(make_model())
    arguments = GEmoClapTrainingArguments(output_dir=tmp_path, use_cpu=True, per_device_eval_batch_size=3)
    trainer_class = GEmoClapTrainer if kind == "contrastive" else ClassifierTrainer
    collator = AudioCollator(processor.feature_extractor)
    given = processor if kind == "contrastive" else processor.feature_extractor
    trainer = trainer_class(model, arguments, collator, processing_class=given)
    assert np.isfinite(trainer.predict(Noise()).predictions).all()
    for call in (trainer.predict, trainer.evaluate):
        with pytest.raises(NotFiniteError, match=r"not finite for 2 of 7 clips.*clip 2, clip 5$"):
            call(Noise(bad=(2, 5)))


def test_no_temperature_is_fitted_on_them():
    logits = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="1 of 3 predictions to calibrate on are not finite"):
        temperature_of(logits, torch.tensor([0, 1, 1]))
    assert temperature_of(logits, torch.tensor([0, -1, 0])) is None


def test_damaged_checkpoint_is_not_evaluated(trained, tones, tmp_path):
    checkpoint, _ = damaged_copy(trained, tmp_path / "broken")
    options = ("--model", checkpoint, "--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path / "report")
    done = run_script("evaluate.py", *options, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "evaluate.py: the model's scores are not finite: its weights are damaged" in done.stderr
    assert not os.path.exists(tmp_path / "report/results.json")


def test_checks_do_not_change_weights(train, tones, tmp_path, monkeypatch):
    options = ("--data_dir", tones, "--num_train_epochs", "1", "--head", "classifier")
    train(*options, "--output_dir", tmp_path / "with")
    monkeypatch.setattr(FiniteGuard, "on_pre_optimizer_step", lambda *args, **kwargs: None)
    train(*options, "--output_dir", tmp_path / "without")
    checked, unchecked = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(checked[name], unchecked[name]) for name in checked)
    assert json.loads((tmp_path / "with/trainer_state.json").read_text())["global_step"] == 4
