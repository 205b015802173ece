"""The losses of Xiang's first stage: InfoNCE over positives and negatives, and a cosine margin loss."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def info_nce(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float = 0.07,
    first: int = 0,
) -> torch.Tensor:
    """InfoNCE, eq. 2 and 3.

    The mean over ordered pairs `(i, j)` of positives of `-log(exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t)))`,
    with `s` the cosine and `k` over the negatives.

    The paper prints eq. 2 without `-log`. Minimising that form would push positives apart.

    Args:
        anchors: Positives that are `i` in this process, consecutive rows of `positives`, `(rows, size)`.
        positives: Two or more positives, `(positives, size)`.
        negatives: `(negatives, size)`.
        temperature: The paper's tau.
        first: Index of the first anchor among the positives.

    Returns:
        The loss, a scalar.
    """
    anchors, positives, negatives = (F.normalize(group, dim=-1) for group in (anchors, positives, negatives))
    negative_logits = (anchors @ negatives.T / temperature).logsumexp(1, keepdim=True)
    # e^s / (e^s + e^r) = sigmoid(s - r)
    losses = -F.logsigmoid(anchors @ positives.T / temperature - negative_logits)
    columns = torch.arange(len(positives), device=losses.device)
    diagonal = columns == columns[first : first + len(anchors), None]
    return losses.masked_fill(diagonal, 0).sum() / (len(anchors) * (len(positives) - 1))


def cosine_margin(
    positives: torch.Tensor, negatives: torch.Tensor, alpha: float = 0.5, margin: float = 0.4
) -> torch.Tensor:
    """Cosine margin loss, eq. 4: `alpha (1 - s(p1, p2)) + max(0, s(p, n) - m)`, each term averaged over its pairs.

    The paper does not define the pairs. Here neighbouring positives (1 and 2, 3 and 4, ...) form the positive pairs,
    and each positive forms a negative pair with the negative of the same index.

    Args:
        positives: An even number of positives, `(positives, size)`.
        negatives: As many negatives, `(positives, size)`.
        alpha: Weight of the first term.
        margin: The paper's m. Negative pairs with a smaller cosine give no loss.

    Returns:
        The loss, a scalar.
    """
    positive_loss = 1 - F.cosine_similarity(positives[0::2], positives[1::2])
    negative_loss = (F.cosine_similarity(positives, negatives) - margin).clamp_min(0)
    return alpha * positive_loss.mean() + negative_loss.mean()
