"""A start from which contrastive training gets going."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..modeling_gemoclap import GEmoClapModel, GEmoClapProjection
from .collator import audio_inputs


@torch.no_grad()
def centre_projection(projection: GEmoClapProjection, pooled: torch.Tensor) -> None:
    """Fold the mean and the overall spread of pooled features into a fresh projection's first layer.

    The features of different clips share by far the most of their length. Through a fresh projection all embeddings
    would point one way, and the loss would rest on a plateau until training had found the differences; centred, they
    differ from the first step. Only the starting values change, not the model.

    Args:
        projection: A projection that was not trained yet.
        pooled: `(samples, hidden_size)`, features of training samples, two or more that differ.
    """
    mean = pooled.mean(0)
    spread = (pooled - mean).square().mean().sqrt().clamp_min(1e-6)
    projection.linear1.weight.div_(spread)
    projection.linear1.bias.sub_(projection.linear1.weight @ mean)


@torch.no_grad()
def centre_projections(model: GEmoClapModel, batches: Iterable[dict[str, torch.Tensor]], tokenizer) -> None:
    """Centre both projections of a model: on some training clips, and on its own prompts.

    Args:
        model: A model whose projections are fresh.
        batches: Batches of `GEmoClapCollator`, as small as the memory asks.
        tokenizer: The text tower's tokenizer.
    """
    was_training = model.training
    model.eval()
    pooled = []
    for batch in batches:
        inputs = {name: value.to(model.device) for name, value in audio_inputs(batch).items()}
        pooled.append(model.pool_audio(**inputs))
    centre_projection(model.audio_projection, torch.cat(pooled))
    config = model.config
    groups = [config.emotion_prompts(emotion) for emotion in config.emotions]
    if config.uses_joint_texts:
        groups += config.class_prompts()
    if config.objective == "ml":
        groups += config.gender_class_prompts()
    prompts = [prompt for group in groups for prompt in group]
    tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(model.device)
    centre_projection(model.text_projection, model.pool_text(tokens["input_ids"], tokens["attention_mask"]))
    model.train(was_training)
