"""Checks of transformers' options: those without effect or with a wrong effect here are refused with a reason."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import EvalPrediction, SchedulerType, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from ..batching_gemoclap import number_of_cores
from ..command_line.ranges import DROPOUT


@dataclass(frozen=True)
class Refusal:
    """A refused option.

    Args:
        accepted: Accepted values: the default, and other values without effect.
        reason: Why other values are refused, and what to give instead.
    """

    accepted: tuple
    reason: str


_LANGUAGE = "it applies to language models only; leave it out"
_METRICS = "compute_metrics gets the logits and labels of all clips at once; leave it out"
_ORDER = "clips are sampled at random, or with --class_balanced_sampling true; leave it out"
_EVALUATION_DTYPE = (
    "it converts the trained weights, which are then saved in half precision; give --bf16 true, which also evaluates "
    "in half precision"
)
_DEPRECATED = "it is deprecated; "

# By name. An option that the installed transformers does not have is ignored.
REFUSED = {
    "neftune_noise_alpha": Refusal((None, 0), f"it adds noise to token embeddings; {_LANGUAGE}"),
    "use_liger_kernel": Refusal((False,), _LANGUAGE),
    "liger_kernel_config": Refusal((None, {}), _LANGUAGE),
    "use_cache": Refusal((False, None), _LANGUAGE),
    "past_index": Refusal((-1,), _LANGUAGE),
    "include_num_input_tokens_seen": Refusal(("no", False), "a batch of audio has no tokens to count; leave it out"),
    "include_tokens_per_second": Refusal((False, None), "a batch of audio has no tokens to count; leave it out"),
    "enable_jit_checkpoint": Refusal(
        (False,), "a checkpoint is saved after SIGTERM anyway, by all processes at the same step; leave it out"
    ),
    "auto_find_batch_size": Refusal(
        (False,),
        "the batch size is part of the objective; give a smaller --per_device_train_batch_size, or "
        "--contrastive_chunk_size for the contrastive model",
    ),
    "group_by_length": Refusal((False,), _ORDER),
    "train_sampling_strategy": Refusal(("random",), _ORDER),
    "length_column_name": Refusal(("length",), _ORDER),
    "ignore_data_skip": Refusal(
        (False,),
        "a resumed run would train on the first clips of the epoch twice, and skipped clips are not read anyway; "
        "leave it out",
    ),
    "dataloader_in_order": Refusal(
        (True,), "with batches in another order, a resumed run would differ from an uninterrupted one; leave it out"
    ),
    "label_names": Refusal((None, ["emotion_labels"]), "evaluation uses emotion_labels of the batch; leave it out"),
    "prediction_loss_only": Refusal((False,), "evaluation needs logits and reports no loss; leave it out"),
    "include_for_metrics": Refusal(([], None), _METRICS),
    "include_inputs_for_metrics": Refusal((False,), _METRICS),
    "batch_eval_metrics": Refusal((False,), _METRICS),
    "eval_do_concat_batches": Refusal((True,), _METRICS),
    "eval_use_gather_object": Refusal((False,), "logits are gathered as tensors; leave it out"),
    "use_legacy_prediction_loop": Refusal((False,), "the old loop does not embed the class texts; leave it out"),
    "jit_mode_eval": Refusal((False,), "a traced model has inputs of a fixed shape; leave it out"),
    "fp16_full_eval": Refusal((False,), _EVALUATION_DTYPE),
    "bf16_full_eval": Refusal((False,), _EVALUATION_DTYPE),
    "ddp_static_graph": Refusal(
        (None, False), "layer drop and gradient caching change the graph between steps; leave it out"
    ),
    "parallelism_config": Refusal(
        (None,), "the loss supports data parallelism only (DDP, FSDP, DeepSpeed); leave it out"
    ),
    "do_predict": Refusal((False,), "evaluate.py evaluates a checkpoint; leave it out"),
    "save_safetensors": Refusal((True,), "checkpoints must be safetensors files; leave it out"),
    "overwrite_output_dir": Refusal((False,), "give --overwrite_output true"),
    "per_gpu_train_batch_size": Refusal((None,), f"{_DEPRECATED}give --per_device_train_batch_size"),
    "per_gpu_eval_batch_size": Refusal((None,), f"{_DEPRECATED}give --per_device_eval_batch_size"),
    "adafactor": Refusal((False,), f"{_DEPRECATED}give --optimizer optim --optim adafactor"),
    "half_precision_backend": Refusal(("auto", "cuda_amp", "cpu_amp"), "apex is not supported; leave it out"),
    "fp16_backend": Refusal(("auto", "cuda_amp", "cpu_amp"), f"{_DEPRECATED}leave it out"),
    "fp16_opt_level": Refusal(("O1",), "it applies to apex, which is not supported; leave it out"),
    "mp_parameters": Refusal(("",), "SageMaker's model parallelism is not supported; leave it out"),
}
# The same for fields of `accelerator_config`.
REFUSED_ACCELERATOR_FIELDS = {
    "split_batches": Refusal((False,), "the batch size is that of each process; leave it out"),
    "dispatch_batches": Refusal((None, False), "each process reads its own clips; leave it out"),
    "even_batches": Refusal((True,), "evaluation gathers batches of equal size; leave it out"),
}


def refuse_options(args) -> None:
    """Refuse options of transformers that have no effect or a wrong effect here.

    Args:
        args: `transformers.TrainingArguments`.

    Raises:
        ValueError: If such an option is given. The message has the reason.
    """
    for name, refusal in REFUSED.items():
        value = getattr(args, name, refusal.accepted[0])
        if value not in refusal.accepted:
            raise ValueError(f"--{name} {value}: {refusal.reason}")
    for name, refusal in REFUSED_ACCELERATOR_FIELDS.items():
        value = getattr(args.accelerator_config, name, refusal.accepted[0])
        if value not in refusal.accepted:
            raise ValueError(f"--accelerator_config with {name} {value}: {refusal.reason}")
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise ValueError(
            "--gradient_checkpointing_kwargs with use_reentrant true: it cuts the graph at a frozen input, so that "
            "nothing above is trained; leave it out"
        )
    refuse_unfinished_pushes(args)
    schedule = args.lr_scheduler_kwargs or getattr(args, "warmup_ratio", None)
    if schedule and getattr(args, "lr_milestones", None):
        raise ValueError("--lr_milestones define the schedule: leave out --lr_scheduler_kwargs and --warmup_ratio")
    refuse_schedule(args)
    if not _evaluates(args) and (args.load_best_model_at_end or _value(args.save_strategy) == "best"):
        option = "--load_best_model_at_end true" if args.load_best_model_at_end else "--save_strategy best"
        raise ValueError(
            f"{option}: training has no evaluation to choose a checkpoint by; give --select dev with "
            f"--num_dev_speakers 2, or --eval_strategy epoch --save_strategy epoch"
        )
    plain = getattr(args, "optimizer", None) == "adam"
    if plain and (args.optim_args or args.optim_target_modules):
        raise ValueError(
            "--optim_args and --optim_target_modules apply to the optimizer of --optim: give --optimizer optim, or "
            "leave them out"
        )


def set_workers(args, clips) -> None:
    """Set `dataloader_num_workers` if it is None: one process reads clips while the model trains.

    It is 0 if no core is left for it, if the clips are cached features or stored frames, which are read faster than
    they are passed between processes, or if a new process would have to import the libraries, which takes seconds.

    Args:
        args: `transformers.TrainingArguments`.
        clips: The training clips.
    """
    if args.dataloader_num_workers is not None:
        return
    forks = multiprocessing.get_context().get_start_method() == "fork"
    spare = number_of_cores() > int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    extractor = getattr(clips, "extractor", None)
    cached = extractor is not None and extractor.feature_type == "log_mel" and clips.reader is None
    args.dataloader_num_workers = int(spare and forks and not (cached or getattr(clips, "frames", None)))
    args.dataloader_persistent_workers = args.dataloader_num_workers > 0


@contextmanager
def loading_for_evaluation(args) -> Iterator[None]:
    """Within this context, two options for the loader of training clips are off.

    Evaluation uses the last clips (`dataloader_drop_last`). Workers that persist would draw no random number when an
    evaluation starts, and the masks of the next epoch would depend on the number of workers and on interruptions.

    Args:
        args: `transformers.TrainingArguments`.
    """
    names = ("dataloader_drop_last", "dataloader_persistent_workers")
    of_training = {name: getattr(args, name) for name in names}
    vars(args).update(dict.fromkeys(names, False))
    try:
        yield
    finally:
        vars(args).update(of_training)


def _value(choice) -> str:
    """The text of an enumeration member; text is returned as it is."""
    return getattr(choice, "value", choice)


def _evaluates(args) -> bool:
    return _value(args.eval_strategy) != "no"


def refuse_lone_processes(args) -> None:
    """Refuse several processes of which each would train alone.

    Args:
        args: Arguments of the training.

    Raises:
        ValueError: If several processes were started without a process group.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started > 1 and args.world_size == 1:
        raise ValueError(
            f"{started} processes were started, but each would train alone, since there is no GPU: give "
            f"--use_cpu true to train on CPUs"
        )


