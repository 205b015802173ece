"""docs/open_choices.md: its pictures show what the losses compute, and its statements and figures hold."""

import math
import re
import sys

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import open_choices  # noqa: E402
from documents import with_blocks  # noqa: E402

from modeling_gemoclap.losses_gemoclap import soft_targets  # noqa: E402

TEXT = open_choices.PAGE.read_text(encoding="utf-8")


def test_the_targets_that_are_drawn():
    emotion, gender, mixed, softmax, row = open_choices.target_matrices().values()
    same = torch.block_diag(*[torch.ones(2, 2)] * 3)
    assert torch.equal(emotion, same) and torch.equal(gender, torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(3, 3))
    assert torch.allclose(mixed, 0.9 * same + 0.1 * gender)
    assert torch.allclose(softmax, mixed.exp() / mixed.exp().sum(1, keepdim=True))
    assert torch.allclose(row[0], torch.tensor([1.0, 0.9, 0.1, 0.0, 0.1, 0.0]) / 2.1)


def test_the_share_of_the_own_class():
    for classes, share in ((4, "47.5 %"), (7, "31 %")):
        labels = torch.arange(classes).repeat(3)
        targets = soft_targets((labels[:, None] == labels).float())
        own = targets[0][labels == 0].sum().item()
        assert own == pytest.approx(math.e / (math.e + classes - 1), abs=1e-6)
        assert f"{100 * own:.{len(share.partition('.')[2][:1])}f} %" == share and share in TEXT


def test_intra_does_not_see_that_texts_are_rotated():
    cross, intra, cross_rotated, intra_rotated = open_choices.similarities().values()
    assert torch.equal(intra["matrix"], intra_rotated["matrix"])
    assert intra["loss"] == pytest.approx(intra_rotated["loss"], abs=1e-6)
    assert (intra["accuracy"], intra_rotated["accuracy"]) == (1, 0), "what the page says of the nearest text"
    assert cross_rotated["loss"] > cross["loss"] + 1 and not torch.equal(cross["matrix"], cross_rotated["matrix"])


def test_gender_in_the_gradient_needs_joint_texts():
    change = open_choices.gender_in_gradient()
    assert change["emotion"] < 1e-12 and change["joint"] > 1e-3


@pytest.mark.parametrize("path", [open_choices.TARGETS, open_choices.SIMILARITY], ids=lambda path: path.name)
def test_the_pictures_exist_and_are_drawn_again(path, tmp_path, monkeypatch):
    assert f"({path.name})" in TEXT and path.stat().st_size < 100_000
    drawn = []
    monkeypatch.setattr(open_choices, "draw", lambda panels, path: drawn.append((path, panels)))
    monkeypatch.setattr(open_choices, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("")
    open_choices.main()
    [panels] = [panels for drawn_path, panels in drawn if drawn_path == path]
    matrices = open_choices.target_matrices() if path == open_choices.TARGETS else open_choices.similarities()
    assert list(panels) == list(matrices)
    monkeypatch.undo()
    open_choices.draw(panels, tmp_path / path.name)
    assert (tmp_path / path.name).stat().st_size > 10_000


def test_the_effects_are_those_of_the_records():
    assert with_blocks(TEXT, {"effects": open_choices.effects()}.get) == TEXT, "run benchmarks/open_choices.py"
    assert len(re.findall(r"^\| `--", TEXT, re.M)) == len(open_choices.READINGS) == 7
