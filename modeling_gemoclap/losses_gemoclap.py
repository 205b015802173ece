"""The objectives of GEmo-CLAP: match matrices, soft targets, KL divergence, Emo, ML and SL.

`E_a`, `E_t` are audio and text embeddings of shape `(N, D)` with rows of unit length, `s_a`, `s_t` the two scales.
Equation numbers are those of arXiv 2306.07848. A negative label is unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F


class ContrastiveTerm(NamedTuple):
    """One weighted KL divergence of an objective."""

    weight: float
    logits: torch.Tensor
    """`(rows, columns)`, not yet normalised."""
    targets: torch.Tensor
    """`(rows, columns)`, rows sum to one."""
    total_rows: int | torch.Tensor
    """Valid rows of the global batch, of which these may be a part; their sum is divided by it."""


def known_labels(name: str, labels: torch.Tensor | None, classes: list[str]) -> torch.Tensor | None:
    """Labels with -1 for each that is unknown, whatever negative number says so (transformers has -100).

    Args:
        name: What the labels are, for the error.
        labels: `(batch,)`, indices into `classes`, or None. On a GPU this waits for them.
        classes: The names of the classes.

    Returns:
        `(batch,)`, or None.

    Raises:
        ValueError: If a label is beyond the classes.
    """
    if labels is None:
        return None
    beyond = labels[labels >= len(classes)].unique().tolist()
    if beyond:
        raise ValueError(
            f"{name} has {beyond[0]}, but there are {len(classes)} classes, 0 to {len(classes) - 1}: "
            f"{', '.join(classes)}; give a negative label where it is unknown"
        )
    return labels.clamp_min(-1)


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, classes: list[str]) -> torch.Tensor:
    """Mean cross-entropy over the clips of known label, 0 where there is none.

    Args:
        logits: `(batch, classes)`.
        labels: As for `known_labels`.
        classes: Likewise.

    Raises:
        ValueError: As `known_labels`.
    """
    labels = known_labels("labels", labels, classes)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / (labels >= 0).sum().clamp_min(1)


def match_matrix(row_labels: torch.Tensor, column_labels: torch.Tensor) -> torch.Tensor:
    """`M[i, j] = 1` where the labels are equal and known, else 0.

    Args:
        row_labels: `(rows,)` integer labels; a negative one is unknown and matches nothing, itself included.
        column_labels: `(columns,)`, likewise.

    Returns:
        `(rows, columns)` float32 matrix.
    """
    rows, columns = row_labels[:, None], column_labels[None, :]
    return ((rows == columns) & (rows >= 0)).float()


def soft_targets(matrix: torch.Tensor, kind: str = "softmax") -> torch.Tensor:
    """Turn a match matrix into target distributions over its rows.

    Args:
        matrix: `(rows, columns)`.
        kind: `"softmax"`: the paper's `S(M)`. `"row"`: `M` divided by its row sums; a row without any match stays
            zero and so adds nothing to the divergence.

    Returns:
        `(rows, columns)` distributions.

    Raises:
        ValueError: If `kind` is not known.
    """
    if kind == "softmax":
        return matrix.softmax(dim=-1)
    if kind == "row":
        return matrix / matrix.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
    raise ValueError(f"targets={kind!r} is not known; choose 'softmax' or 'row'")


def kl_contrastive(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`KL(targets || softmax(logits))` in one direction, the mean over rows (eq. 5, as we read it).

    The paper sums over all entries and calls the log-softmax `P`; the mean over rows and this direction, that of
    `torch.nn.functional.kl_div(..., reduction="batchmean")`, are our reading. `0 log 0` is 0.

    Args:
        logits: `(rows, columns)`.
        targets: `(rows, columns)` distributions.

    Returns:
        A scalar; with no rows 0, with a graph.
    """
    if logits.numel() == 0:
        return logits.sum()
    return F.kl_div(logits.log_softmax(dim=-1), targets.to(logits.dtype), reduction="batchmean")