def refuse_unfinished_pushes(args) -> None:
    """Refuse pushes during training: a checkpoint to resume from has no card, and is not checked.

    Args:
        args: `transformers.TrainingArguments`.

    Raises:
        ValueError: If `push_to_hub` is given with another `hub_strategy` than `end`, or with `hub_always_push`.
    """
    if not args.push_to_hub:
        return
    strategy = _value(args.hub_strategy)
    if strategy != "end":
        raise ValueError(
            f"--hub_strategy {strategy}: it would push unfinished checkpoints during training; give --hub_strategy "
            f"end, which pushes the finished checkpoint. The others are kept in --output_dir"
        )
    if args.hub_always_push:
        raise ValueError("--hub_always_push true: there is only one push, after the training; leave it out")


def refuse_schedule(args) -> None:
    """Check `lr_scheduler_kwargs` by creating the schedule.

    Args:
        args: `transformers.TrainingArguments`.

    Raises:
        ValueError: If an argument is unknown, missing or has a wrong value.
    """
    name, given = _value(args.lr_scheduler_type), args.lr_scheduler_kwargs or {}
    option = f"--lr_scheduler_type {name} --lr_scheduler_kwargs '{json.dumps(given, default=str)}'"
    function = TYPE_TO_SCHEDULER_FUNCTION.get(SchedulerType(name))
    parameters = dict(inspect.signature(function).parameters) if function else {}
    supplied = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if function and not takes_any:
        fields = {key: parameter for key, parameter in parameters.items() if key not in supplied}
        required = [key for key, parameter in fields.items() if parameter.default is parameter.empty]
        missing = [key for key in required if key not in given]
        if unknown := [key for key in given if key not in fields]:
            raise ValueError(
                f"{option}: the schedule has no {', '.join(unknown)}; it has {', '.join(fields) or 'no fields'}"
            )
        if missing:
            raise ValueError(f"{option}: the schedule needs {', '.join(missing)} in --lr_scheduler_kwargs")
    try:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule = get_scheduler(name, optimizer, 1, 1000, scheduler_specific_kwargs=given)
        for factor in getattr(schedule, "lr_lambdas", ()):
            factor(500), factor(999)
    except Exception as error:  # a schedule may raise any error at a value of a wrong type
        raise ValueError(f"{option}: the schedule cannot be created ({error})") from None


