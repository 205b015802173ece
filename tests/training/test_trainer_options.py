"""Options of transformers: each is applied, refused with a reason, or without effect on training."""

import dataclasses
import json
import multiprocessing
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import TINY, run_script
from torch.nn import functional as F
from transformers import TrainingArguments

from modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapTrainer
from modeling_gemoclap.evaluation.metrics import war_uar_of_scores
from modeling_gemoclap.objectives.base import AudioCollator
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.speaker_clusters.trainer import SpeakerTrainer
from modeling_gemoclap.objectives.two_stage.trainer import SupConTrainer
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.training.checkpoints import record_files
from modeling_gemoclap.training.trainer_options import REFUSED, REFUSED_ACCELERATOR_FIELDS, refuse_options

# Options that are applied, by the trainers of this package or by transformers.Trainer.
APPLIED = """
output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
warmup_steps warmup_ratio optim optim_args optim_target_modules weight_decay adam_beta1 adam_beta2 adam_epsilon
gradient_accumulation_steps max_grad_norm label_smoothing_factor bf16 fp16 tf32 activation_checkpointing
activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile
torch_compile_backend torch_compile_mode torchdynamo torch_empty_cache_steps eval_strategy eval_steps eval_delay
per_device_eval_batch_size eval_on_start eval_accumulation_steps save_only_model save_strategy save_steps
save_on_each_node save_total_limit load_best_model_at_end metric_for_best_model greater_is_better
restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu no_cuda use_mps_device
accelerator_config dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
dataloader_prefetch_factor dataloader_multiprocessing_context ddp_find_unused_parameters ddp_bucket_cap_mb
ddp_broadcast_buffers ddp_backend ddp_timeout fsdp fsdp_config fsdp_min_num_params
fsdp_transformer_layer_cls_to_wrap deepspeed debug resume_from_checkpoint
""".split()
# Options that do not affect training: logs, trackers, the Hub.
REPORTING = """
logging_strategy logging_steps logging_first_step logging_dir log_level log_level_replica log_on_each_node
disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id skip_memory_metrics
push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision push_to_hub_model_id
push_to_hub_organization push_to_hub_token ray_scope
""".split()
# Options without effect, with the reason.
WITHOUT_EFFECT = {
    "average_tokens_across_devices": "the losses are means over the clips of the global batch",
    "logging_nan_inf_filter": "a training stops at its first loss that is not finite",
    "remove_unused_columns": "the datasets return what the collators read",
    "do_train": "read by transformers' example scripts only",
    "do_eval": "transformers sets it by eval_strategy",
    "local_rank": "set by the launcher",
    "tpu_num_cores": "for TPUs",
    "tpu_metrics_debug": "for TPUs",
    "_n_gpu": "set by transformers; more than one is refused",
}
OTHER_VALUES = {
    "neftune_noise_alpha": 5.0,
    "liger_kernel_config": {"rope": True},
    "past_index": 1,
    "include_num_input_tokens_seen": "all",
    "train_sampling_strategy": "sequential",
    "length_column_name": "frames",
    "label_names": ["labels"],
    "include_for_metrics": ["inputs"],
    "parallelism_config": object(),
    "per_gpu_train_batch_size": 4,
    "per_gpu_eval_batch_size": 4,
    "half_precision_backend": "apex",
    "fp16_backend": "apex",
    "fp16_opt_level": "O2",
    "mp_parameters": "x",
}
FIELDS = {field.name for field in dataclasses.fields(TrainingArguments)}  # of the installed transformers
TRAINERS = [GEmoClapTrainer, ClassifierTrainer, SupConTrainer, SpeakerTrainer]


def arguments_of(tmp_path, **options):
    return GEmoClapTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)


# ---- the table ------------------------------------------------------------------------------------------------------
def test_every_field_of_transformers_is_in_one_table():
    """Fails for a field that a new version of transformers adds, until it is added to a table."""
    tables = [APPLIED, REPORTING, list(WITHOUT_EFFECT), list(REFUSED)]
    known = [name for table in tables for name in table]
    assert len(known) == len(set(known)), "in two tables"
    assert FIELDS - set(known) == set()


