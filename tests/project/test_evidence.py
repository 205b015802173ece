"""Documents against the JSON files of the evidence, and the checkpoint that is shipped against both."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, run_script
from transformers import AutoModel, AutoProcessor

sys.path.insert(0, str(ROOT / "benchmarks"))
import evidence  # noqa: E402
import evidence_runs  # noqa: E402
import opensmile_baseline  # noqa: E402
import speaker_clusters  # noqa: E402
import supcon  # noqa: E402
from documents import BLOCK, with_blocks  # noqa: E402
from evidence_record import load  # noqa: E402
from evidence_runs import PLAN  # noqa: E402
from evidence_tables import CHECKPOINT, DOCUMENTS, block, records_of  # noqa: E402
from harness import EVIDENCE  # noqa: E402


def with_tables(text):
    """A document with its blocks as the JSON files have them."""
    return with_blocks(text, lambda name: block(name, PLAN))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_quote_the_json_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert BLOCK.findall(text), f"{name} quotes nothing"
    assert with_tables(text) == text, "run python benchmarks/evidence.py"


def test_a_figure_that_was_changed_by_hand_is_detected():
    text = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    figure = f"{100 * load('emodb-loso')['uar']:.1f}"
    assert figure in text
    assert with_tables(text.replace(figure, "99.9")) == text


def test_every_part_of_the_plan_was_run_or_is_listed_as_not_run():
    lines = [line for line in (ROOT / "docs/evidence.md").read_text().splitlines() if line.startswith("Not run yet: ")]
    not_run = lines[0] if lines else ""
    for name in (*PLAN["rows"], *PLAN["tables"], "checkpoint", "words", "supcon", "speakers"):
        if (record := load(name)) is None:
            assert f"`{name}`" in not_run, f"docs/evidence/{name}.json is missing, docs/evidence.md does not list it"
            continue
        assert f"`{name}`" not in not_run
        assert record["recipe_sha256"] == evidence_runs.recipe_sha256(name), f"{name} was run with another recipe"
    for name, record in records_of(PLAN["rows"]).items():
        assert 0 < record["uar"] < 1 and record["trainings"] and record["training_seconds"] and record["commands"]
        assert len(record["losses"]) == record["trainings"] and record["intervals"]["uar"][0] < record["uar"], name


def test_what_another_recipe_left_is_not_mixed_in(tmp_path, monkeypatch):
    run = evidence_runs.Runner("emodb-pair", tmp_path / "corpora", tmp_path, overwrite=False)
    run.folder.mkdir()
    assert evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False).hashes == run.hashes
    monkeypatch.setitem(PLAN, "options", ["--control", "false"])
    with pytest.raises(SystemExit, match="emodb-pair has results of another recipe.*--overwrite"):
        evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False)
    evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=True)
    assert not run.folder.exists()
    (tmp_path / "emodb-loso").mkdir()
    with pytest.raises(SystemExit, match="emodb-loso has results"):
        evidence_runs.Runner("emodb-loso", tmp_path, tmp_path, overwrite=False)
    with pytest.raises(SystemExit, match="a program failed with exit status 1"):
        run("evaluate.py", "--model", tmp_path / "absent", "--data_dir", "CORPORA/emodb")
    assert run.commands == []


FIELDS = ("before", "after", "pairs", "before_is", "clips", "speakers", "clusters_of_a_speaker", "permutations")
FIELDS += ("notes", "labels")


@pytest.mark.parametrize("name", [*PLAN["rows"], *PLAN["tables"], "supcon", "speakers"])
def test_a_part_is_rerun_with_its_recorded_commands(name, tmp_path, monkeypatch):
    """Programs are not run; each leaves empty analyses in its folder."""

    def run(command, **_):
        folder = Path(command[command.index("--output_dir" if "--output_dir" in command else "--model") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        for analysis in ("layer_similarity.json", "cluster_analysis.json"):
            (folder / analysis).write_text(json.dumps(dict.fromkeys(FIELDS, {})))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(evidence_runs.subprocess, "run", run)
    monkeypatch.setattr(supcon.shutil, "copyfile", lambda *_: None)
    for module in (evidence, supcon, speaker_clusters):
        for function in ("record_of", "table_record", "compare_runs", "cost_of", "draw"):
            monkeypatch.setattr(module, function, lambda *_: {}, raising=False)
    if load(name) is None:
        pytest.skip(f"{name} was not run yet, so it has no recorded commands")
    part, rerun = evidence.PARTS[name]
    runner = evidence_runs.Runner(name, tmp_path / "corpora", tmp_path, overwrite=False)
    rerun(part, runner)
    assert runner.commands == load(name)["commands"]


def test_the_development_folds_and_the_test_are_apart():
    development = json.loads((ROOT / "configs/folds/emodb_development.json").read_text())
    test = json.loads((ROOT / "configs/folds/emodb_test_pair.json").read_text())
    developed = {speaker for fold in development for speaker in fold}
    for name in ("emodb-loso", "emodb4-loso"):
        untouched = set(PLAN["rows"][name]["untouched"])
        assert not developed & untouched and untouched >= {*test[0]} and len(developed | untouched) == 10
    assert ["14", "15"] == test[0] == [str(speaker) for speaker in PLAN["tables"]["ablation"]["train"][1:]]


def test_a_part_needs_its_own_corpora_alone():
    assert evidence.corpora_for(["nemo-loso"]) == ["nemo"] and evidence.corpora_for([]) == []
    assert evidence.corpora_for(["emodb4-to-ravdess"]) == evidence.corpora_for(["words"]) == ["emodb", "ravdess"]


def test_the_openSMILE_records_have_what_reruns_them():
    for row, records in load("opensmile")["rows"].items():
        for features, record in records.items():
            if "command" not in record:  # measured before these were recorded
                assert features == "ComParE" and "ravdess" in row
                continue
            command = f"--corpora CORPORA --features {features} --rows {row}"
            assert record["command"].endswith(command) and record["seconds"] > 0
            assert len(record["seeds"]) == len(record["per_seed"]) and {*record["seeds"]} <= {
                *PLAN["rows"][row]["seeds"]
            }


def test_without_openSMILE_the_baseline_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise opensmile_baseline.PackageNotFoundError(name)

    monkeypatch.setattr(opensmile_baseline, "version", missing)
    monkeypatch.setattr(sys, "argv", ["opensmile_baseline.py", "--corpora", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"openSMILE is not installed: pip install -e '\.\[opensmile\]'"):
        opensmile_baseline.main()
    monkeypatch.setattr(opensmile_baseline, "version", lambda name: "2.6.0")
    with pytest.raises(SystemExit, match="no folder emodb in --corpora .*; download Emo-DB from"):
        opensmile_baseline.main()


def test_the_shipped_checkpoint_loads_offline(tmp_path):
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 10_000_000
    code = {path.name for path in (ROOT / "modeling_gemoclap").glob("*_gemoclap.py")}
    assert code == {path.name for path in CHECKPOINT.glob("*.py")}
    for name in code:
        assert (CHECKPOINT / name).resolve() == ROOT / "modeling_gemoclap" / name
    model = AutoModel.from_pretrained(CHECKPOINT, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(CHECKPOINT, trust_remote_code=True)
    wave = torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy()
    embeds = model.get_audio_features(**processor(audio=wave, sampling_rate=16000))
    assert embeds.shape == (1, model.config.projection_dim) and model.config.calibration_temperature
    [record] = model.config.training_data
    assert record["corpus"] == "emodb" and not {"14", "15"} & {*record["speakers"]} and len(record["speakers"]) == 8


@pytest.mark.skipif(not os.environ.get("GEMOCLAP_CORPORA"), reason="GEMOCLAP_CORPORA is not set: it holds emodb/")
def test_the_shipped_checkpoint_gives_its_card_s_figures_to_the_clip(tmp_path):
    corpus = os.path.join(os.environ["GEMOCLAP_CORPORA"], "emodb")
    options = ["--data_dir", corpus, "--speakers", "14", "15", "--output_dir", tmp_path]
    run_script("evaluate.py", "--model", CHECKPOINT, *options)
    answers = [
        {row["file_name"]: row["predicted"] for row in csv.DictReader(path.read_text().splitlines())}
        for path in (tmp_path / "predictions.csv", EVIDENCE / "checkpoint_predictions.csv")
    ]
    assert answers[0] == answers[1] and len(answers[0]) == load("checkpoint")["n"]
    assert json.loads((tmp_path / "results.json").read_text())["uar"] == pytest.approx(load("checkpoint")["uar"])


def test_words_were_measured_on_templates_that_training_never_showed():
    record, recipe = load("words"), yaml.safe_load((ROOT / "configs/compact.yaml").read_text())
    assert not {template["template"] for template in record["templates"]} & {*recipe["emotion_templates"]}
    config = json.loads((CHECKPOINT / "config.json").read_text())
    taught = {word for emotion in config["emotions"] for word in recipe["emotion_synonyms"].get(emotion, [])}
    measured = {word["word"] for word in record["words"] if word["known"]}
    assert taught <= measured and PLAN["words"]["unknown"] not in measured


@pytest.mark.slow
def test_rerunning_without_the_corpora_says_where_to_get_them(tmp_path):
    done = run_script("benchmarks/evidence.py", "checkpoint", "--corpora", tmp_path, check=False)
    assert done.returncode == 1 and "no folder emodb" in done.stderr and "emodb.bilderbar.info" in done.stderr
    options = ("--config", "configs/compact.yaml", "--data_dir", tmp_path / "emodb", "--output_dir", tmp_path / "run")
    done = run_script("train.py", *options, check=False)
    assert done.returncode == 1 and "download Emo-DB from http://emodb.bilderbar.info (CC0-1.0)" in done.stderr
    assert "no such folder" in done.stderr and not (tmp_path / "run").exists()
