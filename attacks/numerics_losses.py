"""Losses on degenerate batches: values and gradients must be finite."""

from __future__ import annotations

import itertools

import torch
from attack import Attack

from modeling_gemoclap.losses_gemoclap import (
    ContrastiveBatch,
    LossSettings,
    classification_loss,
    contrastive_loss,
    loss_floor,
    objective_terms,
)
from modeling_gemoclap.objectives.gemo_clap.distillation import Distillation
from modeling_gemoclap.objectives.speaker_clusters.losses import cluster_info_nce
from modeling_gemoclap.objectives.two_stage.losses import cosine_margin, info_nce

LABELS = {  # emotions and genders of the clips of a batch; -1 is unknown
    "two classes": ([0, 1, 0, 1], [0, 1, 1, 0]),
    "one clip": ([0], [1]),
    "one emotion": ([1, 1, 1, 1], [0, 1, 0, 1]),
    "one gender missing": ([0, 1, 0, 1], [0, 0, 0, 0]),
    "a class with one clip": ([0, 0, 0, 1], [0, 1, 0, -1]),
    "unknown emotions": ([-1, -1, -1], [0, 1, 0]),
    "all unknown": ([-1, -1], [-1, -1]),
    "every clip of its own class": ([0, 1, 2, 3], [-1, -1, -1, -1]),
}
EMBEDDINGS = ("random", "identical", "opposite", "zero", "one zero", "tiny", "of length 300")
SCALES = (1e-4, 1.0, 14.3, 100.0)


def embeddings_of(kind: str, clips: int, size: int = 8, dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    """Embeddings `(clips, size)` of a kind, with a gradient."""
    values = torch.nn.functional.normalize(torch.randn(clips, size, generator=torch.Generator().manual_seed(seed)))
    if kind == "identical":
        values = values[:1].repeat(clips, 1)
    elif kind == "opposite":
        values = values[:1] * (-1.0) ** torch.arange(clips)[:, None]
    elif kind in ("zero", "one zero"):
        values[: None if kind == "zero" else 1] = 0
    elif kind == "tiny":
        values = values * 1e-30
    elif kind == "of length 300":
        values = values * 300
    return values.to(dtype).requires_grad_()


def check_finite(loss: torch.Tensor, *inputs: torch.Tensor) -> None:
    """Check that a loss and its gradients are finite.

    Raises:
        ValueError: If one of them is not.
    """
    if not loss.isfinite().all():
        raise ValueError(f"the loss is {loss.tolist()}")
    if loss.requires_grad:
        loss.sum().backward()
    for number, value in enumerate(inputs):
        if value.grad is not None and not value.grad.isfinite().all():
            raise ValueError(f"gradient {number} is not finite")


def attack_contrastive(attack: Attack) -> None:
    """The three objectives, for all kinds of labels and embeddings, similarities, targets and scales."""
    grids = LABELS, ("emo", "ml", "sl"), ("cross", "intra", "both"), ("softmax", "row"), EMBEDDINGS, SCALES
    for number, case in enumerate(itertools.product(*grids)):
        if attack.options.small and number % 50:
            continue
        labels, objective, similarity, targets, kind, scale = case
        dtype = (torch.float32, torch.bfloat16, torch.float16)[number % 3]
        with attack.case("losses of the objectives", " ".join(map(str, (*case, dtype)))):
            emotions, genders = (torch.tensor(each) for each in LABELS[labels])
            audio, text, gender = (embeddings_of(kind, len(emotions), 8, dtype, seed) for seed in range(3))
            scales = [torch.tensor(scale, requires_grad=True) for _ in range(2)]
            batch = ContrastiveBatch(audio, text, *scales, emotions, genders, gender)
            with torch.autocast("cpu", torch.bfloat16, enabled=number % 2 == 0):
                terms = objective_terms(objective, batch, LossSettings(0.9, similarity, targets))
                loss = contrastive_loss(terms)
            check_finite(loss, audio, text, gender, *scales)
            if not torch.as_tensor(loss_floor(terms)).isfinite():
                raise ValueError("the floor of the loss is not finite")


def attack_others(attack: Attack) -> None:
    """InfoNCE, the cosine margin, clusters of speakers, cross-entropy and distillation."""
    for kind, clips, temperature in itertools.product(EMBEDDINGS, (2, 4, 6), (1e-3, 0.07, 1.0)):
        with attack.case("losses of the two stages and of speakers", f"{kind} {clips} {temperature}"):
            positives, negatives = embeddings_of(kind, clips), embeddings_of(kind, clips, seed=1)
            check_finite(info_nce(positives, positives, negatives, temperature), positives, negatives)
            positives, negatives = embeddings_of(kind, clips), embeddings_of(kind, clips, seed=1)
            check_finite(cosine_margin(positives, negatives), positives, negatives)
        for name, speakers, clusters in (
            ("one speaker", [0] * clips, [0, 1] * (clips // 2)),
            ("one cluster", [0] * clips, [0] * clips),
            ("clip by clip", range(clips), range(clips)),
        ):
            with attack.case("losses of the two stages and of speakers", f"{kind} {clips} {temperature} {name}"):
                embeddings = embeddings_of(kind, clips)
                places = torch.tensor(list(speakers)), torch.tensor(list(clusters))
                total, pairs = cluster_info_nce(embeddings, embeddings, *places, temperature)
                check_finite(total / pairs, embeddings)
    for value, labels in itertools.product((0.0, 1e-30, 1e4, 6e4, -1e30, 1e37), ([0, 1, 1], [-1, -1, -1], [1, 1, 1])):
        with attack.case("cross-entropy", f"{value} {labels}"):
            logits = torch.tensor([[value, -value], [0.0, value], [value, value]], requires_grad=True)
            check_finite(classification_loss(logits, torch.tensor(labels), ["a", "b"]), logits)
    for kind, scale in itertools.product(EMBEDDINGS[:5], (1.0, 100.0)):
        with attack.case("distillation", f"{kind} {scale}"):
            student = embeddings_of(kind, 4)
            taught = Distillation(embeddings_of("random", 3).detach(), scale)
            for loss in taught.losses(student, embeddings_of("one zero", 4, seed=2).detach()):
                check_finite(loss, student)
