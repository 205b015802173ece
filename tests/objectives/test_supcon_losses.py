"""Xiang's losses against NumPy in float64, results by hand, and the effect of the printed form of eq. 2."""

import math

import numpy as np
import pytest
import torch

from modeling_gemoclap.objectives.two_stage.losses import cosine_margin, info_nce


def cosine(x, y):
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def np_info_nce(positives, negatives, temperature):
    """Eq. 2 and 3 pair by pair, with the logarithm."""
    total, count = 0.0, len(positives)
    for i in range(count):
        repelled = sum(math.exp(cosine(positives[i], n) / temperature) for n in negatives)
        for j in range(count):
            if i != j:
                attracted = math.exp(cosine(positives[i], positives[j]) / temperature)
                total -= math.log(attracted / (attracted + repelled))
    size = 2 * count
    return 4 / (size * (size - 2)) * total


def np_margin(positives, negatives, alpha, margin):
    together = [1 - cosine(positives[i], positives[i + 1]) for i in range(0, len(positives), 2)]
    apart = [max(0.0, cosine(p, n) - margin) for p, n in zip(positives, negatives, strict=True)]
    return alpha * np.mean(together) + np.mean(apart)


@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_against_numpy(count, temperature):
    generator = np.random.default_rng(count)
    positives, negatives = generator.standard_normal((2, count, 5))
    tensors = torch.from_numpy(positives), torch.from_numpy(negatives)
    found = info_nce(tensors[0], *tensors, temperature).item()
    assert found == pytest.approx(np_info_nce(positives, negatives, temperature), rel=1e-12)
    assert cosine_margin(*tensors, 0.5, 0.4).item() == pytest.approx(
        np_margin(positives, negatives, 0.5, 0.4), rel=1e-12
    )


def test_by_hand():
    right, up, left = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([[-2.0, 0.0]])
    positives, negatives = torch.cat([right, up]), torch.cat([left, left])
    # s(p1, p2) = 0; s(p1, n) = -1 twice, s(p2, n) = 0 twice: -log(1 / (1 + 2 / e)) and -log(1 / (1 + 2))
    expected = (math.log(1 + 2 / math.e) + math.log(3)) / 2
    assert info_nce(positives, positives, negatives, 1.0).item() == pytest.approx(expected, rel=1e-6)
    # the loss of an orthogonal pair is 1; no negative has a cosine above the margin
    assert cosine_margin(positives, negatives).item() == pytest.approx(0.5, rel=1e-6)
    assert cosine_margin(positives, positives).item() == pytest.approx(0.5 + 0.6, rel=1e-6)
    same = torch.cat([right, right])
    assert cosine_margin(same, torch.cat([up, up])).item() == 0.0


def test_losses_are_independent_of_lengths_and_small_temperatures_do_not_overflow():
    torch.manual_seed(0)
    positives, negatives = torch.randn(2, 6, 4)
    loss = info_nce(positives, positives, negatives)
    assert info_nce(7 * positives, 0.1 * positives, 3 * negatives).item() == pytest.approx(loss.item(), rel=1e-5)
    assert cosine_margin(7 * positives, 3 * negatives).item() == pytest.approx(
        cosine_margin(positives, negatives).item(), rel=1e-5
    )
    assert torch.isfinite(info_nce(positives, positives, positives, 1e-3))


def test_the_mean_over_processes_is_the_loss_of_the_complete_batch():
    torch.manual_seed(0)
    positives, negatives = torch.randn(2, 8, 4, dtype=torch.float64)
    complete = info_nce(positives, positives, negatives)
    parts = [info_nce(positives[i : i + 4], positives, negatives, first=i) for i in (0, 4)]
    assert torch.stack(parts).mean().item() == pytest.approx(complete.item(), rel=1e-12)


def test_the_printed_form_would_push_positives_apart():
    """A gradient step on the form without `-log` lowers the cosine of positives; `-log` raises it."""
    torch.manual_seed(0)
    positives, negatives = torch.randn(2, 6, 8, dtype=torch.float64)

    def printed(p):
        unit, other = torch.nn.functional.normalize(p, dim=-1), torch.nn.functional.normalize(negatives, dim=-1)
        attracted, repelled = (unit @ unit.T / 0.07).exp(), (unit @ other.T / 0.07).exp().sum(1, keepdim=True)
        ratio = attracted / (attracted + repelled)
        return (ratio.sum() - ratio.diagonal().sum()) / (len(p) * (len(p) - 1))

    def mean_cosine(p):
        unit = torch.nn.functional.normalize(p, dim=-1)
        return ((unit @ unit.T).sum() - len(p)) / (len(p) * (len(p) - 1))

    def after_a_step(loss):
        start = positives.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(start), start)
        return mean_cosine(positives - 0.01 * slope / slope.norm()).item()

    before = mean_cosine(positives).item()
    assert after_a_step(printed) < before < after_a_step(lambda p: info_nce(p, p, negatives))


def test_the_settings_of_the_paper():
    torch.manual_seed(1)
    positives, negatives = torch.randn(2, 6, 4)
    assert torch.equal(info_nce(positives, positives, negatives), info_nce(positives, positives, negatives, 0.07, 0))
    assert torch.equal(cosine_margin(positives, negatives), cosine_margin(positives, negatives, 0.5, 0.4))


def test_no_tensor_is_made_on_another_device():
    """A wrong device is an error also on the device `meta`."""
    clips = torch.empty(4, 3, device="meta")
    assert info_nce(clips, clips, clips).device.type == cosine_margin(clips, clips).device.type == "meta"
