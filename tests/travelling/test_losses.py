"""The objectives against hand-worked numbers and an independent computation in NumPy float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from modeling_gemoclap.losses_gemoclap import (
    ContrastiveBatch,
    LossSettings,
    contrastive_loss,
    emo_clap_loss,
    kl_contrastive,
    loss_floor,
    match_matrix,
    ml_gemo_clap_loss,
    objective_terms,
    similarity_logits,
    sl_gemo_clap_loss,
    soft_targets,
    target_entropy,
)


# ---- an independent computation: loops over rows, float64, no torch -------------------------------------------------
def np_match(labels):
    return np.array([[float(a == b and a != -1) for b in labels] for a in labels])


def np_targets(matrix, kind):
    rows = []
    for row in matrix:
        weights = np.exp(row) if kind == "softmax" else row
        rows.append(weights / weights.sum())
    return np.array(rows)


def np_kl(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        total += sum(t * (math.log(t) - (x - log_sum)) for x, t in zip(row, target, strict=True) if t > 0)
    return total / len(logits)


def np_one(matrix, valid, audio, text, scales, similarity, kind):
    index = np.flatnonzero(valid)
    if not len(index):
        return 0.0
    audio, text, targets = audio[index], text[index], np_targets(matrix[np.ix_(index, index)], kind)
    cross = 0.5 * (np_kl(scales[0] * audio @ text.T, targets) + np_kl(scales[1] * text @ audio.T, targets))
    intra = 0.5 * (np_kl(scales[0] * audio @ audio.T, targets) + np_kl(scales[1] * text @ text.T, targets))
    return {"cross": cross, "intra": intra, "both": (cross + intra) / 2}[similarity]


def np_objective(objective, audio, text, gender_text, scales, emotion, gender, alpha, similarity, kind):
    emotion, gender = np.array(emotion), np.array(gender)
    if objective == "emo":
        return np_one(np_match(emotion), emotion != -1, audio, text, scales, similarity, kind)
    if objective == "ml":
        first = np_one(np_match(emotion), emotion != -1, audio, text, scales, similarity, kind)
        second = np_one(np_match(gender), gender != -1, audio, gender_text, scales, similarity, kind)
        return alpha * first + (1 - alpha) * second
    matrix = alpha * np_match(emotion) + (1 - alpha) * np_match(gender)
    for i, j in itertools.product(range(len(gender)), repeat=2):
        if gender[i] == -1 or gender[j] == -1:
            matrix[i, j] = np_match(emotion)[i, j]
    return np_one(matrix, emotion != -1, audio, text, scales, similarity, kind)


def unit(rng, rows, size=6):
    values = rng.standard_normal((rows, size))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


EMOTIONS = [0, 1, 2, 0, 1, -1, 2, 0]
GENDERS = [0, 1, 0, 1, -1, 0, 1, 0]


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
@pytest.mark.parametrize("similarity", ["cross", "intra", "both"])
@pytest.mark.parametrize("targets", ["softmax", "row"])
@pytest.mark.parametrize("alpha", [0.9, 0.5, 1.0])
def test_objectives_equal_numpy(objective, similarity, targets, alpha):
    rng = np.random.default_rng(1)
    audio, text, gender_text = (unit(rng, len(EMOTIONS)) for _ in range(3))
    expected = np_objective(
        objective, audio, text, gender_text, (7.0, 3.0), EMOTIONS, GENDERS, alpha, similarity, targets
    )
    tensors = [torch.tensor(x, dtype=torch.float64) for x in (audio, text, gender_text)]
    scales = (torch.tensor(7.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))
    emotion, gender = torch.tensor(EMOTIONS), torch.tensor(GENDERS)
    options = {"similarity": similarity, "targets": targets}
    if objective == "emo":
        loss = emo_clap_loss(*tensors[:2], *scales, emotion, **options)
    elif objective == "ml":
        loss = ml_gemo_clap_loss(*tensors, *scales, emotion, gender, alpha=alpha, **options)
    else:
        loss = sl_gemo_clap_loss(*tensors[:2], *scales, emotion, gender, alpha=alpha, **options)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_match_matrix_by_hand():
    matrix = match_matrix(torch.tensor([0, 1, -1]), torch.tensor([1, 0, -1, 0]))
    assert matrix.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_targets_by_hand():
    matrix = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    e = math.e
    assert soft_targets(matrix, "softmax")[0].tolist() == pytest.approx([e / (2 * e + 2)] * 2 + [1 / (2 * e + 2)] * 2)
    assert soft_targets(matrix, "row")[0].tolist() == [0.5, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="softmax"):
        soft_targets(matrix, "flat")


@pytest.mark.parametrize(("classes", "share"), [(4, 0.475), (7, 0.312)])
def test_softmax_targets_are_nearly_flat(classes, share):
    """The fraction of a row's mass on its class, with balanced classes."""
    labels = torch.arange(classes).repeat(8)
    row = soft_targets(match_matrix(labels, labels), "softmax")[0]
    assert row[labels == 0].sum().item() == pytest.approx(share, abs=1e-3)


