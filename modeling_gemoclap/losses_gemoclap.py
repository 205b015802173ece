"""The objectives of GEmo-CLAP: match matrices, soft targets, KL divergence, Emo, ML and SL.

`E_a` and `E_t` are audio and text embeddings of shape `(N, D)` with rows of unit length; `s_a` and `s_t` are the two
scales. Equation numbers refer to arXiv 2306.07848. A negative label is unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F


class ContrastiveBatch(NamedTuple):
    """The embeddings, scales and labels of a global batch of `N` clips.

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length: the clips' emotion prompts or joint prompts.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        emotion_labels: `(N,)`.
        gender_labels: `(N,)`; None if all are unknown.
        gender_text_embeds: `(N, D)`, unit length: the clips' gender prompts, required by `"ml"`.
    """

    audio_embeds: torch.Tensor
    text_embeds: torch.Tensor
    audio_scale: torch.Tensor
    text_scale: torch.Tensor
    emotion_labels: torch.Tensor
    gender_labels: torch.Tensor | None = None
    gender_text_embeds: torch.Tensor | None = None


class LossSettings(NamedTuple):
    """The options that the objectives share.

    Args:
        alpha: Weight of emotion against gender.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.
    """

    alpha: float = 0.9
    similarity: str = "cross"
    targets: str = "softmax"


class ContrastiveTerm(NamedTuple):
    """One weighted KL divergence of an objective.

    Args:
        weight: Weight of the divergence in the sum.
        logits: `(rows, columns)`, before the softmax.
        targets: `(rows, columns)`; each row sums to one.
        total_rows: Number of valid rows in the global batch, which may exceed `rows`. It normalises the sum over rows.
    """

    weight: float
    logits: torch.Tensor
    targets: torch.Tensor
    total_rows: int | torch.Tensor


def known_labels(name: str, labels: torch.Tensor | None, classes: list[str]) -> torch.Tensor | None:
    """Map every negative label to -1, the label of unknown classes (transformers uses -100).

    Args:
        name: Name of the labels in the error message.
        labels: `(batch,)`, indices into `classes`, or None. On a GPU the check synchronises with the device.
        classes: The names of the classes.

    Returns:
        `(batch,)`, or None.

    Raises:
        ValueError: If a label is not an index into `classes`.
    """
    if labels is None:
        return None
    out_of_range = labels[labels >= len(classes)].unique().tolist()
    if out_of_range:
        raise ValueError(
            f"{name} has {out_of_range[0]}, but there are {len(classes)} classes, 0 to {len(classes) - 1}: "
            f"{', '.join(classes)}; give a negative label where it is unknown"
        )
    return labels.clamp_min(-1)


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, classes: list[str]) -> torch.Tensor:
    """Mean cross-entropy over the clips with a known label.

    Args:
        logits: `(batch, classes)`.
        labels: `(batch,)`, indices into `classes`; a negative label is ignored.
        classes: The names of the classes.

    Returns:
        A scalar, 0 if all labels are unknown.

    Raises:
        ValueError: If a label is not an index into `classes`.
    """
    labels = known_labels("labels", labels, classes)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / (labels >= 0).sum().clamp_min(1)


def match_matrix(row_labels: torch.Tensor, column_labels: torch.Tensor) -> torch.Tensor:
    """Compute `M[i, j]`: 1 if the labels are equal and known, else 0.

    Args:
        row_labels: `(rows,)` integer labels. A negative label is unknown and matches no label, not even itself.
        column_labels: `(columns,)` integer labels.

    Returns:
        `(rows, columns)` float32 matrix.
    """
    rows, columns = row_labels[:, None], column_labels[None, :]
    return ((rows == columns) & (rows >= 0)).float()


def soft_targets(matrix: torch.Tensor, kind: str = "softmax") -> torch.Tensor:
    """Convert each row of a match matrix into a target distribution.

    Args:
        matrix: `(rows, columns)`.
        kind: `"softmax"` is the paper's `S(M)`. `"row"` divides `M` by its row sums; a row without a match remains
            zero and does not contribute to the divergence.

    Returns:
        `(rows, columns)` distributions.

    Raises:
        ValueError: If `kind` is unknown.
    """
    if kind == "softmax":
        return matrix.softmax(dim=-1)
    if kind == "row":
        return matrix / matrix.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
    raise ValueError(f"targets={kind!r} is unknown; choose 'softmax' or 'row'")


def kl_contrastive(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute `KL(targets || softmax(logits))` as the mean over rows (eq. 5, in our interpretation).

    The paper sums over all entries and calls the log-softmax `P`. We take the mean over rows, and the direction of
    `torch.nn.functional.kl_div(..., reduction="batchmean")`. `0 log 0` is 0.

    Args:
        logits: `(rows, columns)`.
        targets: `(rows, columns)` distributions.

    Returns:
        A scalar. Without rows it is 0 and still has a graph.
    """
    if logits.numel() == 0:
        return logits.sum()
    return F.kl_div(logits.log_softmax(dim=-1), targets.to(logits.dtype), reduction="batchmean")


