"""The objectives against hand-worked numbers and an independent computation in NumPy float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from modeling_gemoclap.losses_gemoclap import (
    ContrastiveBatch,
    ContrastiveTerm,
    LossSettings,
    classification_loss,
    contrastive_loss,
    emo_clap_loss,
    kl_contrastive,
    known_labels,
    loss_floor,
    match_matrix,
    ml_gemo_clap_loss,
    objective_terms,
    similarity_logits,
    sl_gemo_clap_loss,
    soft_label_matrix,
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


# ---- parts ----------------------------------------------------------------------------------------------------------
CLASSES = ["angry", "happy", "sad"]


def test_labels_of_unknown_classes():
    assert known_labels("emotion_labels", None, CLASSES) is None
    assert known_labels("emotion_labels", torch.tensor([0, -100, 2, -1]), CLASSES).tolist() == [0, -1, 2, -1]
    with pytest.raises(ValueError) as error:
        known_labels("emotion_labels", torch.tensor([5, 0, 3, 3]), CLASSES)
    assert str(error.value) == (
        "emotion_labels has 3, but there are 3 classes, 0 to 2: angry, happy, sad; give a negative label where it is "
        "unknown"
    )


def test_classification_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]]))
    loss = classification_loss(logits, torch.tensor([0, 1, -100, -1]), CLASSES)
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2)
    assert classification_loss(logits[:1], torch.tensor([2]), CLASSES).item() == pytest.approx(math.log(4))
    without = classification_loss(logits.requires_grad_(), torch.full((4,), -1), CLASSES)
    assert without.item() == 0 and without.requires_grad
    with pytest.raises(ValueError, match="^labels has 3, but there are 3 classes"):
        classification_loss(logits, torch.tensor([0, 1, 2, 3]), CLASSES)


def test_the_settings_of_the_paper():
    assert LossSettings() == (0.9, "cross", "softmax")
    rng = torch.Generator().manual_seed(7)
    audio, text, gender_text = (torch.nn.functional.normalize(torch.randn(6, 5, generator=rng), dim=-1) for _ in "123")
    labels = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 1, 1, 0, 0, 1])
    scales, given = (torch.tensor(4.0), torch.tensor(6.0)), {"similarity": "cross", "targets": "softmax"}
    assert torch.equal(
        emo_clap_loss(audio, text, *scales, labels[0]), emo_clap_loss(audio, text, *scales, labels[0], **given)
    )
    tensors = audio, text, gender_text, *scales, *labels
    assert torch.equal(ml_gemo_clap_loss(*tensors), ml_gemo_clap_loss(*tensors, alpha=0.9, **given))
    tensors = audio, text, *scales, *labels
    assert torch.equal(sl_gemo_clap_loss(*tensors), sl_gemo_clap_loss(*tensors, alpha=0.9, **given))
    matrix = soft_label_matrix(*labels)
    assert torch.equal(matrix, soft_label_matrix(*labels, 0.9)) and matrix.dtype == torch.float32
    assert matrix[0].tolist() == pytest.approx([1, 0, 0, 1, 0.1, 0]), "the same emotion and gender, or gender alone"
    assert torch.equal(soft_targets(matrix), soft_targets(matrix, "softmax"))


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_the_rows_of_two_processes_give_the_loss_of_the_batch(objective):
    rng = np.random.default_rng(8)
    embeds = [torch.tensor(unit(rng, len(EMOTIONS))) for _ in range(3)]
    labels = torch.tensor(EMOTIONS), torch.tensor(GENDERS)
    scale = torch.tensor(5.0, dtype=torch.float64)
    batch = ContrastiveBatch(*embeds[:2], scale, scale, *labels, embeds[2])
    settings = LossSettings(alpha=0.6, targets="row")
    complete = objective_terms(objective, batch, settings)
    halves = [objective_terms(objective, batch, settings, rows) for rows in (slice(0, 3), slice(3, None))]
    for measure in (contrastive_loss, loss_floor):
        assert sum(map(measure, halves)).item() == pytest.approx(measure(complete).item(), rel=1e-12)
        assert measure(halves[0]).item() != pytest.approx(measure(complete).item(), rel=0.05)
    for term, first, second in zip(complete, *halves, strict=True):
        assert torch.equal(term.targets, torch.cat([first.targets, second.targets]))
        assert len(first.logits) < len(term.logits) == term.total_rows == first.total_rows == second.total_rows


def test_without_gender_labels_sl_is_emo():
    rng = np.random.default_rng(9)
    audio, text = (torch.tensor(unit(rng, 6)) for _ in range(2))
    scale = torch.tensor(5.0, dtype=torch.float64)
    batch = ContrastiveBatch(audio, text, scale, scale, torch.tensor([0, 1, 2, 0, -1, 1]))
    assert batch.gender_labels is None and batch.gender_text_embeds is None
    emo, sl = (contrastive_loss(objective_terms(name, batch, LossSettings())).item() for name in ("emo", "sl"))
    assert emo == sl


def test_targets_are_computed_in_the_precision_of_the_loss():
    """Targets of float32 are those of a computation in float32; other bits would change published training runs."""
    rng = torch.Generator().manual_seed(10)
    audio, text = (torch.nn.functional.normalize(torch.randn(8, 5, generator=rng), dim=-1) for _ in range(2))
    labels = torch.tensor(EMOTIONS).abs(), torch.tensor(GENDERS).abs()
    batch = ContrastiveBatch(audio, text, torch.tensor(5.0), torch.tensor(5.0), *labels)
    for alpha in np.linspace(0.01, 0.99, 50).tolist():
        [term, _] = objective_terms("sl", batch, LossSettings(alpha, targets="row"))
        assert torch.equal(term.targets, soft_targets(soft_label_matrix(*labels, alpha), "row"))
    double = kl_contrastive(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert double.dtype == torch.float32 and double.item() == pytest.approx(math.log(2))


def test_entropy_and_weights_by_hand():
    assert target_entropy(torch.tensor([[0.25, 0.75]])).item() == pytest.approx(
        -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    )
    assert target_entropy(torch.ones(1, 1)).item() == 0 and target_entropy(torch.ones(0, 3)).item() == 0
    logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert contrastive_loss([ContrastiveTerm(3.0, logits, targets, 1)]).item() == pytest.approx(3 * math.log(2))
    terms = [ContrastiveTerm(2.0, logits, targets, 4), ContrastiveTerm(1.0, logits, targets, torch.tensor(2))]
    assert contrastive_loss(terms).item() == pytest.approx((2 / 4 + 1 / 2) * math.log(2))
    even = torch.tensor([[0.5, 0.5]])
    assert loss_floor([ContrastiveTerm(2.0, logits, even, 4)]).item() == pytest.approx(2 / 4 * math.log(2))
    none = ContrastiveTerm(1.0, torch.zeros(0, 2), torch.zeros(0, 2), 0)
    assert contrastive_loss([none]).item() == 0


def test_no_tensor_is_made_on_another_device():
    """A wrong device is an error also on the device `meta`."""
    matrix = torch.empty(2, 2, device="meta")
    for total in (2, torch.empty((), device="meta")):
        assert contrastive_loss([ContrastiveTerm(1.0, matrix, matrix, total)]).device.type == "meta"
        [weighted] = [ContrastiveTerm(1.0, matrix, matrix, total)]
        assert loss_floor([weighted]).device.type == "meta"


def test_errors_name_what_is_unknown():
    scale, embeds, labels = torch.tensor(1.0), torch.eye(2), torch.tensor([0, 1])
    batch = ContrastiveBatch(embeds, embeds, scale, scale, labels, labels)
    with pytest.raises(ValueError) as error:
        objective_terms("all", batch, LossSettings())
    assert str(error.value) == "objective='all' is unknown; choose 'emo', 'ml' or 'sl'"
    with pytest.raises(ValueError) as error:
        objective_terms("ml", batch, LossSettings())
    assert str(error.value) == (
        "objective 'ml' needs the gender prompts: pass gender_input_ids and gender_attention_mask"
    )
    with pytest.raises(ValueError) as error:
        similarity_logits(embeds, embeds, scale, scale, "cosine")
    assert str(error.value) == "similarity='cosine' is unknown; choose 'cross', 'intra' or 'both'"
    with pytest.raises(ValueError) as error:
        soft_targets(embeds, "flat")
    assert str(error.value) == "targets='flat' is unknown; choose 'softmax' or 'row'"