def test_defaults_are_accepted(tmp_path):
    for trainer_class in TRAINERS:
        trainer_class.check(arguments_of(tmp_path))
        trainer_class.check(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


@pytest.mark.parametrize("name", sorted(FIELDS & set(REFUSED)))
def test_refused_option_is_reported(tmp_path, name):
    arguments = arguments_of(tmp_path)
    accepted = REFUSED[name].accepted
    value = OTHER_VALUES.get(name, not accepted[0])
    assert value not in accepted
    setattr(arguments, name, value)  # the constructor refuses some values on a CPU
    for trainer_class in TRAINERS:
        with pytest.raises(ValueError, match=f"--{name} .*: .*(leave it out|give )"):
            trainer_class.check(arguments)
    for value in accepted:
        setattr(arguments, name, value)
        refuse_options(arguments)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hub_strategy": "every_save"}, "--hub_strategy every_save: .* give --hub_strategy end"),
        ({"hub_strategy": "all_checkpoints"}, "--hub_strategy all_checkpoints: .* give --hub_strategy end"),
        ({"hub_always_push": True}, "--hub_always_push true: .* leave it out"),
    ],
)
def test_pushes_during_training_are_refused(tmp_path, options, message):
    refuse_options(arguments_of(tmp_path, **options))
    refuse_options(arguments_of(tmp_path, push_to_hub=True))
    with pytest.raises(ValueError, match=message):
        refuse_options(arguments_of(tmp_path, push_to_hub=True, **options))


@pytest.mark.parametrize("name", sorted(REFUSED_ACCELERATOR_FIELDS))
def test_refused_field_of_accelerator_config(tmp_path, name):
    value = not REFUSED_ACCELERATOR_FIELDS[name].accepted[0]
    with pytest.raises(ValueError, match=f"--accelerator_config with {name} {value}"):
        refuse_options(arguments_of(tmp_path, accelerator_config={name: value}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_milestones": [2.0], "lr_scheduler_kwargs": {"num_cycles": 2}}, "--lr_milestones define the schedule"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant true: it cuts the graph"),
        ({"optim_args": "eps=1e-3"}, "--optim_args have no effect with --optimizer adam"),
        ({"optim_target_modules": ["attn"]}, "give --optimizer optim"),
    ],
)
def test_options_that_contradict_others_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        refuse_options(arguments_of(tmp_path, **options))


def test_compute_loss_func_is_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match="compute_loss_func would not be called"):
        GEmoClapTrainer(make_model(), arguments_of(tmp_path), compute_loss_func=lambda *args, **kwargs: 0)


def test_script_refuses_before_writing(tones, tmp_path):
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--neftune_noise_alpha", "5")
    done = run_script("train.py", *TINY, *options, check=False)
    assert done.returncode == 1 and "train.py: --neftune_noise_alpha 5.0: " in done.stderr
    assert not (tmp_path / "run").exists()