def target_entropy(targets: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the rows of `targets` in nats, which is the minimum of their cross-entropy."""
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
    """Compute the matrices `C_a` and `C_t` of eq. 3.

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        similarity: `"cross"`: `s_a E_a E_t^T` and `s_t E_t E_a^T`. `"intra"`: `s_a E_a E_a^T` and `s_t E_t E_t^T`, as
            printed in the paper; this loss is invariant to a rotation of all texts. `"both"`: all four.
        rows: The rows to compute: a slice, or a mask `(N,)`.

    Returns:
        Two or four matrices of shape `(rows, N)`.

    Raises:
        ValueError: If `similarity` is unknown.
    """
    pairs = {
        "cross": [(audio_scale, audio_embeds, text_embeds), (text_scale, text_embeds, audio_embeds)],
        "intra": [(audio_scale, audio_embeds, audio_embeds), (text_scale, text_embeds, text_embeds)],
    }
    pairs["both"] = pairs["cross"] + pairs["intra"]
    if similarity not in pairs:
        raise ValueError(f"similarity={similarity!r} is unknown; choose 'cross', 'intra' or 'both'")
    return [scale * embeds[rows] @ columns.T for scale, embeds, columns in pairs[similarity]]


def _matrix_terms(
    weight: float, matrix: torch.Tensor, valid: torch.Tensor, batch: ContrastiveBatch, settings: LossSettings, rows
) -> list[ContrastiveTerm]:
    """The terms of one match matrix `(N, N)`, without the rows and columns of clips that are not `valid`, `(N,)`."""
    embeds = (batch.audio_embeds, batch.text_embeds)
    embeds = [(embed if embed.dtype == torch.float64 else embed.float())[valid] for embed in embeds]
    selected = torch.zeros_like(valid)
    selected[rows] = True
    distribution = soft_targets(matrix.to(embeds[0].dtype)[valid & selected][:, valid], settings.targets)
    with torch.autocast(embeds[0].device.type, enabled=False):  # the loss stays in float32 under autocast
        scales = (batch.audio_scale, batch.text_scale)
        matrices = similarity_logits(*embeds, *scales, similarity=settings.similarity, rows=selected[valid])
    return [ContrastiveTerm(weight / len(matrices), logits, distribution, valid.sum()) for logits in matrices]


def soft_label_matrix(
    emotion_labels: torch.Tensor,
    gender_labels: torch.Tensor,
    alpha: float = 0.9,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Compute `M = alpha M_e + (1 - alpha) M_g` (eq. 7).

    The row and the column of a clip of unknown gender are those of `M_e`.

    Args:
        emotion_labels: `(N,)`.
        gender_labels: `(N,)`.
        alpha: Weight of emotion.
        dtype: Data type of the computation and of the result.

    Returns:
        `(N, N)` matrix.
    """
    emotion = match_matrix(emotion_labels, emotion_labels).to(dtype)
    mixed = alpha * emotion + (1 - alpha) * match_matrix(gender_labels, gender_labels).to(dtype)
    known = gender_labels >= 0
    return torch.where(known[:, None] & known[None, :], mixed, emotion)


def objective_terms(
    objective: str, batch: ContrastiveBatch, settings: LossSettings, rows: slice = slice(None)
) -> list[ContrastiveTerm]:
    """Compute the weighted divergences of an objective.

    Args:
        objective: `"emo"`, `"ml"` or `"sl"`.
        batch: The global batch.
        settings: The options of the loss.
        rows: The rows of the similarity matrices to compute, against all columns; those of one process.

    Returns:
        The terms. The sum over processes is the loss of the global batch.

    Raises:
        ValueError: If `objective` is unknown, or if it is `"ml"` and there are no gender prompts.
    """
    emotions, genders = batch.emotion_labels, batch.gender_labels
    if genders is None:
        genders = torch.full_like(emotions, -1)
    emotion_matrix, known_emotion = match_matrix(emotions, emotions), emotions >= 0
    if objective == "emo":
        return _matrix_terms(1.0, emotion_matrix, known_emotion, batch, settings, rows)
    if objective == "sl":
        dtype = torch.float64 if batch.audio_embeds.dtype == torch.float64 else torch.float32
        matrix = soft_label_matrix(emotions, genders, settings.alpha, dtype)
        return _matrix_terms(1.0, matrix, known_emotion, batch, settings, rows)
    if objective != "ml":
        raise ValueError(f"objective={objective!r} is unknown; choose 'emo', 'ml' or 'sl'")
    if batch.gender_text_embeds is None:
        raise ValueError("objective 'ml' needs the gender prompts: pass gender_input_ids and gender_attention_mask")
    gender_matrix, known_gender = match_matrix(genders, genders), genders >= 0
    gender_batch = batch._replace(text_embeds=batch.gender_text_embeds)
    return [
        *_matrix_terms(settings.alpha, emotion_matrix, known_emotion, batch, settings, rows),
        *_matrix_terms(1 - settings.alpha, gender_matrix, known_gender, gender_batch, settings, rows),
    ]


def contrastive_loss(terms: list[ContrastiveTerm]) -> torch.Tensor:
    """Weighted sum of the terms' divergences, each divided by the number of valid rows of the global batch."""
    return sum(_global_weight(term) * kl_contrastive(term.logits, term.targets) for term in terms)


def loss_floor(terms: list[ContrastiveTerm]) -> torch.Tensor:
    """Weighted sum of the targets' entropies. The cross-entropy is this value plus `contrastive_loss`."""
    return sum(_global_weight(term) * target_entropy(term.targets) for term in terms)


def _global_weight(term: ContrastiveTerm) -> torch.Tensor | float:
    """Weight that turns a mean over the term's rows into its part of the mean over the global batch."""
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
        emotion_labels: `(N,)`; the row and the column of a clip of unknown emotion are omitted.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.

    Returns:
        A scalar.
    """
    batch = ContrastiveBatch(audio_embeds, text_embeds, audio_scale, text_scale, emotion_labels)
    return contrastive_loss(objective_terms("emo", batch, LossSettings(similarity=similarity, targets=targets)))


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
        emotion_labels: `(N,)`; the emotion term omits clips of unknown emotion.
        gender_labels: `(N,)`; the gender term omits clips of unknown gender.
        alpha: Weight of the emotion term.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.

    Returns:
        A scalar.
    """
    labels = (emotion_labels, gender_labels)
    batch = ContrastiveBatch(audio_embeds, text_embeds, audio_scale, text_scale, *labels, gender_text_embeds)
    return contrastive_loss(objective_terms("ml", batch, LossSettings(alpha, similarity, targets)))


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
    """SL-GEmo-CLAP: the loss of Emo-CLAP with `M = alpha M_e + (1 - alpha) M_g` (eq. 7).

    With emotion-only prompts and `"cross"` similarity, all columns of one emotion are the same text. In a batch that
    is balanced over gender, the gradient then does not depend on gender. The text of a clip should therefore name
    both attributes (`sl_texts="joint"` in the configuration).

    Args:
        audio_embeds: `(N, D)`, unit length.
        text_embeds: `(N, D)`, unit length: the clips' prompts.
        audio_scale: `s_a`.
        text_scale: `s_t`.
        emotion_labels: `(N,)`; the row and the column of a clip of unknown emotion are omitted.
        gender_labels: `(N,)`; the row and the column of a clip of unknown gender are those of `M_e`.
        alpha: Weight of emotion.
        similarity: See `similarity_logits`.
        targets: See `soft_targets`.

    Returns:
        A scalar.
    """
    labels = (emotion_labels, gender_labels)
    batch = ContrastiveBatch(audio_embeds, text_embeds, audio_scale, text_scale, *labels)
    return contrastive_loss(objective_terms("sl", batch, LossSettings(alpha, similarity, targets)))
