"""Every input that once broke a promise ends as its name says: read, or refused by name."""

import sys
from pathlib import Path

import pytest

ATTACKS = Path(__file__).resolve().parents[2] / "attacks"
sys.path.insert(0, str(ATTACKS))
from fuzz_corpus import inputs, outcome_of  # noqa: E402

OUTCOMES = {"answered": "read", "refused": "refused"}


@pytest.mark.parametrize("path", inputs(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input_ends_as_its_name_says(path):
    verdict, message, place = outcome_of(path)
    assert OUTCOMES.get(verdict) == path.name.partition("-")[0], f"{place}: {message}"


def test_the_corpus_is_small():
    files = inputs()
    assert len(files) >= 40 and max(path.stat().st_size for path in files) < 20_000