# ---- label smoothing ------------------------------------------------------------------------------------------------
def test_label_smoothing_of_the_classifier(make_model, tmp_path):
    model = make_model(model_class=GEmoClapForAudioClassification).train()
    arguments = arguments_of(tmp_path, label_smoothing_factor=0.3)
    trainer = ClassifierTrainer(model, arguments)
    labels = torch.tensor([0, 2, -1, 1])
    batch = {"input_features": torch.randn(4, 40, 16), "audio_attention_mask": torch.ones(4, 40).long()}
    loss, outputs = trainer.compute_loss(model, {**batch, "emotion_labels": labels}, return_outputs=True)
    log = outputs.logits.log_softmax(1)[[0, 1, 3]]
    correct = -log[torch.arange(3), labels[[0, 1, 3]]]
    by_hand = (0.7 * correct - 0.3 * log.mean(1)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss.item() != pytest.approx(correct.mean().item(), rel=1e-3)
    model.eval()
    loss, outputs = trainer.compute_loss(model, {**batch, "emotion_labels": labels}, return_outputs=True)
    assert loss.item() == pytest.approx(F.cross_entropy(outputs.logits, labels, ignore_index=-1).item(), rel=1e-5)


@pytest.mark.parametrize("trainer_class", [GEmoClapTrainer, SupConTrainer, SpeakerTrainer])
def test_label_smoothing_is_refused_without_cross_entropy(tmp_path, trainer_class):
    with pytest.raises(ValueError, match="label_smoothing_factor 0.1: .* is not trained by cross-entropy"):
        trainer_class.check(arguments_of(tmp_path, label_smoothing_factor=0.1))


def test_label_smoothing_has_a_range(tmp_path):
    for factor in (-0.1, 1.0):
        with pytest.raises(ValueError, match="must be at least 0 and below 1"):
            ClassifierTrainer.check(arguments_of(tmp_path, label_smoothing_factor=factor))


# ---- batches without a comparison -----------------------------------------------------------------------------------
class Clips(torch.utils.data.Dataset):
    """Noise with given labels."""

    groups = None

    def __init__(self, emotions, genders=None):
        self.emotion_labels, self.gender_labels = emotions, genders or [0] * len(emotions)

    def __len__(self):
        return len(self.emotion_labels)

    def __getitem__(self, index):
        clip = np.random.default_rng(index).standard_normal((40, 16)).astype(np.float32)
        return {"clip": clip, "emotion_label": self.emotion_labels[index], "gender_label": self.gender_labels[index]}


def trainer_on(clips, make_model, make_processor, tmp_path, batch_size, **options):
    model = make_model(**{"objective": "sl", **options})
    processor = make_processor(model)
    arguments = arguments_of(tmp_path, per_device_train_batch_size=batch_size, num_train_epochs=2, save_strategy="no")
    collator = GEmoClapCollator(processor, model.config)
    return GEmoClapTrainer(model, arguments, collator, clips, processing_class=processor)


def test_batches_of_one_clip_are_refused(train, tones, tmp_path):
    for options in ((), ("--contrastive_chunk_size", "1")):
        with pytest.raises(ValueError, match="--per_device_train_batch_size 1 .* give 2 or more"):
            train(
                "--data_dir", tones, "--output_dir", tmp_path / "run", "--per_device_train_batch_size", "1", *options
            )
    assert not (tmp_path / "run").exists()
    arguments = arguments_of(tmp_path, per_device_train_batch_size=1)
    ClassifierTrainer.check(arguments)  # cross-entropy needs only one clip


def test_batches_of_one_clip_are_accepted_with_two_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(GEmoClapTrainingArguments, "world_size", 2)
    GEmoClapTrainer.check(arguments_of(tmp_path, per_device_train_batch_size=1))


def test_last_batch_of_one_clip_is_counted(make_model, make_processor, tmp_path, caplog):
    """Of 17 clips in batches of 16, the last clip of an epoch has no comparison."""
    emotions = [index % 3 for index in range(17)]
    trainer = trainer_on(Clips(emotions), make_model, make_processor, tmp_path, 16)
    with caplog.at_level("WARNING", logger="modeling_gemoclap"):
        trainer.train()
    assert "2 of 4 batches had no comparison and no gradient" in caplog.text
    assert trainer.state.log_history[-1]["batches_without_comparison"] == 2
    caplog.clear()
    trainer = trainer_on(Clips(emotions[:16]), make_model, make_processor, tmp_path, 16)
    trainer.train()
    assert "no comparison" not in caplog.text
    assert "batches_without_comparison" not in trainer.state.log_history[-1]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_no_worker_outlives_a_training(make_model, make_processor, tmp_path, monkeypatch, fails, persistent):
    """Later, only the garbage collector would end it, and torch would wait for five seconds."""
    step, alive = GEmoClapTrainer.training_step, []

    def training_step(trainer, *args, **kwargs):
        alive.extend(multiprocessing.active_children())
        if fails:
            raise KeyboardInterrupt
        return step(trainer, *args, **kwargs)

    monkeypatch.setattr(GEmoClapTrainer, "training_step", training_step)
    trainer = trainer_on(Clips([0, 1, 2, 0]), make_model, make_processor, tmp_path, 2)
    trainer.args.dataloader_num_workers, trainer.args.dataloader_persistent_workers = 1, persistent
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext() as raised:  # it holds the frames, as a notebook
        trainer.train()
    assert bool(raised) == fails and alive and not any(worker.is_alive() for worker in alive)


def test_a_resumed_run_counts_the_batches_before_it(make_model, make_processor, tmp_path):
    """Of 17 clips in batches of 16, one is alone in its batch. The mean loss is that of all steps."""
    clips, found = Clips([index % 3 for index in range(17)]), []
    for point in (None, str(tmp_path / "checkpoint-2")):
        trainer = trainer_on(clips, make_model, make_processor, tmp_path, 16)
        trainer.args.save_strategy, trainer.args.save_steps = "steps", 2
        trainer.train(resume_from_checkpoint=point)
        found.append(trainer.state.log_history[-1])
        assert (trainer.batches, int(trainer.idle_batches)) == (4, 2)
    assert [entry["batches_without_comparison"] for entry in found] == [2, 2]
    assert found[0]["train_loss"] == pytest.approx(found[1]["train_loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("objective", "alpha", "emotions", "genders", "idle"),
    [
        ("emo", 0.9, [0, 0, 0, 0], [0, 1, 0, 1], False),  # one class: its clips attract each other
        ("sl", 0.9, [-1, -1, -1, 0], [0, 1, 0, 1], True),
        ("sl", 0.9, [-1, -1, 1, 0], [0, 1, 0, 1], False),
        ("ml", 0.9, [-1, -1, -1, -1], [0, 1, 0, 1], False),
        ("ml", 1.0, [-1, -1, -1, 0], [0, 1, 0, 1], True),
        ("ml", 0.9, [-1, -1, -1, 0], [-1, -1, 1, -1], True),
    ],
)
def test_batches_without_comparison_have_no_gradient(
    make_model, make_processor, tmp_path, objective, alpha, emotions, genders, idle
):
    """A batch is counted as one without comparison exactly if it has no gradient."""
    clips = Clips(emotions, genders)
    trainer = trainer_on(Clips([0, 1, 2]), make_model, make_processor, tmp_path, 4, objective=objective, alpha=alpha)
    trainer.model.train()
    batch = trainer.data_collator([clips[index] for index in range(4)])
    trainer.compute_loss(trainer.model, batch).backward()
    norm = sum(p.grad.norm().item() for p in trainer.model.audio_model.parameters() if p.grad is not None)
    assert (trainer.batches, bool(trainer.idle_batches)) == (1, idle)
    assert (norm == 0) == idle, norm


def test_training_without_any_comparison_is_refused(make_model, make_processor, tmp_path):
    with pytest.raises(ValueError, match="1 of the 6 training clips can be compared"):
        trainer_on(Clips([-1, -1, 1, -1, -1, -1]), make_model, make_processor, tmp_path, 2)
    gender_only = Clips([-1] * 4, [0, 1, 0, 1])
    trainer_on(gender_only, make_model, make_processor, tmp_path, 2, objective="ml")
    trainer = trainer_on(Clips([0, 1, 2]), make_model, make_processor, tmp_path, 2)
    trainer.train_dataset = Clips([-1] * 5 + [0])
    with pytest.raises(ValueError, match="none of the 3 batches of an epoch has a comparison"):
        trainer.train()


def test_classifier_without_labels_is_refused(make_model, make_processor, tmp_path):
    model = make_model(model_class=GEmoClapForAudioClassification)
    collator = AudioCollator(make_processor(make_model()).feature_extractor)
    arguments = arguments_of(tmp_path, per_device_train_batch_size=2, num_train_epochs=1, save_strategy="epoch")
    with pytest.raises(ValueError, match="none of the 2 batches of an epoch has a comparison"):
        ClassifierTrainer(model, arguments, collator, Clips([-1] * 4)).train()
    assert not list(tmp_path.glob("**/*.safetensors"))
    trainer = ClassifierTrainer(model, arguments, collator, Clips([-1, -1, -1, -1, 1, 2, 0]))
    trainer.train()
    assert int(trainer.idle_batches) <= 2


# ---- choices by an evaluation ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [(), ("--metric_for_best_model", "eval_war")])
def test_best_model_has_the_best_metric(train, tones, tmp_path, options):
    best = ("--load_best_model_at_end", "true", "--eval_strategy", "epoch", "--save_strategy", "epoch")
    run = tmp_path / "run"
    train("--data_dir", tones, "--dev_speakers", "04", "--output_dir", run, "--num_train_epochs", "3", *best, *options)
    state = json.loads((run / "trainer_state.json").read_text())
    name = "eval_war" if options else "eval_uar"
    assert state["best_metric"] == max(entry[name] for entry in state["log_history"] if name in entry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_best_model_at_end": True}, "--metric_for_best_model loss: evaluation does not report it; it reports"),
        ({"load_best_model_at_end": True, "metric_for_best_model": "f1"}, "f1: evaluation does not .* uar, war"),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, "--metric_for_best_model loss"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "uar"},
            "uar is better when it rises, but the mode of the schedule is 'min': give --lr_scheduler_kwargs",
        ),
    ],
)
def test_metric_that_evaluation_does_not_report_is_refused(make_model, tmp_path, options, message):
    """Refused before training, also with `transformers.TrainingArguments`."""
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", **options}
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    evaluation = {"eval_dataset": Clips([0, 1, 2]), "compute_metrics": war_uar_of_scores}
    with pytest.raises(ValueError, match=message):
        GEmoClapTrainer(make_model(), arguments, **evaluation)
    with pytest.raises(ValueError, match="needs compute_metrics"):
        GEmoClapTrainer(make_model(), arguments, **(evaluation | {"compute_metrics": None}))