def refuse_label_smoothing(args, supported: bool, name: str) -> None:
    """Refuse `label_smoothing_factor` if it has no effect or is out of range.

    Args:
        args: `transformers.TrainingArguments`.
        supported: Whether the loss is a cross-entropy over classes.
        name: Name of the model, for the message.

    Raises:
        ValueError: If the factor is refused.
    """
    factor = args.label_smoothing_factor
    if factor and not supported:
        raise ValueError(
            f"--label_smoothing_factor {factor}: {name} is not trained by cross-entropy over classes; leave it out"
        )
    if factor not in DROPOUT:
        raise ValueError(f"--label_smoothing_factor {factor} must be at least 0 and below 1")


def refuse_evaluation(args, has_clips: bool) -> None:
    """Refuse evaluation during training without development clips.

    Args:
        args: `transformers.TrainingArguments`.
        has_clips: Whether there are development clips.

    Raises:
        ValueError: If evaluation is requested and there are no development clips.
    """
    strategy = _value(args.eval_strategy)
    if has_clips or strategy == "no" and not args.eval_on_start:
        return
    option = f"--eval_strategy {strategy}" if strategy != "no" else "--eval_on_start"
    raise ValueError(
        f"{option}: there are no development clips to evaluate; give --num_dev_speakers 2 or --dev_speakers (in "
        f"Python: eval_dataset), or leave it out"
    )


