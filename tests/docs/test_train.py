"""The pages on training run as they are written, with small encoders, tones, and one step of training."""

import json

import pytest
from conftest import ROOT
from pages import Commands, block, make_checkout, save_encoders


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return save_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture
def commands(encoders, tmp_path, monkeypatch):
    """The commands of a page, in a folder like the repository with the corpora emodb and ravdess."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names = {"CORPUS": "corpora/emodb", "EMODB": "corpora/emodb", "RAVDESS": "corpora/ravdess"}
    return Commands(make_checkout(tmp_path), names | encoders)


def test_train(commands):
    commands.run(block("train.md", "Quick start"))
    results = json.loads((commands.folder / "results/sl/emodb/results.json").read_text())
    assert results["n"] == 12
    commands.run(block("train.md", "Frozen encoders"))
    commands.more["train.py"] += " --seeds 0"
    commands.run(block("train.md", "Protocols"))