def test_kl_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    targets = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert kl_contrastive(logits, targets).item() == pytest.approx(
        math.log(2) / 2
    )  # rows: ln 2 and 0, because 0 log 0 is 0
    assert target_entropy(targets).item() == pytest.approx(0.5 * -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))


def test_emo_by_hand():
    """Two clips of two classes, audio equal to text: logits are s on the diagonal and 0 elsewhere."""
    eye = torch.eye(2)
    loss = emo_clap_loss(eye, eye, torch.tensor(1.0), torch.tensor(1.0), torch.tensor([0, 1]), targets="softmax")
    assert loss.item() == pytest.approx(0.0, abs=1e-7)  # the optimal logits for softmax targets differ by one
    loss = emo_clap_loss(eye, eye, torch.tensor(2.0), torch.tensor(3.0), torch.tensor([0, 1]), targets="row")
    assert loss.item() == pytest.approx(0.5 * (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3))))


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_loss_without_known_labels_is_zero_with_a_graph(objective):
    embeds = [torch.nn.functional.normalize(torch.randn(3, 4), dim=-1).requires_grad_() for _ in range(3)]
    scale = torch.tensor(2.0, requires_grad=True)
    unknown = torch.full((3,), -1)
    batch = ContrastiveBatch(*embeds[:2], scale, scale, unknown, unknown, embeds[2])
    loss = contrastive_loss(objective_terms(objective, batch, LossSettings()))
    assert loss.item() == 0.0 and loss.requires_grad
    loss.backward()
    assert all(embed.grad is not None and not embed.grad.any() for embed in embeds[:2])


def test_unknown_emotions_are_omitted():
    rng = torch.Generator().manual_seed(0)
    audio, text = (torch.nn.functional.normalize(torch.randn(6, 5, generator=rng), dim=-1) for _ in range(2))
    emotion, gender = torch.tensor([0, 1, -1, 0, 1, -1]), torch.tensor([0, 1, 1, 1, 0, 0])
    keep = emotion != -1
    scale = torch.tensor(4.0)
    whole = sl_gemo_clap_loss(audio, text, scale, scale, emotion, gender)
    rest = sl_gemo_clap_loss(audio[keep], text[keep], scale, scale, emotion[keep], gender[keep])
    assert whole.item() == pytest.approx(rest.item(), abs=1e-6)


def gender_gradient(similarity, text_of_clip, genders):
    """Gradient of SL with respect to the audio, in a batch balanced over emotion and gender."""
    rng = torch.Generator().manual_seed(3)
    emotions = torch.tensor([0, 0, 1, 1, 2, 2])
    audio = torch.nn.functional.normalize(torch.randn(6, 5, generator=rng, dtype=torch.float64), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(6, 5, generator=rng, dtype=torch.float64), dim=-1)
    audio.requires_grad_()
    scale = torch.tensor(5.0, dtype=torch.float64)
    loss = sl_gemo_clap_loss(audio, texts[text_of_clip], scale, scale, emotions, genders, similarity=similarity)
    return torch.autograd.grad(loss, audio)[0]