def test_custom_metrics_can_be_chosen(make_model, tmp_path):
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, metric_for_best_model="custom", **options)
    clips = Clips([0, 1, 2])
    for compute_metrics in (lambda prediction: {"custom": len(prediction.label_ids)}, lambda prediction: prediction.x):
        GEmoClapTrainer(make_model(), arguments, eval_dataset=clips, compute_metrics=compute_metrics)


def test_metric_that_is_not_finite_is_refused(make_model, tmp_path):
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    evaluation = {"eval_dataset": Clips([0, 1, 2]), "compute_metrics": war_uar_of_scores}
    trainer = GEmoClapTrainer(make_model(), arguments_of(tmp_path, **options), **evaluation)
    assert trainer._determine_best_metric({"eval_uar": 0.3, "eval_war": float("nan")}, None)
    with pytest.raises(ValueError, match="uar of the development clips is nan"):
        trainer._determine_best_metric({"eval_uar": float("nan")}, None)


@pytest.mark.parametrize("option", [("--eval_strategy", "epoch"), ("--eval_on_start", "true")])
def test_evaluation_without_development_clips_is_refused(train, tones, make_model, tmp_path, option):
    with pytest.raises(ValueError, match=f"{option[0]}.*there are no development clips"):
        train("--data_dir", tones, "--output_dir", tmp_path / "run", *option)
    assert not (tmp_path / "run").exists()
    arguments = arguments_of(tmp_path, **{option[0][2:]: option[1] if option[1] == "epoch" else True})
    with pytest.raises(ValueError, match="in Python: eval_dataset"):
        GEmoClapTrainer(make_model(), arguments)
    with pytest.raises(ValueError, match="predicts no emotion to evaluate"):
        SupConTrainer.check(arguments)


