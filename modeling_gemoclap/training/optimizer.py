"""Parameter groups with different learning rates, and their schedule by milestones."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ..command_line.ranges import check_values
from ..towers_gemoclap import transformer_layers
from .arguments import GEmoClapTrainingArguments


def layerwise_groups(
    model: nn.Module,
    learning_rate: float,
    layer_decay: float,
    weight_decay: float,
    decayed: set[str],
    encoder_factor: float = 1.0,
) -> list[dict]:
    """Parameter groups whose learning rate decreases with the distance from the output.

    New modules (projections, pooling, scales, classification head) have the rate `learning_rate`. The last Transformer
    layer of a tower has `learning_rate * encoder_factor * layer_decay`, and each layer below `layer_decay` times the
    rate of the layer above. Modules outside of the layers (convolutions, embeddings) count as one layer below the
    first.

    Args:
        model: A `GEmoClapModel`, or another model with `audio_model` and optionally `text_model`.
        learning_rate: Learning rate of new modules.
        layer_decay: Learning rate of a layer, relative to the layer above; at most 1.
        weight_decay: Weight decay of the parameters in `decayed`.
        decayed: Names of parameters with weight decay.
        encoder_factor: Learning rate of the towers, relative to `learning_rate`; at most 1.

    Returns:
        Groups for `torch.optim.Optimizer`.

    Raises:
        ValueError: If a factor is not in (0, 1], or the layers of a tower cannot be found.
    """
    if not 0 < encoder_factor <= 1:
        raise ValueError(f"encoder_lr_factor={encoder_factor} must be above 0 and at most 1")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layerwise_lr_decay={layer_decay} must be above 0 and at most 1 (1: off)")
    prefixes = {}
    for tower in ("audio_model", "text_model"):
        if hasattr(model, tower) and layer_decay == 1:
            prefixes[f"{tower}."] = 1
        elif hasattr(model, tower):
            name, layers = transformer_layers(getattr(model, tower))
            prefixes[f"{tower}."] = len(layers) + 1
            prefixes |= {f"{tower}.{name}.{index}.": len(layers) - index for index in range(len(layers))}
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = min((depth for prefix, depth in prefixes.items() if name.startswith(prefix)), default=0)
            groups[depth, name in decayed].append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay**depth * (encoder_factor if depth else 1.0),
            "weight_decay": weight_decay if has_decay else 0.0,
        }
        for (depth, has_decay), parameters in groups.items()
    ]


def refuse_milestones(args) -> None:
    """Check `lr_milestones` and `lr_gamma`.

    Args:
        args: `transformers.TrainingArguments`.

    Raises:
        ValueError: If a value is out of range, or another option defines the schedule or its steps.
    """
    milestones, gamma = getattr(args, "lr_milestones", None), getattr(args, "lr_gamma", 0.1)
    check_values(GEmoClapTrainingArguments, lr_milestones=milestones, lr_gamma=gamma)
    if milestones and args.max_steps > 0:
        raise ValueError(
            f"lr_milestones {milestones} are epochs and cannot be combined with max_steps: give num_train_epochs"
        )
    if milestones and (args.warmup_steps or args.lr_scheduler_type not in ("linear", "constant")):
        raise ValueError("lr_milestones define the schedule: leave out lr_scheduler_type and warmup_steps")


def milestone_schedule(optimizer: torch.optim.Optimizer, args, steps_per_epoch: float) -> LambdaLR:
    """Return the schedule that multiplies the learning rate by `lr_gamma` after each epoch of `lr_milestones`.

    Args:
        optimizer: The optimizer.
        args: `GEmoClapTrainingArguments`.
        steps_per_epoch: Number of steps of an epoch.
    """
    steps = [round(milestone * steps_per_epoch) for milestone in args.lr_milestones]
    return LambdaLR(optimizer, lambda step: args.lr_gamma ** sum(step >= at for at in steps))