def test_gradient_of_sl_with_emotion_texts_is_independent_of_gender():
    """All columns of an emotion are the same text, so the gradient of a balanced batch does not depend on gender."""
    one_text_an_emotion = torch.tensor([0, 0, 1, 1, 2, 2])
    balanced, swapped = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([0, 1, 1, 0, 0, 1])
    plain = gender_gradient("cross", one_text_an_emotion, balanced)
    assert torch.allclose(plain, gender_gradient("cross", one_text_an_emotion, swapped), atol=1e-14, rtol=0)
    joint = torch.arange(6)
    difference = gender_gradient("cross", joint, balanced) - gender_gradient("cross", joint, swapped)
    assert difference.abs().max() > 1e-3


def test_sl_with_emotion_texts_is_emo_with_smoothed_labels():
    """The audio gradient of SL is that of targets averaged over gender."""
    emotions, genders = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    rng = torch.Generator().manual_seed(4)
    audio = torch.nn.functional.normalize(
        torch.randn(6, 5, generator=rng, dtype=torch.float64), dim=-1
    ).requires_grad_()
    texts = torch.nn.functional.normalize(torch.randn(3, 5, generator=rng, dtype=torch.float64), dim=-1)[emotions]
    scale = torch.tensor(5.0, dtype=torch.float64)
    sl = torch.autograd.grad(sl_gemo_clap_loss(audio, texts, scale, scale, emotions, genders, targets="row"), audio)[0]
    matrix = 0.9 * match_matrix(emotions, emotions).double() + 0.1 * match_matrix(genders, genders).double()
    smooth = soft_targets(matrix, "row").view(6, 3, 2).mean(2).repeat_interleave(2, 1)
    logits = similarity_logits(audio, texts, scale, scale)
    by_audio = kl_contrastive(logits[0], smooth)
    by_text = kl_contrastive(logits[1], smooth.view(3, 2, 6).mean(1).repeat_interleave(2, 0))
    emo = torch.autograd.grad((by_audio + by_text) / 2, audio)[0]
    assert torch.allclose(sl, emo, atol=1e-14, rtol=0)


def test_intra_is_invariant_to_a_rotation_of_all_texts():
    """Eq. 3 as printed does not relate texts to clips."""
    rng = torch.Generator().manual_seed(5)
    audio, text = (
        torch.nn.functional.normalize(torch.randn(6, 5, generator=rng, dtype=torch.float64), dim=-1) for _ in range(2)
    )
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64))[0]
    emotion, gender, scale = torch.tensor([0, 1, 2] * 2), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor(5.0).double()
    losses = {
        similarity: [
            sl_gemo_clap_loss(audio, t, scale, scale, emotion, gender, similarity=similarity).item()
            for t in (text, text @ rotation)
        ]
        for similarity in ("intra", "cross", "both")
    }
    assert losses["intra"][0] == pytest.approx(losses["intra"][1], abs=1e-12)
    assert abs(losses["cross"][0] - losses["cross"][1]) > 1e-2
    assert losses["both"][0] == pytest.approx((losses["cross"][0] + losses["intra"][0]) / 2)


def test_cross_entropy_is_floor_plus_loss():
    rng = torch.Generator().manual_seed(6)
    audio, text = (torch.nn.functional.normalize(torch.randn(6, 5, generator=rng), dim=-1) for _ in range(2))
    scale = torch.tensor(5.0)
    batch = ContrastiveBatch(audio, text, scale, scale, torch.tensor([0, 1, 2, 0, 1, 2]))
    terms = objective_terms("emo", batch, LossSettings())
    by_hand = sum(0.5 * -(term.targets * term.logits.log_softmax(-1)).sum(-1).mean() for term in terms)
    assert (contrastive_loss(terms) + loss_floor(terms)).item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_loss_is_computed_in_float32():
    audio = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    loss = emo_clap_loss(
        audio.bfloat16(), audio.bfloat16(), torch.tensor(5.0), torch.tensor(5.0), torch.tensor([0, 1, 0, 1])
    )
    assert loss.dtype == torch.float32
