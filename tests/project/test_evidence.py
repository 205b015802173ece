"""What the project says it found: documents against the JSON files, and the checkpoint that ships against both."""

import csv
import json
import os
import sys

import pytest
import torch
import yaml
from conftest import ROOT, run_script
from transformers import AutoModel, AutoProcessor

sys.path.insert(0, str(ROOT / "benchmarks"))
import evidence_markdown  # noqa: E402
import evidence_runs  # noqa: E402
import evidence_tables as tables  # noqa: E402

PLAN = evidence_runs.PLAN
SHIPPED = tables.CHECKPOINT


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_documents_quote_the_json_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.BLOCK.findall(text), f"{name} quotes nothing"
    assert tables.with_tables(text, PLAN) == text, "run python benchmarks/evidence.py"


def test_a_figure_that_was_changed_by_hand_is_found():
    text = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    found = tables.load("emodb-loso")
    figure = f"{100 * found['uar']:.1f}"
    assert figure in text
    assert tables.with_tables(text.replace(figure, "99.9"), PLAN) == text


def test_every_part_of_the_plan_was_run_or_is_said_not_to_be():
    told = [line for line in (ROOT / "docs/evidence.md").read_text().splitlines() if line.startswith("Not run yet: ")]
    not_run = told[0] if told else ""
    for name in (*PLAN["rows"], *PLAN["tables"], "checkpoint", "words", "supcon", "speakers"):
        if (found := tables.load(name)) is None:
            assert f"`{name}`" in not_run, (
                f"docs/evidence/{name}.json is missing, and docs/evidence.md does not say so"
            )
            continue
        assert f"`{name}`" not in not_run
        assert found["recipe_sha256"] == evidence_runs.recipe_sha256(name), f"{name} was run with another recipe"
    for name, found in tables.that_ran(PLAN["rows"]):
        assert 0 < found["uar"] < 1 and found["trainings"] and found["training_seconds"] and found["commands"]
        assert len(found["losses"]) == found["trainings"] and found["intervals"]["uar"][0] < found["uar"], name


def test_what_another_recipe_left_is_not_mixed_in(tmp_path, monkeypatch):
    run = evidence_runs.Runner("emodb-pair", tmp_path / "corpora", tmp_path, overwrite=False)
    run.folder.mkdir()
    assert evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False).made_of == run.made_of
    monkeypatch.setitem(PLAN, "options", ["--control", "false"])
    with pytest.raises(SystemExit, match="emodb-pair holds what another recipe left.*--overwrite"):
        evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False)
    evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=True)
    assert not run.folder.exists()
    (tmp_path / "emodb-loso").mkdir()
    with pytest.raises(SystemExit, match="emodb-loso holds"):
        evidence_runs.Runner("emodb-loso", tmp_path, tmp_path, overwrite=False)
    with pytest.raises(SystemExit, match="a program ended with 1"):
        run("evaluate.py", "--model", tmp_path / "absent", "--data_dir", "CORPORA/emodb")
    assert run.typed == []


def test_the_development_folds_and_the_test_are_apart():
    development = json.loads((ROOT / "configs/folds/emodb_development.json").read_text())
    test = json.loads((ROOT / "configs/folds/emodb_test_pair.json").read_text())
    developed = {speaker for fold in development for speaker in fold}
    for name in ("emodb-loso", "emodb4-loso"):
        untouched = set(PLAN["rows"][name]["untouched"])
        assert not developed & untouched and untouched >= {*test[0]} and len(developed | untouched) == 10
    assert ["14", "15"] == test[0] == [str(one) for one in PLAN["tables"]["ablation"]["train"][1:]]


def test_the_shipped_checkpoint_loads_offline(tmp_path):
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 10_000_000
    code = {path.name for path in (ROOT / "modeling_gemoclap").glob("*_gemoclap.py")}
    assert code == {path.name for path in SHIPPED.glob("*.py")}
    for name in code:
        assert (SHIPPED / name).resolve() == ROOT / "modeling_gemoclap" / name
    model = AutoModel.from_pretrained(SHIPPED, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(SHIPPED, trust_remote_code=True)
    wave = torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy()
    embeds = model.get_audio_features(**processor(audio=wave, sampling_rate=16000))
    assert embeds.shape == (1, model.config.projection_dim) and model.config.calibration_temperature
    [record] = model.config.training_data
    assert record["corpus"] == "emodb" and not {"14", "15"} & {*record["speakers"]} and len(record["speakers"]) == 8


@pytest.mark.skipif(not os.environ.get("GEMOCLAP_CORPORA"), reason="GEMOCLAP_CORPORA is not set: it holds emodb/")
def test_the_shipped_checkpoint_gives_its_card_s_figures_to_the_clip(tmp_path):
    corpus = os.path.join(os.environ["GEMOCLAP_CORPORA"], "emodb")
    options = ["--data_dir", corpus, "--speakers", "14", "15", "--output_dir", tmp_path]
    run_script("evaluate.py", "--model", SHIPPED, *options)
    answers = [
        {row["file_name"]: row["predicted"] for row in csv.DictReader(path.read_text().splitlines())}
        for path in (tmp_path / "predictions.csv", evidence_markdown.FOUND / "checkpoint_predictions.csv")
    ]
    assert answers[0] == answers[1] and len(answers[0]) == tables.load("checkpoint")["n"]
    assert json.loads((tmp_path / "results.json").read_text())["uar"] == pytest.approx(
        tables.load("checkpoint")["uar"]
    )


def test_words_were_measured_on_templates_that_training_never_showed():
    found, recipe = tables.load("words"), yaml.safe_load((ROOT / "configs/compact.yaml").read_text())
    assert not {one["template"] for one in found["templates"]} & {*recipe["emotion_templates"]}
    config = json.loads((SHIPPED / "config.json").read_text())
    taught = {word for emotion in config["emotions"] for word in recipe["emotion_synonyms"].get(emotion, [])}
    measured = {one["word"] for one in found["words"] if one["known"]}
    assert taught <= measured and PLAN["words"]["unknown"] not in measured


def test_rerunning_without_the_corpora_says_where_to_get_them(tmp_path):
    done = run_script("benchmarks/evidence.py", "checkpoint", "--corpora", tmp_path, check=False)
    assert done.returncode == 1 and "no folder emodb" in done.stderr and "emodb.bilderbar.info" in done.stderr
    options = ("--config", "configs/compact.yaml", "--data_dir", tmp_path / "emodb", "--output_dir", tmp_path / "run")
    done = run_script("train.py", *options, check=False)
    assert done.returncode == 1 and "download Emo-DB from http://emodb.bilderbar.info (CC0-1.0)" in done.stderr
    assert "no such folder" in done.stderr and not (tmp_path / "run").exists()
