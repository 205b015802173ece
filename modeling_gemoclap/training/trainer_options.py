"""Options of transformers' Trainer that have no effect in our trainers, or would break them: refused with a reason."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass

import numpy as np
import torch
from transformers import EvalPrediction, SchedulerType, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION


@dataclass(frozen=True)
class Refusal:
    """An option that is refused.

    Args:
        accepted: The values that change nothing, the default among them.
        reason: Why others are refused, and what to give instead.
    """

    accepted: tuple
    reason: str


_LANGUAGE = "it is for language models; leave it out"
_METRICS = "evaluation hands the logits and labels of all clips to compute_metrics at once; leave it out"
_ORDER = "clips are drawn at random, or with --class_balanced_sampling true; leave it out"
_EVALUATION_DTYPE = (
    "it casts the trained weights themselves, which are then saved so; give --bf16 true, under which evaluation runs "
    "in half precision too"
)
_OLD = "it is deprecated; "

# By name; an option that the installed transformers does not have is passed over.
REFUSED = {
    "neftune_noise_alpha": Refusal((None, 0), f"noise on token embeddings: {_LANGUAGE}"),
    "use_liger_kernel": Refusal((False,), _LANGUAGE),
    "liger_kernel_config": Refusal((None, {}), _LANGUAGE),
    "use_cache": Refusal((False, None), _LANGUAGE),
    "past_index": Refusal((-1,), _LANGUAGE),
    "include_num_input_tokens_seen": Refusal(("no", False), "a batch of audio has no tokens to count; leave it out"),
    "include_tokens_per_second": Refusal((False, None), "a batch of audio has no tokens to count; leave it out"),
    "auto_find_batch_size": Refusal(
        (False,),
        "the size of a batch is part of what is trained; give a smaller --per_device_train_batch_size, or for the "
        "contrastive model --contrastive_chunk_size",
    ),
    "group_by_length": Refusal((False,), _ORDER),
    "train_sampling_strategy": Refusal(("random",), _ORDER),
    "length_column_name": Refusal(("length",), _ORDER),
    "ignore_data_skip": Refusal(
        (False,),
        "a run that goes on would train on the first clips of the epoch twice, and skipping them costs nothing: "
        "they are not read; leave it out",
    ),
    "dataloader_in_order": Refusal(
        (True,), "batches in another order would make a run that goes on another training; leave it out"
    ),
    "label_names": Refusal(
        (None, ["emotion_labels"]), "evaluation compares with the batch's emotion_labels; leave it out"
    ),
    "prediction_loss_only": Refusal((False,), "evaluation is by logits and reports no loss; leave it out"),
    "include_for_metrics": Refusal(([], None), _METRICS),
    "include_inputs_for_metrics": Refusal((False,), _METRICS),
    "batch_eval_metrics": Refusal((False,), _METRICS),
    "eval_do_concat_batches": Refusal((True,), _METRICS),
    "eval_use_gather_object": Refusal((False,), "logits are tensors, and are gathered as such; leave it out"),
    "use_legacy_prediction_loop": Refusal((False,), "the old loop does not embed the class texts; leave it out"),
    "jit_mode_eval": Refusal((False,), "a traced model is one of fixed inputs; leave it out"),
    "fp16_full_eval": Refusal((False,), _EVALUATION_DTYPE),
    "bf16_full_eval": Refusal((False,), _EVALUATION_DTYPE),
    "ddp_static_graph": Refusal(
        (None, False), "layer drop and gradient caching change the graph between steps; leave it out"
    ),
    "parallelism_config": Refusal(
        (None,), "the loss knows processes that share the batch alone: DDP, FSDP and DeepSpeed; leave it out"
    ),
    "do_predict": Refusal((False,), "evaluate.py judges a checkpoint; leave it out"),
    "save_safetensors": Refusal((True,), "a checkpoint is read as safetensors; leave it out"),
    "overwrite_output_dir": Refusal((False,), "give --overwrite_output true"),
    "per_gpu_train_batch_size": Refusal((None,), f"{_OLD}give --per_device_train_batch_size"),
    "per_gpu_eval_batch_size": Refusal((None,), f"{_OLD}give --per_device_eval_batch_size"),
    "adafactor": Refusal((False,), f"{_OLD}give --optimizer optim --optim adafactor"),
    "half_precision_backend": Refusal(("auto", "cuda_amp", "cpu_amp"), "apex is not supported; leave it out"),
    "fp16_backend": Refusal(("auto", "cuda_amp", "cpu_amp"), f"{_OLD}leave it out"),
    "fp16_opt_level": Refusal(("O1",), "it is for apex, which is not supported; leave it out"),
    "mp_parameters": Refusal(("",), "SageMaker's model parallelism is not supported; leave it out"),
}
# Fields of `accelerator_config`, likewise.
REFUSED_OF_ACCELERATOR = {
    "split_batches": Refusal((False,), "the batch size is that of each process; leave it out"),
    "dispatch_batches": Refusal((None, False), "each process reads its own clips; leave it out"),
    "even_batches": Refusal((True,), "evaluation gathers batches of one size; leave it out"),
}


def refuse_options(args) -> None:
    """Refuse options of transformers' Trainer that would have no effect, or a wrong one.

    Args:
        args: `transformers.TrainingArguments`.

    Raises:
        ValueError: If one is given; it is named, with the reason.
    """
    for name, refusal in REFUSED.items():
        value = getattr(args, name, refusal.accepted[0])
        if value not in refusal.accepted:
            raise ValueError(f"--{name} {value}: {refusal.reason}")
    for name, refusal in REFUSED_OF_ACCELERATOR.items():
        value = getattr(args.accelerator_config, name, refusal.accepted[0])
        if value not in refusal.accepted:
            raise ValueError(f"--accelerator_config with {name} {value}: {refusal.reason}")
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise ValueError(
            "--gradient_checkpointing_kwargs with use_reentrant true: it cuts the graph at a frozen input and trains "
            "nothing above; leave it out"
        )
    schedule = args.lr_scheduler_kwargs or getattr(args, "warmup_ratio", None)
    if schedule and getattr(args, "lr_milestones", None):
        raise ValueError("--lr_milestones are the schedule: leave out --lr_scheduler_kwargs and --warmup_ratio")
    refuse_schedule(args)
    if not _evaluates(args) and (args.load_best_model_at_end or _value(args.save_strategy) == "best"):
        option = "--load_best_model_at_end true" if args.load_best_model_at_end else "--save_strategy best"
        raise ValueError(
            f"{option}: nothing is evaluated during the training, so that there is nothing to choose by; give "
            f"--select dev with --num_dev_speakers 2, or --eval_strategy epoch --save_strategy epoch"
        )
    plain = getattr(args, "optimizer", None) == "adam"
    if plain and (args.optim_args or args.optim_target_modules):
        raise ValueError(
            "--optim_args and --optim_target_modules are for what --optim names: give --optimizer optim, or leave "
            "them out"
        )


def _value(choice) -> str:
    return getattr(choice, "value", choice)


def _evaluates(args) -> bool:
    return _value(args.eval_strategy) != "no"


def refuse_schedule(args) -> None:
    """Refuse `lr_scheduler_kwargs` that the schedule does not take or lacks, by trying it.

    Args:
        args: `transformers.TrainingArguments`.

    Raises:
        ValueError: If the schedule cannot be made.
    """
    name, given = _value(args.lr_scheduler_type), args.lr_scheduler_kwargs or {}
    option = f"--lr_scheduler_type {name} --lr_scheduler_kwargs '{json.dumps(given, default=str)}'"
    function = TYPE_TO_SCHEDULER_FUNCTION.get(SchedulerType(name))
    parameters = dict(inspect.signature(function).parameters) if function else {}
    supplied = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    own = {key: each for key, each in parameters.items() if key not in supplied and each.kind is not each.VAR_KEYWORD}
    if function and not takes_any:
        lacking = [key for key, each in own.items() if each.default is each.empty and key not in given]
        if unknown := [key for key in given if key not in own]:
            raise ValueError(
                f"{option}: the schedule has no {', '.join(unknown)}; it has {', '.join(own) or 'no fields'}"
            )
        if lacking:
            raise ValueError(f"{option}: the schedule needs {', '.join(lacking)} in --lr_scheduler_kwargs")
    try:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule = get_scheduler(name, optimizer, 1, 1000, scheduler_specific_kwargs=given)
        for factor in getattr(schedule, "lr_lambdas", ()):
            factor(500), factor(999)
    except Exception as error:  # what a schedule raises at a value of another type is its own matter
        raise ValueError(f"{option}: the schedule cannot be made ({error})") from None


def refuse_label_smoothing(args, applied: bool, what: str) -> None:
    """Refuse `label_smoothing_factor` where it has no effect, or out of its range.

    Args:
        args: `transformers.TrainingArguments`.
        applied: Whether the loss is a cross-entropy over classes.
        what: What is trained, for the error.

    Raises:
        ValueError: If it is refused.
    """
    factor = args.label_smoothing_factor
    if factor and not applied:
        raise ValueError(
            f"--label_smoothing_factor {factor}: {what} is not trained by cross-entropy over classes; leave it out"
        )
    if not 0 <= factor < 1:
        raise ValueError(f"--label_smoothing_factor {factor}: give a number from 0 to less than 1")


def refuse_evaluation(args, has_clips: bool) -> None:
    """Refuse an evaluation during training where there are no development clips.

    Args:
        args: `transformers.TrainingArguments`.
        has_clips: Whether there are.

    Raises:
        ValueError: If evaluation is asked for and there are none.
    """
    strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
    if has_clips or strategy == "no" and not args.eval_on_start:
        return
    option = f"--eval_strategy {strategy}" if strategy != "no" else "--eval_on_start"
    raise ValueError(
        f"{option}: there are no development clips to evaluate on; give --num_dev_speakers 2, or --dev_speakers (in "
        f"Python eval_dataset), or leave it out"
    )


def chooses_by_metric(args) -> bool:
    """Whether a checkpoint or the learning rate is chosen by a figure of the evaluations."""
    values = (getattr(each, "value", each) for each in (args.save_strategy, args.lr_scheduler_type))
    return bool(args.load_best_model_at_end or {*values} & {"best", "reduce_lr_on_plateau", "greedy"})


def refuse_metric(args, compute_metrics, classes: int) -> None:
    """Make sure that the figure that a checkpoint or the learning rate is chosen by is reported.

    Args:
        args: `transformers.TrainingArguments`; the default of `metric_for_best_model` is the loss, which evaluation
            does not report.
        compute_metrics: The trainer's; it is tried on as many right answers as there are classes.
        classes: How many classes there are.

    Raises:
        ValueError: If the figure is not among those reported, or the schedule takes it for one that should fall.
    """
    if not chooses_by_metric(args):
        return
    name = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if compute_metrics is None:
        raise ValueError("a choice by an evaluation needs compute_metrics, which gives its figures")
    try:
        reported = set(compute_metrics(EvalPrediction(np.eye(classes, dtype=np.float32), np.arange(classes))))
    except Exception:  # what a function of the user's own does with so few answers is not our matter
        reported = {name} - {"loss"}
    if name not in {each.removeprefix("eval_") for each in reported}:
        raise ValueError(
            f"--metric_for_best_model {name}: evaluation does not report it; it reports "
            f"{', '.join(sorted(reported)) or 'what compute_metrics gives'}. Give --metric_for_best_model uar "
            f"--greater_is_better true, or --select dev"
        )
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    mode = (args.lr_scheduler_kwargs or {}).get("mode", "min")
    if schedule in ("reduce_lr_on_plateau", "greedy") and (mode == "max") != bool(args.greater_is_better):
        raise ValueError(
            f"--lr_scheduler_type {schedule}: {name} is better when it "
            f"{'rises' if args.greater_is_better else 'falls'}, and the schedule's mode is {mode!r}: give "
            f'--lr_scheduler_kwargs \'{{"mode": "{"max" if args.greater_is_better else "min"}"}}\''
        )


def refuse_batch_norm(model: torch.nn.Module, why: str) -> None:
    """Make sure that a clip's embedding does not depend on the clips that it is computed with.

    Args:
        model: The model.
        why: What it would depend on, for the error.

    Raises:
        ValueError: If the model has batch norm.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{why}: {name} is batch norm, whose statistics would not be those of the whole batch: train in one "
                f"process without chunks, or take an encoder without batch norm"
            )
