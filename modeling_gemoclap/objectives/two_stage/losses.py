"""The losses of Xiang's first stage: InfoNCE over positives and negatives, and a cosine margin."""

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

    The paper prints eq. 2 without `-log`; minimised as it stands, it would push positives apart.

    Args:
        anchors: `(rows, size)`, the positives that are `i` here: some of `positives`, or all of them.
        positives: `(positives, size)`, two or more.
        negatives: `(negatives, size)`.
        temperature: The paper's tau.
        first: Where the anchors begin among the positives.

    Returns:
        Scalar.
    """
    anchors, positives, negatives = (F.normalize(group, dim=-1) for group in (anchors, positives, negatives))
    repelled = (anchors @ negatives.T / temperature).logsumexp(1, keepdim=True)
    losses = -F.logsigmoid(anchors @ positives.T / temperature - repelled)  # e^s / (e^s + e^r) = sigmoid(s - r)
    columns = torch.arange(len(positives), device=losses.device)
    itself = columns == columns[first : first + len(anchors), None]
    return losses.masked_fill(itself, 0).sum() / (len(anchors) * (len(positives) - 1))


def cosine_margin(
    positives: torch.Tensor, negatives: torch.Tensor, alpha: float = 0.5, margin: float = 0.4
) -> torch.Tensor:
    """The cosine margin loss, eq. 4: `alpha (1 - s(p1, p2)) + max(0, s(p, n) - m)`, each term's mean over its pairs.

    How pairs are made is ours: neighbours among the positives (1 and 2, 3 and 4, ...) are the two halves, paired one
    to one; and each positive has the negative at its place.

    Args:
        positives: `(positives, size)`, an even number.
        negatives: `(positives, size)`, as many.
        alpha: Weight of the first term.
        margin: The paper's m: negatives whose cosine is below are left alone.

    Returns:
        Scalar.
    """
    together = 1 - F.cosine_similarity(positives[0::2], positives[1::2])
    apart = (F.cosine_similarity(positives, negatives) - margin).clamp_min(0)
    return alpha * together.mean() + apart.mean()