def target_entropy(targets: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the rows of `targets` in nats: the floor under their cross-entropy."""
    if targets.numel() == 0:
        return targets.sum()
    return -torch.xlogy(targets, targets).sum(dim=-1).mean()


def similarity_logits(
    audio_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    audio_scale: torch.Tensor,
    text_scale: torch.Tensor,
    similarity: str = "cross",
    rows: torch.Tensor | slice = slice(None),
) -> list[torch.Tensor]:
    """The matrices `C_a`, `C_t` of eq. 3.

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        similarity: `"cross"`: `s_a E_a E_t^T` and `s_t E_t E_a^T`. `"intra"`: `s_a E_a E_a^T` and `s_t E_t E_t^T`, as
            the paper prints it; that loss does not change when all texts are rotated together. `"both"`: all four.
        rows: Which rows are wanted: a slice, or a mask `(N,)`.

    Returns:
        Two or four matrices of shape `(rows, N)`.

    Raises:
        ValueError: If `similarity` is not known.
    """
    pairs = {
        "cross": [(audio_scale, audio_embeds, text_embeds), (text_scale, text_embeds, audio_embeds)],
        "intra": [(audio_scale, audio_embeds, audio_embeds), (text_scale, text_embeds, text_embeds)],
    }
    pairs["both"] = pairs["cross"] + pairs["intra"]
    if similarity not in pairs:
        raise ValueError(f"similarity={similarity!r} is not known; choose 'cross', 'intra' or 'both'")
    return [scale * embeds[rows] @ columns.T for scale, embeds, columns in pairs[similarity]]


def _terms(weight, matrix, valid, embeds, scales, similarity, targets, rows) -> list[ContrastiveTerm]:
    """The terms of one match matrix; clips that are not valid leave rows and columns."""
    embeds = [(embed if embed.dtype == torch.float64 else embed.float())[valid] for embed in embeds]
    mine = torch.zeros_like(valid)
    mine[rows] = True
    distribution = soft_targets(matrix.to(embeds[0].dtype)[valid & mine][:, valid], targets)
    with torch.autocast(embeds[0].device.type, enabled=False):  # the loss is in float32, whatever the towers run in
        logits = similarity_logits(*embeds, *scales, similarity=similarity, rows=mine[valid])
    return [ContrastiveTerm(weight / len(logits), each, distribution, valid.sum()) for each in logits]


def soft_label_matrix(
    emotion_labels: torch.Tensor,
    gender_labels: torch.Tensor,
    alpha: float = 0.9,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """`M = alpha M_e + (1 - alpha) M_g` (eq. 7); row and column of a clip of unknown gender take `M_e`.

    Args:
        emotion_labels: `(N,)`.
        gender_labels: `(N,)`.
        alpha: Weight of emotion.
        dtype: Type in which they are mixed.

    Returns:
        `(N, N)` matrix of that type.
    """
    emotion = match_matrix(emotion_labels, emotion_labels).to(dtype)
    mixed = alpha * emotion + (1 - alpha) * match_matrix(gender_labels, gender_labels).to(dtype)
    known = gender_labels >= 0
    return torch.where(known[:, None] & known[None, :], mixed, emotion)


def objective_terms(
    objective: str,
    audio_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    audio_scale: torch.Tensor,
    text_scale: torch.Tensor,
    emotion_labels: torch.Tensor,
    gender_labels: torch.Tensor | None = None,
    gender_text_embeds: torch.Tensor | None = None,
    alpha: float = 0.9,
    similarity: str = "cross",
    targets: str = "softmax",
    rows: slice = slice(None),
) -> list[ContrastiveTerm]:
    """The weighted divergences of which an objective is made; arguments as in the three losses below.

    Args:
        objective: `"emo"`, `"ml"` or `"sl"`.
        audio_embeds: `(N, D)`, the global batch.
        text_embeds: Likewise.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        emotion_labels: `(N,)`.
        gender_labels: `(N,)`.
        gender_text_embeds: `(N, D)`, for `"ml"`.
        alpha: Weight of emotion.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.
        rows: The rows of the similarity matrices that are taken here, against all columns: those of one process.

    Returns:
        The terms; those of several processes add up to those of the whole batch.

    Raises:
        ValueError: If `objective` is not known, or `"ml"` lacks gender prompts.
    """
    scales = (audio_scale, text_scale)
    if gender_labels is None:
        gender_labels = torch.full_like(emotion_labels, -1)
    switches = {"scales": scales, "similarity": similarity, "targets": targets, "rows": rows}
    emotion_matrix, known_emotion = match_matrix(emotion_labels, emotion_labels), emotion_labels >= 0
    embeds = (audio_embeds, text_embeds)
    if objective == "emo":
        return _terms(1.0, emotion_matrix, known_emotion, embeds, **switches)
    if objective == "sl":
        dtype = torch.float64 if audio_embeds.dtype == torch.float64 else torch.float32
        matrix = soft_label_matrix(emotion_labels, gender_labels, alpha, dtype)
        return _terms(1.0, matrix, known_emotion, embeds, **switches)
    if objective != "ml":
        raise ValueError(f"objective={objective!r} is not known; choose 'emo', 'ml' or 'sl'")
    if gender_text_embeds is None:
        raise ValueError("objective 'ml' needs the gender prompts: pass gender_input_ids and gender_attention_mask")
    gender_matrix, known_gender = match_matrix(gender_labels, gender_labels), gender_labels >= 0
    return [
        *_terms(alpha, emotion_matrix, known_emotion, embeds, **switches),
        *_terms(1 - alpha, gender_matrix, known_gender, (audio_embeds, gender_text_embeds), **switches),
    ]


def contrastive_loss(terms: list[ContrastiveTerm]) -> torch.Tensor:
    """The weighted sum of the terms' divergences, each divided by the number of valid rows of the global batch."""
    return sum(_share(term) * kl_contrastive(term.logits, term.targets) for term in terms)


def loss_floor(terms: list[ContrastiveTerm]) -> torch.Tensor:
    """The weighted sum of the targets' entropies: cross-entropy is this plus `contrastive_loss`."""
    return sum(_share(term) * target_entropy(term.targets) for term in terms)


def _share(term: ContrastiveTerm) -> torch.Tensor | float:
    """Weight of a mean over the term's rows within the mean over all valid rows of the global batch."""
    total = torch.as_tensor(term.total_rows, device=term.logits.device, dtype=term.logits.dtype)
    return term.weight * (len(term.logits) / total.clamp_min(1))


def emo_clap_loss(
    audio_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    audio_scale: torch.Tensor,
    text_scale: torch.Tensor,
    emotion_labels: torch.Tensor,
    similarity: str = "cross",
    targets: str = "softmax",
) -> torch.Tensor:
    """Emo-CLAP: `1/2 [KL(C_a, M_e) + KL(C_t, M_e)]` (eq. 4).

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length: the clips' emotion prompts.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        emotion_labels: `(N,)`; a clip of unknown emotion is left out, row and column.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.

    Returns:
        A scalar.
    """
    arguments = (audio_embeds, text_embeds, audio_scale, text_scale, emotion_labels)
    return contrastive_loss(objective_terms("emo", *arguments, similarity=similarity, targets=targets))


def ml_gemo_clap_loss(
    audio_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    gender_text_embeds: torch.Tensor,
    audio_scale: torch.Tensor,
    text_scale: torch.Tensor,
    emotion_labels: torch.Tensor,
    gender_labels: torch.Tensor,
    alpha: float = 0.9,
    similarity: str = "cross",
    targets: str = "softmax",
) -> torch.Tensor:
    """ML-GEmo-CLAP: `alpha L(emotion prompts, M_e) + (1 - alpha) L(gender prompts, M_g)` (eq. 6).

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length: the clips' emotion prompts.
        gender_text_embeds: `(N, D)`, unit length: the clips' gender prompts.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        emotion_labels: `(N,)`; unknown is left out of the emotion term.
        gender_labels: `(N,)`; unknown is left out of the gender term.
        alpha: Weight of the emotion term.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.

    Returns:
        A scalar.
    """
    arguments = (audio_embeds, text_embeds, audio_scale, text_scale, emotion_labels, gender_labels)
    return contrastive_loss(objective_terms("ml", *arguments, gender_text_embeds, alpha, similarity, targets))


def sl_gemo_clap_loss(
    audio_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    audio_scale: torch.Tensor,
    text_scale: torch.Tensor,
    emotion_labels: torch.Tensor,
    gender_labels: torch.Tensor,
    alpha: float = 0.9,
    similarity: str = "cross",
    targets: str = "softmax",
) -> torch.Tensor:
    """SL-GEmo-CLAP: Emo's loss with `M = alpha M_e + (1 - alpha) M_g` (eq. 7).

    With emotion-only prompts and `"cross"` similarity, all columns of one emotion are the same text: in a batch that
    is balanced over gender the gradient then does not depend on gender at all. So a clip's text should carry both
    attributes (`sl_texts="joint"` of the configuration).

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length: the clips' prompts.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        emotion_labels: `(N,)`; a clip of unknown emotion is left out, row and column.
        gender_labels: `(N,)`; row and column of a clip of unknown gender take `M = M_e`.
        alpha: Weight of emotion.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.

    Returns:
        A scalar.
    """
    arguments = (audio_embeds, text_embeds, audio_scale, text_scale, emotion_labels, gender_labels)
    return contrastive_loss(objective_terms("sl", *arguments, None, alpha, similarity, targets))
