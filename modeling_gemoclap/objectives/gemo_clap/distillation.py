"""Distillation: the student's audio and text embeddings are trained towards those of its teacher."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from ...configuration_gemoclap import GEmoClapConfig
from ...modeling_gemoclap import GEmoClapModel
from ...training.clips import ClipDataset
from ...training.history import settle_history
from .collator import GEmoClapCollator
from .emotion_words import EMOTION_WORDS
from .initialisation import PROMPTS_PER_STEP, prompt_optimizer, prompt_step


class TaughtClips(ClipDataset):
    """Clips with the teacher's embedding of each, `teacher_embed`. That of a padding clip is zero."""

    teacher_embeds: torch.Tensor  # `(clips, projection_dim)`

    def __getitem__(self, index: int) -> dict:
        """See `ClipDataset`."""
        item = super().__getitem__(index)
        embed = self.teacher_embeds[item["index"]]
        return item | {"teacher_embed": torch.zeros_like(embed) if item["index"] == -1 else embed}


class Distillation(NamedTuple):
    """The settings of the distillation loss.

    Args:
        class_embeds: The teacher's embeddings of the class texts, `(emotions, projection_dim)`.
        scale: The teacher's audio scale, which multiplies the cosines of teacher and student.
        weight: Weight of the loss against the contrastive loss.
        temperature: Divisor of both logits.
    """

    class_embeds: torch.Tensor
    scale: float
    weight: float = 1.0
    temperature: float = 1.0

    def losses(self, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare the embeddings of clips.

        Both embeddings are scored by the same texts and the same scale, so both terms are zero if and only if the
        student's embeddings are those of the teacher.

        Args:
            student: `(clips, projection_dim)`, unit length.
            teacher: `(clips, projection_dim)`, unit length; zero for a clip that only fills the batch.

        Returns:
            For each clip, `(clips,)`, the cosine distance, and the divergence `KL(teacher || student)` of the scores,
            the softmax of the logits divided by the temperature, times its square, so that the gradient does not
            shrink with the temperature (Hinton et al., 2015). Both are zero for a clip that only fills the batch.
        """
        valid = teacher.square().sum(1) > 0
        texts = self.class_embeds.to(teacher).T * (self.scale / self.temperature)
        student_scores, teacher_scores = ((embeds @ texts).log_softmax(1) for embeds in (student, teacher))
        divergence = F.kl_div(student_scores, teacher_scores, reduction="none", log_target=True).sum(1)
        distance = 1 - (student * teacher).sum(1)
        return distance * valid, divergence * self.temperature**2 * valid


def taught_prompts(config: GEmoClapConfig) -> list[str]:
    """Return the prompts that a teacher teaches: those of training, and the templates with more words of emotions."""
    prompts = config.training_prompts()
    for word in EMOTION_WORDS:
        prompts += [template.replace("{}", word) for template in config.emotion_templates]
        if config.uses_joint_texts:
            joint = [template.replace("{emotion}", word) for template in config.joint_templates]
            prompts += [template.replace("{gender}", gender) for template in joint for gender in config.genders]
    return list(dict.fromkeys(prompts))


def teach_prompts(model: GEmoClapModel, collator: GEmoClapCollator, teacher, steps: int, seed: int) -> float:
    """Train the text tower and its projection to give the teacher's embeddings of prompts.

    Half of the prompts of a step are those of training. The learning rate falls to zero, since nothing else trains the
    texts afterwards.

    Args:
        model: The student.
        collator: Collator with the student's tokenizer.
        teacher: The `Teacher`.
        steps: Number of steps.
        seed: Seed of the random draws, so that all processes get the same weights.

    Returns:
        The mean cosine of the embeddings of student and teacher over all prompts.

    Raises:
        NotFiniteError: If a loss is not finite.
    """
    settle_history(model)
    prompts = taught_prompts(model.config)
    targets = teacher.embed_prompts(prompts).to(model.device)
    num_own, generator = len(set(model.config.training_prompts())), torch.Generator().manual_seed(seed)
    optimizer = prompt_optimizer(model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    half = PROMPTS_PER_STEP // 2

    def cosines(rows: torch.Tensor) -> torch.Tensor:
        tokens = collator.tokenize([prompts[row] for row in rows.tolist()])
        embeds = model.get_text_features(**{name: value.to(model.device) for name, value in tokens.items()})
        return (embeds * targets[rows.to(model.device)]).sum(-1)

    for step in range(steps):
        rows = [torch.randint(bound, (half,), generator=generator) for bound in (num_own, len(prompts))]
        loss = 1 - cosines(torch.cat(rows)).mean()
        prompt_step(optimizer, loss, step)
        schedule.step()
    optimizer.zero_grad()
    model.note_weights()
    with torch.no_grad():
        return torch.cat([cosines(rows) for rows in torch.arange(len(prompts)).split(PROMPTS_PER_STEP)]).mean().item()
