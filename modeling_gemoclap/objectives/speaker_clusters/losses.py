"""Losses on speakers: contrast between the clusters of one, classification, and its reversal."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def cluster_info_nce(
    anchors: torch.Tensor,
    embeddings: torch.Tensor,
    speakers: torch.Tensor,
    clusters: torch.Tensor,
    temperature: float = 0.1,
    first: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Utterance-level InfoNCE within speakers.

    For clips `i` and `j` of one speaker and cluster `-log(exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t)))`,
    with `s` the cosine and `k` over the clips of the same speaker and another cluster. Clips of other speakers have no
    part in it. A clip without a negative is left out: it would cost nothing.

    Args:
        anchors: `(rows, size)`, the clips that are `i` here: some of `embeddings`, or all of them.
        embeddings: `(clips, size)`.
        speakers: `(clips,)`.
        clusters: `(clips,)`, within the speaker.
        temperature: Divides the cosines.
        first: Where the anchors begin among the clips.

    Returns:
        The sum over the anchors' pairs, and the number of pairs of all clips: their quotient, summed over the
        processes, is the mean.
    """
    anchors, embeddings = F.normalize(anchors, dim=-1), F.normalize(embeddings, dim=-1)
    same_speaker = speakers[:, None] == speakers
    same_cluster = same_speaker & (clusters[:, None] == clusters)
    negative = same_speaker & ~same_cluster
    itself = torch.eye(len(speakers), dtype=torch.bool, device=speakers.device)
    positive = same_cluster & ~itself & negative.any(1, keepdim=True)
    rows = slice(first, first + len(anchors))
    cosines = anchors @ embeddings.T / temperature
    repelled = cosines.masked_fill(~negative[rows], float("-inf")).logsumexp(1, keepdim=True)
    repelled = torch.where(negative[rows].any(1, keepdim=True), repelled, 0.0)  # a gradient of -inf is no number
    losses = -F.logsigmoid(cosines - repelled)
    return losses.masked_fill(~positive[rows], 0).sum(), positive.sum().clamp_min(1)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: torch.Tensor, strength: float) -> torch.Tensor:
        ctx.strength = strength
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return -ctx.strength * gradient, None


def reverse_gradient(tensor: torch.Tensor, strength: float) -> torch.Tensor:
    """The tensor itself, whose gradient comes back times `-strength` (Ganin et al., 2016)."""
    return _Reverse.apply(tensor, strength)


def reversal_strength(progress: float) -> float:
    """Ganin's schedule: `2 / (1 + exp(-10 p)) - 1`, 0 at the start of training and nearly 1 at its end.

    Args:
        progress: Share of the training that is done, `p`.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
