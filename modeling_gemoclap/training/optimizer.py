"""Groups of parameters with learning rates of their own."""

from __future__ import annotations

from collections import defaultdict

from torch import nn

from ..towers_gemoclap import transformer_layers


def layerwise_groups(
    model: nn.Module,
    learning_rate: float,
    layer_decay: float,
    weight_decay: float,
    decayed: set[str],
    encoder_factor: float = 1.0,
) -> list[dict]:
    """Parameter groups whose learning rate falls with the distance from the output.

    What is new (projections, pooling, scales, head) learns at `learning_rate`, the last Transformer layer of a tower
    at `learning_rate * encoder_factor * layer_decay`, each layer below at `layer_decay` times the rate of the one
    above it, and what is outside the layers (convolutions, embeddings) as if it were the one below the first.

    Args:
        model: A `GEmoClapModel`, or anything with its towers.
        learning_rate: Rate of what is new.
        layer_decay: Factor from a layer to the one below it, at most 1.
        weight_decay: Weight decay of the parameters in `decayed`.
        decayed: Names of parameters with weight decay.
        encoder_factor: Rate of all of the towers over `learning_rate`; 0.4 in Xiang's two stages.

    Returns:
        Groups for `torch.optim.Optimizer`.

    Raises:
        ValueError: If a factor is not in (0, 1], or a tower has no layers that can be told.
    """
    if not 0 < encoder_factor <= 1:
        raise ValueError(f"encoder_lr_factor={encoder_factor} must lie above 0 and be at most 1")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layerwise_lr_decay={layer_decay} must lie above 0 and be at most 1, which is off")
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