# ---- resuming -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def interrupted(tones, tmp_path_factory):
    """A run with a complete checkpoint after its first epoch."""
    run = tmp_path_factory.mktemp("runs") / "run"
    options = ("--data_dir", tones, "--output_dir", run, "--num_train_epochs", "2", "--save_strategy", "epoch")
    run_script("train.py", *TINY, *options)
    return run


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("optimizer.pt", "because the optimizer state is missing. A checkpoint of --save_only_model"),
        ("scheduler.pt", "because scheduler.pt is missing"),
        ("rng_state.pth", "because rng_state.pth is missing"),
        ("trainer_state.json", "because trainer_state.json is missing"),
        ("another number of processes", "rng_state.pth is missing; it was saved by 2 processes"),
    ],
)
def test_incomplete_checkpoint_is_refused(train, tones, interrupted, tmp_path, missing, message):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    [checkpoint] = [path for path in run.glob("checkpoint-*") if path.name == "checkpoint-4"]
    if missing == "another number of processes":
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
        (checkpoint / "rng_state_1.pth").write_bytes(b"")
    else:
        (checkpoint / missing).unlink()
    options = ("--data_dir", tones, "--output_dir", run, "--num_train_epochs", "2")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        train(*options, "--resume_from_checkpoint", checkpoint)
    assert str(checkpoint) in str(error.value)


def test_checkpoint_of_save_only_model_is_refused(tones, tmp_path):
    run = tmp_path / "run"
    options = ("--data_dir", tones, "--output_dir", run, "--num_train_epochs", "1", "--save_strategy", "epoch")
    run_script("train.py", *TINY, *options, "--save_only_model", "true")
    done = run_script("train.py", *TINY, *options, "--resume_from_checkpoint", "true", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    missing = "rng_state.pth, scheduler.pt, the optimizer state are missing"
    assert f"training cannot be resumed from it, because {missing}" in done.stderr


def test_newest_checkpoint_is_checked_in_python(make_model, make_processor, tmp_path):
    trainer = trainer_on(Clips([0, 1, 2, 0]), make_model, make_processor, tmp_path, 2)
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    trainer.state.save_to_json(checkpoint / "trainer_state.json")
    with pytest.raises(ValueError, match="checkpoint-1 has no checkpoint_files.json: an earlier version wrote it"):
        trainer.train(resume_from_checkpoint=True)
    (checkpoint / "checkpoint_files.json").write_text('{"files": null}')
    with pytest.raises(ValueError, match="has no complete checkpoint to resume from"):
        trainer.train(resume_from_checkpoint=True)
    record_files(checkpoint)
    with pytest.raises(ValueError, match="checkpoint-1: training cannot be resumed from it, because rng_state.pth"):
        trainer.train(resume_from_checkpoint=True)
