"""Losses on speakers: InfoNCE between the clusters of a speaker, and gradient reversal."""

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

    The loss of clips `i` and `j` of the same speaker and cluster is
    `-log(exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t)))`, with `s` the cosine and `k` over the clips of the
    same speaker in other clusters. Clips of other speakers are ignored. A clip without negatives is left out, since
    its loss would be 0.

    Args:
        anchors: Clips that are `i` in this process, consecutive rows of `embeddings`, `(rows, size)`.
        embeddings: Embeddings of all clips, `(clips, size)`.
        speakers: Speakers of all clips, `(clips,)`.
        clusters: Clusters of all clips within their speakers, `(clips,)`.
        temperature: Divisor of the cosines.
        first: Index of the first anchor among the clips.

    Returns:
        The sum over the pairs of the anchors, and the number of pairs of all clips. Their quotient, summed over the
        processes, is the mean loss.
    """
    anchors, embeddings = F.normalize(anchors, dim=-1), F.normalize(embeddings, dim=-1)
    same_speaker = speakers[:, None] == speakers
    same_cluster = same_speaker & (clusters[:, None] == clusters)
    negative = same_speaker & ~same_cluster
    diagonal = torch.eye(len(speakers), dtype=torch.bool, device=speakers.device)
    positive = same_cluster & ~diagonal & negative.any(1, keepdim=True)
    rows = slice(first, first + len(anchors))
    cosines = anchors @ embeddings.T / temperature
    negative_logits = cosines.masked_fill(~negative[rows], float("-inf")).logsumexp(1, keepdim=True)
    has_negative = negative[rows].any(1, keepdim=True)
    negative_logits = torch.where(has_negative, negative_logits, 0.0)  # the gradient at -inf is NaN
    losses = -F.logsigmoid(cosines - negative_logits)
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
    """Return the tensor; its gradient is multiplied by `-strength` (Ganin et al., 2016)."""
    return _Reverse.apply(tensor, strength)


def reversal_strength(progress: float) -> float:
    """Schedule of Ganin et al.: `2 / (1 + exp(-10 p)) - 1`, from 0 at the start of training to nearly 1 at the end.

    Args:
        progress: Completed share of the training, `p`.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