def chooses_by_metric(args) -> bool:
    """Whether a checkpoint or the learning rate depends on a metric of the evaluations."""
    choices = {_value(args.save_strategy), _value(args.lr_scheduler_type)}
    return bool(args.load_best_model_at_end or choices & {"best", "reduce_lr_on_plateau", "greedy"})


def refuse_metric(args, compute_metrics, classes: int) -> None:
    """Check that evaluation reports the metric that a checkpoint or the learning rate depends on.

    Args:
        args: `transformers.TrainingArguments`. The default of `metric_for_best_model` is the loss, which evaluation
            does not report.
        compute_metrics: The trainer's function, which is tried on one correct prediction for each class.
        classes: Number of classes.

    Raises:
        ValueError: If the metric is not reported, or the schedule has the wrong mode for it.
    """
    if not chooses_by_metric(args):
        return
    name = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if compute_metrics is None:
        raise ValueError("choosing by an evaluation needs compute_metrics, which computes the metrics: give it")
    try:
        reported = set(compute_metrics(EvalPrediction(np.eye(classes, dtype=np.float32), np.arange(classes))))
    except Exception:  # a user's function may fail on such predictions; the metric is then assumed to be reported
        reported = {name} - {"loss"}
    if name not in {metric.removeprefix("eval_") for metric in reported}:
        raise ValueError(
            f"--metric_for_best_model {name}: evaluation does not report it; it reports "
            f"{', '.join(sorted(reported)) or 'the metrics of compute_metrics'}. Give --metric_for_best_model uar "
            f"--greater_is_better true, or --select dev"
        )
    schedule = _value(args.lr_scheduler_type)
    mode = (args.lr_scheduler_kwargs or {}).get("mode", "min")
    if schedule in ("reduce_lr_on_plateau", "greedy") and (mode == "max") != bool(args.greater_is_better):
        raise ValueError(
            f"--lr_scheduler_type {schedule}: {name} is better when it "
            f"{'rises' if args.greater_is_better else 'falls'}, but the mode of the schedule is {mode!r}: give "
            f'--lr_scheduler_kwargs \'{{"mode": "{"max" if args.greater_is_better else "min"}"}}\''
        )


def refuse_batch_norm(model: torch.nn.Module, why: str) -> None:
    """Refuse batch norm, with which an embedding depends on the other clips of its chunk or process.

    Args:
        model: The model.
        why: Feature that batch norm is incompatible with, for the message.

    Raises:
        ValueError: If the model has batch norm.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{why}: {name} is batch norm, whose statistics would differ from those of the complete batch: train "
                f"in one process without chunks, or use an encoder without batch norm"
            )
