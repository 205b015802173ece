"""docs/coming_from.md: its examples run, its facts hold, and its figures are those of the records."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TONES
from pages import block, run_python

from modeling_gemoclap import GEmoClap
from modeling_gemoclap.prompts_gemoclap import canonical_emotion

sys.path.insert(0, str(ROOT / "benchmarks"))
import evidence_tables  # noqa: E402

PAGE = "coming_from.md"
TEXT = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def clips(tones):
    """Two clips of each emotion and speaker."""
    table = pd.read_csv(tones / "metadata.csv", dtype=str)
    table = table[table.file_name.str.contains(r"_[01]\.wav")]
    return table.assign(path=[str(tones / name) for name in table.file_name])


def test_opensmile(clips, capsys):
    given = {"emotions": clips.emotion.to_numpy(), "speakers": clips.speaker_id.to_numpy()}
    names = run_python(block(PAGE, "openSMILE and a support vector machine"), files=list(clips.path), **given)
    assert names["features"].shape == (len(clips), 256)
    assert np.allclose(np.linalg.norm(names["features"], axis=1), 1, atol=1e-4)
    scores = [float(number) for number in re.findall(r"[\d.]+", capsys.readouterr().out)]
    assert len(scores) == 2 and min(scores) > 1 / len(TONES), "tones of three pitches are easy"


def test_emotion2vec(clips):
    files = list(clips.path[:3])
    names = run_python(block(PAGE, "emotion2vec"), files=files)
    assert [answer["key"] for answer in names["answers"]] == files
    for answer, emotion in zip(names["answers"], names["emotions"], strict=True):
        assert set(answer["labels"]) == set(names["labels"]) and sum(answer["scores"]) == pytest.approx(1, abs=1e-4)
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert emotion == canonical_emotion(answer["labels"][0]) is not None
    [listed] = re.findall(r"nine fixed classes: ([\w, ]+) and (\w+);", TEXT)
    known = [word for word in [*listed[0].split(", "), listed[1]] if canonical_emotion(word)]
    assert sorted(known) == sorted(names["labels"]) and len(known) == 7


def test_laion_clap(clips, capsys):
    names = run_python(block(PAGE, "LAION-CLAP"), files=list(clips.path[:3]))
    assert names["ranking"].shape == (3, 2) and set(names["ranking"][0]) == {0, 1}
    cosines = names["model"].similarity(names["audio"], names["model"].encode_text(names["texts"]))
    assert (names["ranking"][:, 0] == cosines.argmax(1)).all() and "feeling" in capsys.readouterr().out


def test_what_the_page_says_of_transformers_and_of_the_checkpoint():
    from transformers import ClapConfig, ClapFeatureExtractor
    from transformers.pipelines import ZeroShotAudioClassificationPipeline

    extractor = ClapFeatureExtractor()
    assert (extractor.sampling_rate, extractor.max_length_s, ClapConfig().projection_dim) == (48000, 10, 512)
    default = ZeroShotAudioClassificationPipeline.preprocess.__defaults__[-1]
    assert f"`{default}`" in TEXT
    model = GEmoClap.from_pretrained("base")
    assert type(model.pipe.model).__name__ == "GEmoClapModel"
    assert model.pipe.model.config.projection_dim == 256 and "256 here (`base`)" in TEXT


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The rows of all tables of a text by their first cell, each by the names of the columns."""
    rows = {}
    for block_of_lines in re.findall(r"(?:^\|.*\n)+", f"{text}\n", re.M):
        head, _, *lines = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in block_of_lines.splitlines()
        )
        rows |= {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines}
    return rows


def test_figures_are_those_of_the_records():
    page, systems = rows_of(TEXT), rows_of(evidence_tables.block("systems"))
    systems = {name.split("`")[1]: row for name, row in systems.items()}
    compared = {name.strip("`"): row for name, row in page.items() if name.strip("`") in systems}
    assert len(compared) == 3
    for name, row in compared.items():
        assert row == {column: systems[name][column] for column in row}, name
    zeroshot, sources = systems["ravdess-zeroshot"], rows_of(evidence_tables.block("sources"))
    for name in ("LAION-CLAP (larger_clap_general)", "LAION-CLAP (clap-htsat-unfused)"):
        assert page[name]["accuracy"] == sources[name]["accuracy"]
    for column in ("pretrained encoders", "compact encoder from scratch"):
        [found] = [row["accuracy"] for name, row in page.items() if name.startswith(f"{column}, trained on")]
        assert zeroshot[column].split()[0] == found
