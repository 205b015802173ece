"""Initialisation for contrastive training: centred projections and a text encoder trained on prompts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional as F

from ...modeling_gemoclap import GEmoClapModel, GEmoClapProjection
from ...training.clips import audio_inputs
from ...training.finite import BROKEN_START, NotFiniteError, refuse_weights_not_finite
from ...training.history import settle_history
from .collator import GEmoClapCollator

PROMPTS_PER_STEP, PROMPT_LEARNING_RATE = 32, 1e-3


@torch.no_grad()
def centre_projection(projection: GEmoClapProjection, pooled: torch.Tensor) -> None:
    """Standardise the input of an untrained projection by adjusting the weights of its first layer.

    The pooled features of different clips have a large common component. An untrained projection would map all clips
    to nearly the same direction, and the loss would stay on a plateau for many steps. Subtracting the mean and
    dividing by the overall standard deviation avoids this. Only initial values change, not the architecture.

    Args:
        projection: A projection that has not been trained.
        pooled: Pooled features of two or more different training samples, `(samples, hidden_size)`.
    """
    mean = pooled.mean(0)
    deviation = (pooled - mean).square().mean().sqrt().clamp_min(1e-6)
    projection.linear1.weight.div_(deviation)
    projection.linear1.bias.sub_(projection.linear1.weight @ mean)


@torch.no_grad()
def centre_projections(model: GEmoClapModel, batches: Iterable[dict[str, torch.Tensor]], tokenizer) -> None:
    """Centre the audio projection on training clips and the text projection on the prompts.

    Args:
        model: A model whose projections have not been trained.
        batches: Batches of `GEmoClapCollator`.
        tokenizer: Tokenizer of the text tower.

    Raises:
        NotFiniteError: If weights, or pooled features of a clip, are not finite.
    """
    settle_history(model)
    was_training = model.training
    model.eval()
    pooled = []
    for batch in batches:
        inputs = {name: value.to(model.device) for name, value in audio_inputs(batch).items()}
        pooled.append(model.pool_audio(**inputs))
    pooled = torch.cat(pooled)
    if bad := int((~pooled.isfinite().all(dim=1)).sum()):
        refuse_weights_not_finite(model, BROKEN_START)
        raise NotFiniteError(
            f"the audio encoder's output is not finite for {bad} of the {len(pooled)} clips that the projections are "
            f"centred on, although its weights are finite: leave out clips with extreme levels"
        )
    centre_projection(model.audio_projection, pooled)
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
    model.note_weights()


def prompt_optimizer(model: GEmoClapModel) -> torch.optim.Optimizer:
    """The optimizer of the text tower and its projection, which are trained on prompts alone."""
    parameters = [*model.text_model.parameters(), *model.text_projection.parameters()]
    return torch.optim.AdamW(parameters, lr=PROMPT_LEARNING_RATE)


def prompt_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, step: int) -> None:
    """Take step number `step`, from 0, on a loss of prompts.

    Raises:
        NotFiniteError: If the loss is not finite.
    """
    if not loss.isfinite():
        raise NotFiniteError(f"--prompt_steps: the loss of the prompts is {loss.item()} at step {step + 1}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_on_prompts(model: GEmoClapModel, collator: GEmoClapCollator, steps: int, seed: int) -> None:
    """Train a text tower from scratch on prompts only, so that prompts with the same labels have similar embeddings.

    An untrained text tower gives synonyms and templates of a label different embeddings, which change during training.
    On a small corpus the audio tower learns less from such unstable targets. Therefore the embeddings of the prompts
    of each label are trained towards a fixed direction, `sqrt(alpha) e + sqrt(1 - alpha) g`. The directions `e` of
    the emotions and `g` of the genders are orthogonal, so the cosine of two prompts is the entry of `M` in eq. 7 for
    their labels. Contrastive training changes the embeddings further.

    Args:
        model: The model. Its text tower and text projection are trained.
        collator: Collator that draws the prompts.
        steps: Number of steps.
        seed: Seed of the random draws, so that all processes get the same weights.

    Raises:
        NotFiniteError: If a loss is not finite.
    """
    settle_history(model)
    config, generator = model.config, torch.Generator().manual_seed(seed)
    optimizer = prompt_optimizer(model)
    count = len(config.emotions) + len(config.genders)
    directions = torch.randn(config.projection_dim, count, generator=generator)
    if config.projection_dim >= count:
        directions = torch.linalg.qr(directions)[0]
    directions = F.normalize(directions.T, dim=-1).to(model.device).split([len(config.emotions), len(config.genders)])

    def cosine_loss(prompts: list[str], targets: torch.Tensor) -> torch.Tensor:
        tokens = {name: value.to(model.device) for name, value in collator.tokenize(prompts).items()}
        return 1 - (model.get_text_features(**tokens) * F.normalize(targets, dim=-1)).sum(-1).mean()

    for step in range(steps):
        emotions = torch.randint(len(config.emotions), (PROMPTS_PER_STEP,), generator=generator)
        genders = torch.randint(len(config.genders), (PROMPTS_PER_STEP,), generator=generator)
        joint = torch.rand(PROMPTS_PER_STEP, generator=generator) < (2 / 3 if config.uses_joint_texts else 0)
        emotion_targets, gender_targets = directions[0][emotions], directions[1][genders]
        joint_targets = config.alpha**0.5 * emotion_targets + (1 - config.alpha) ** 0.5 * gender_targets
        visible_genders = torch.where(joint, genders, -1)
        prompts = [collator.text(*labels, generator) for labels in zip(emotions, visible_genders, strict=True)]
        loss = cosine_loss(prompts, torch.where(joint[:, None].to(model.device), joint_targets, emotion_targets))
        if config.objective == "ml":
            prompts = [collator.gender_text(gender, generator) for gender in genders]
            loss = loss + cosine_loss(prompts, gender_targets)
        prompt_step(optimizer, loss, step)
    optimizer.zero_grad()
    model.note_weights()
