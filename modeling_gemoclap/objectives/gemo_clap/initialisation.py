"""A start from which contrastive training gets going."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional as F

from ...modeling_gemoclap import GEmoClapModel, GEmoClapProjection
from ...training.clips import audio_inputs
from ...training.finite import BROKEN_START, NotFiniteError, refuse_weights_not_finite
from ...training.history import settle_history
from .collator import GEmoClapCollator

PROMPTS_A_STEP, PROMPT_LEARNING_RATE = 32, 1e-3


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
            f"centred on, although its weights are: leave out clips of an extreme level"
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


def learn_prompts(model: GEmoClapModel, collator: GEmoClapCollator, steps: int, seed: int) -> None:
    """Teach a text tower from scratch, before it meets any audio, which prompts mean the same.

    A tower that has yet to find out that a synonym or a template changes nothing is a moving target, and a small
    corpus has not the clips to aim at it: the audio tower learns the less. So the prompts of each label are first
    drawn towards one direction: `sqrt(alpha) e + sqrt(1 - alpha) g` with a direction of its own for each emotion and
    gender, all orthogonal, so that the cosine of two prompts is the entry of eq. 7's `M` for their labels. Training
    moves them afterwards.

    Args:
        model: The model; its text tower and projection are changed.
        collator: Draws the prompts.
        steps: How many.
        seed: Of what is drawn: processes that start alike stay alike.
    """
    settle_history(model)
    config, generator = model.config, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        [*model.text_model.parameters(), *model.text_projection.parameters()], lr=PROMPT_LEARNING_RATE
    )
    count = len(config.emotions) + len(config.genders)
    directions = torch.randn(config.projection_dim, count, generator=generator)
    if config.projection_dim >= count:
        directions = torch.linalg.qr(directions)[0]
    directions = F.normalize(directions.T, dim=-1).to(model.device).split([len(config.emotions), len(config.genders)])

    def draw_together(prompts: list[str], towards: torch.Tensor) -> torch.Tensor:
        tokens = {name: value.to(model.device) for name, value in collator.tokenize(prompts).items()}
        return 1 - (model.get_text_features(**tokens) * F.normalize(towards, dim=-1)).sum(-1).mean()

    for step in range(steps):
        emotions = torch.randint(len(config.emotions), (PROMPTS_A_STEP,), generator=generator)
        genders = torch.randint(len(config.genders), (PROMPTS_A_STEP,), generator=generator)
        known = torch.rand(PROMPTS_A_STEP, generator=generator) < (2 / 3 if config.uses_joint_texts else 0)
        towards, of_gender = directions[0][emotions], directions[1][genders]
        mixed = config.alpha**0.5 * towards + (1 - config.alpha) ** 0.5 * of_gender
        shown = torch.where(known, genders, -1)
        prompts = [collator.text(*pair, generator) for pair in zip(emotions, shown, strict=True)]
        loss = draw_together(prompts, torch.where(known[:, None].to(model.device), mixed, towards))
        if config.objective == "ml":
            loss = loss + draw_together([collator.gender_text(one, generator) for one in genders], of_gender)
        if not loss.isfinite():
            raise NotFiniteError(f"--prompt_steps: the loss of the prompts is {loss.item()} at step {step + 1}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    model.note_weights()
