"""Documents against the JSON files of the evidence, and the checkpoint that is shipped against both."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, run_script
from transformers import AutoModel, AutoProcessor

sys.path.insert(0, str(ROOT / "benchmarks"))
import evidence  # noqa: E402
import evidence_cards  # noqa: E402
import evidence_checkpoints  # noqa: E402
import evidence_filters  # noqa: E402
import evidence_plan  # noqa: E402
import evidence_runs  # noqa: E402
import evidence_tables  # noqa: E402
import opensmile_baseline  # noqa: E402
import speaker_clusters  # noqa: E402
import supcon  # noqa: E402
from documents import BLOCK, with_blocks  # noqa: E402
from evidence_folds import option_of  # noqa: E402
from evidence_plan import (  # noqa: E402
    CHECKPOINTS,
    COMPACT,
    MAIN,
    MAX_BYTES,
    OTHER_PARTS,
    PLAN,
    SYSTEMS,
    part_of,
    record_name,
    shipped_checkpoints,
    system_of,
)
from evidence_record import load  # noqa: E402
from evidence_tables import DOCUMENTS, block, rows_of  # noqa: E402
from harness import EVIDENCE  # noqa: E402

from modeling_gemoclap.corpora.manifest import load_corpus  # noqa: E402
from modeling_gemoclap.runs import grid  # noqa: E402
from modeling_gemoclap.runs import recipe as recipe_module  # noqa: E402
from modeling_gemoclap.runs.recipe import check_recipe  # noqa: E402

PARTS = [(name, system) for system in SYSTEMS for name in SYSTEMS[system]["rows"]]
PARTS += [(name, system_of(name)) for name in (*PLAN["tables"], *OTHER_PARTS)]
SHIPPED = list(shipped_checkpoints())


def with_tables(text):
    """A document with its blocks as the JSON files have them."""
    return with_blocks(text, block)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_quote_the_json_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert BLOCK.findall(text), f"{name} quotes nothing"
    assert with_tables(text) == text, "run python benchmarks/evidence.py"


def test_a_figure_that_was_changed_by_hand_is_detected():
    text = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    figure = f"{100 * load('compact/emodb-loso')['uar']:.1f}"
    assert figure in text
    assert with_tables(text.replace(figure, "99.9")) == text


def as_cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_row_is_in_the_first_table_with_its_figure_or_not_run_yet():
    lines = block("systems").splitlines()
    head = as_cells(lines[0])
    table = {line.split("`")[1]: as_cells(line) for line in lines[2:]}
    assert list(table) == list(PLAN["rows"])
    assert SYSTEMS["distilled"]["title"] not in head, "it has one row, in docs/evidence_compact.md"
    for system, settings in SYSTEMS.items():
        for name, cells in table.items() if settings["title"] in head else ():
            cell, record = cells[head.index(settings["title"])], rows_of(system).get(name)
            if name not in settings["rows"]:
                assert cell == "–" and record is None
            elif record is None:
                assert cell == "not run yet"
            else:
                metric = "war" if name == "ravdess-zeroshot" else "uar"
                assert cell.startswith(f"{100 * record[metric]:.1f}")
    assert table["ravdess-zeroshot"][head.index(SYSTEMS[COMPACT]["title"])].endswith("(trained on Emo-DB alone)")


def test_a_row_with_a_record_has_its_figure_interval_seeds_time_and_commands(monkeypatch):
    record = load("compact/ravdess-zeroshot") | {"wall_seconds": {"training": 90, "evaluation": 30}}
    monkeypatch.setattr(evidence_tables, "load", lambda name: record if name.startswith(MAIN) else load(name))
    [line] = [line for line in block("systems").splitlines() if "`ravdess-zeroshot`" in line]
    seeds = ", ".join(f"{100 * seed['war']:.1f}" for seed in record["per_seed"])
    bounds = evidence_filters.interval(record, metric="war")
    expected = [f"{100 * record['war']:.1f} (trained on Emo-DB and nEMO)", bounds, seeds]
    assert as_cells(line)[1:4] == expected and bounds != evidence_filters.interval(record)
    [line] = [line for line in block("runs").splitlines() if "`ravdess-zeroshot`" in line]
    assert "| 1.5, 0.5 |" in line and "| all: 18.5 / 19.7 |" in line
    assert "\n".join(record["commands"]) in block("commands")


@pytest.mark.parametrize("name, system", PARTS)
def test_a_record_names_its_recipe_commands_seeds_and_time(name, system):
    if (record := load(record_name(name, system))) is None:
        pytest.skip(f"{name} of {system} was not run yet")
    assert record["recipe_sha256"] == evidence_plan.recipe_sha256(name, system), f"{name} was run with another recipe"
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in record["code_sha256"])
    assert record["commands"]
    written = " ".join(record["commands"])
    assert not re.search(r"(?<![\w.}])/\w", written), "a command has an absolute path"
    if system != COMPACT:  # the compact encoder's records are from before these were recorded
        assert all(seconds > 0 for seconds in record["wall_seconds"].values()) and record["wall_seconds"]
    if name not in PLAN["rows"]:
        return
    assert 0 < record["uar"] < 1 and record["trainings"] and record["training_seconds"] and record["versions"]
    assert len(record["losses"]) == record["trainings"]
    bounds = record["intervals"]["uar"]
    assert bounds[0] < record["uar"] < bounds[1] if bounds else record["speakers"] < 5
    seeds = [str(seed) for seed in part_of(name, system)["seeds"]]
    assert len(record["per_seed"]) == len(seeds)
    words = [word for line in record["commands"] for word in line.split()]
    given = option_of(words, "--seeds") or [words[i + 1] for i, word in enumerate(words) if word == "--seed"]
    assert ([given] if isinstance(given, str) else given) == seeds
    assert bool(record["untouched"]) == ("untouched" in PLAN["rows"][name])


def test_systems_share_rows_and_refuse_others():
    assert list(SYSTEMS) == [MAIN, "probe", COMPACT, "distilled"] and SYSTEMS[MAIN]["rows"] == list(PLAN["rows"])
    both = ["--data_dir", "CORPORA/emodb", "CORPORA/nemo"]
    assert part_of("ravdess-zeroshot")["train"] == both and part_of("ravdess-zeroshot", COMPACT)["train"] == both[:2]
    assert part_of("emodb-loso")["seeds"] == [0, 1, 2] and part_of("emodb-loso", COMPACT)["seeds"] == [0]
    assert (
        record_name("emodb-loso") == f"{MAIN}/emodb-loso"
        and record_name("gemoclap-compact") == "compact/gemoclap-compact"
    )
    with pytest.raises(ValueError, match="--system probe: it has no row ravdess-zeroshot; its rows are emodb-loso"):
        system_of("ravdess-zeroshot", "probe")
    with pytest.raises(ValueError, match=f"--system {MAIN}: gemoclap-compact is a part of compact"):
        system_of("gemoclap-compact", MAIN)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_row_of_a_system_is_a_recipe(system, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in SYSTEMS[system]["rows"]:
        options = [*evidence_plan.training_options(system), *part_of(name, system)["train"], "--output_dir", "RUN"]
        check_recipe(list(map(str, options)), name)


def test_what_another_recipe_left_is_not_mixed_in(tmp_path, monkeypatch):
    run = evidence_runs.Runner("emodb-pair", tmp_path / "corpora", tmp_path, overwrite=False)
    run.folder.mkdir()
    assert evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False).hashes == run.hashes
    monkeypatch.setitem(PLAN, "options", ["--control", "false"])
    with pytest.raises(SystemExit, match="emodb-pair has results of another recipe.*--overwrite"):
        evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False)
    evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False, system="probe")  # a folder of its own
    evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=True)
    assert not run.folder.exists()
    (tmp_path / MAIN / "emodb-loso").mkdir()
    with pytest.raises(SystemExit, match="emodb-loso has results"):
        evidence_runs.Runner("emodb-loso", tmp_path, tmp_path, overwrite=False)
    with pytest.raises(SystemExit, match="a program failed with exit status 1"):
        run("evaluate.py", "--model", tmp_path / "absent", "--data_dir", "CORPORA/emodb")
    assert run.commands == []


def test_the_time_of_an_interrupted_command_is_counted(tmp_path, monkeypatch):
    clock = iter([0.0, 60.0, 100.0, 130.0, 200.0, 205.0])
    monkeypatch.setattr(evidence_runs.time, "perf_counter", lambda: next(clock))
    codes = iter([1, 0, 0])
    done = lambda command, **_: subprocess.CompletedProcess(command, next(codes))  # noqa: E731
    monkeypatch.setattr(evidence_runs.subprocess, "run", done)
    run = evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False)
    with pytest.raises(SystemExit, match="run the same command to continue"):
        run("train.py", "--output_dir", run.folder)
    run.folder.mkdir()
    again = evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False)
    again("train.py", "--output_dir", again.folder)
    again("evaluate.py", "--model", again.folder)
    assert again.wall_seconds == {"training": 90, "evaluation": 5}
    last = evidence_runs.Runner("emodb-pair", tmp_path, tmp_path, overwrite=False)
    last("train.py", "--output_dir", last.folder, skip=True)
    assert last.wall_seconds == {"training": 90} and last.hashes == again.hashes


FIELDS = ("before", "after", "pairs", "before_is", "clips", "speakers", "clusters_of_a_speaker", "permutations")
FIELDS += ("notes", "labels")


@pytest.mark.parametrize("name, system", [part for part in PARTS if part[0] not in CHECKPOINTS])
def test_a_part_is_rerun_with_its_recorded_commands(name, system, tmp_path, monkeypatch):
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
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path / "evidence")
    runner = evidence_runs.Runner(name, tmp_path / "corpora", tmp_path, overwrite=False, system=system)
    evidence.rerun(name, runner)
    record = json.loads((tmp_path / f"evidence/{record_name(name, system)}.json").read_text())
    assert record["commands"] == runner.commands and record["recipe_sha256"] and record["wall_seconds"]
    assert record.get("seeds") == (part_of(name, system)["seeds"] if name in PLAN["rows"] else None)
    if stored := load(record_name(name, system)):
        assert runner.commands == stored["commands"]


def test_the_development_folds_and_the_test_are_apart():
    development = json.loads((ROOT / "configs/folds/emodb_development.json").read_text())
    test = json.loads((ROOT / "configs/folds/emodb_test_pair.json").read_text())
    developed = {speaker for fold in development for speaker in fold}
    for name in ("emodb-loso", "emodb4-loso"):
        untouched = set(PLAN["rows"][name]["untouched"])
        assert not developed & untouched and untouched >= {*test[0]} and len(developed | untouched) == 10
    for name in ("ablation", "whisper-ablation-emodb"):
        assert ["14", "15"] == test[0] == [str(speaker) for speaker in PLAN["tables"][name]["train"][1:]]
    development = json.loads((ROOT / "configs/folds/nemo_development.json").read_text())
    developed, untouched = (
        {speaker for fold in development for speaker in fold},
        PLAN["rows"]["nemo-loso"]["untouched"],
    )
    assert not developed & {*untouched} and len(developed) + len(untouched) == 9
    assert not any("untouched" in row for name, row in PLAN["rows"].items() if "ravdess" in name or "pair" in name)


@pytest.mark.parametrize("name", [name for name in PLAN["tables"] if name.startswith("whisper-ablation")])
def test_every_cell_of_the_ablation_changes_the_recipe(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    table = PLAN["tables"][name]
    options = ["--config", table["grid"], *map(str, table["options"]), "--output_dir", "RUN"]
    parsed = grid.parse([*options, "--", *map(str, [*PLAN["options"], *table.get("train", [])])])
    settings, cells = grid.cells_of(table["grid"])
    recipe = yaml.safe_load((ROOT / settings["base"]).read_text())
    assert settings["base"] == SYSTEMS[MAIN]["config"] and cells[0] == {"name": "recipe"} and len(cells) > 3
    for cell in cells:
        check_recipe(grid.commands_of(cell, settings, parsed)[1], cell["name"])
        fields = {field: value for field, value in cell.items() if field != "name"}
        assert all(recipe.get(field) != value for field, value in fields.items())
        assert bool(fields) == (cell["name"] != "recipe")


@pytest.mark.parametrize("name", [name for name in PLAN["tables"] if name.startswith(("whisper-obj", "whisper-read"))])
def test_every_cell_of_the_papers_tables_is_a_recipe_of_its_own(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    table = PLAN["tables"][name]
    parsed = grid.parse(["--config", table["grid"], *map(str, table["options"]), "--output_dir", "RUN"])
    settings, cells = grid.cells_of(table["grid"])
    assert settings["base"] == SYSTEMS[MAIN]["config"] and set(cells[0]) == {"name"}
    read = [recipe_module._read(grid.commands_of(cell, settings, parsed)[1])[2] for cell in cells]
    fields = [{name: value for name, value in values.items() if name != "output_dir"} for values in read]
    assert all(first != second for first, second in combinations(fields, 2))
    shared = ("pooling", "pooled_dropout", "audio_layers", "learning_rate", "num_train_epochs", "freeze_audio_encoder")
    assert all(values[name] == read[0][name] for values in read for name in shared)


@pytest.mark.parametrize("name", PLAN["tables"])
def test_every_cell_of_a_table_is_accepted_by_its_objective(name, monkeypatch):
    """Otherwise a cell fails after hours of training the cells before it."""
    monkeypatch.chdir(ROOT)
    table = PLAN["tables"][name]
    parsed = grid.parse(["--config", table["grid"], *map(str, table["options"]), "--output_dir", "RUN"])
    settings, cells = grid.cells_of(table["grid"])
    for cell in cells:
        words = grid.commands_of(cell, settings, parsed)[1]
        recipe_module.parse_recipe([*words, "--use_cpu", "true", "--disable_tqdm", "true"])


def test_systems_of_two_stages_and_of_speakers_differ_only_in_what_is_compared():
    configs = lambda name: [yaml.safe_load((ROOT / path).read_text()) for path in PLAN[name]["configs"]]  # noqa: E731
    encoder = ("audio_model", "audio_layers", "audio_window_seconds", "feature_config", "unfreeze_last_n_layers")
    first, second, direct = configs("whisper-supcon")
    two, three = ({**PLAN[name]} for name in ("whisper-supcon", "whisper-supcon-three"))
    assert three.pop("first_stage") == ["--per_device_train_batch_size", 36]  # 32 cannot be divided by three corpora
    assert {key for key in {*two, *three} if two.get(key) != three.get(key)} == {"title", "corpora"}
    assert all(first[name] == direct[name] for name in (*encoder, "pooling", "encoder_lr_factor"))
    assert second["freeze_audio_encoder"] and second["pooling"] == first["pooling"]
    pretraining, finetuning = configs("whisper-speakers")
    start = dict(zip(PLAN["whisper-speakers"]["start"][::2], PLAN["whisper-speakers"]["start"][1::2], strict=True))
    assert json.loads(start.pop("--feature_config")) == pretraining["feature_config"] == first["feature_config"]
    assert start == {f"--{name}": pretraining[name] for name in encoder[:3]}
    assert finetuning["freeze_audio_encoder"] and finetuning["pooling"] == pretraining["pooling"]


def test_a_part_needs_its_own_corpora_alone():
    assert evidence.corpora_for(["whisper-supcon"]) == evidence.corpora_for(["supcon"]) == ["emodb", "ravdess"]
    assert evidence.corpora_for(["clusters"]) == evidence.corpora_for(["whisper-supcon-three"])
    assert evidence.corpora_for(["clusters"]) == ["emodb", "nemo", "ravdess"]
    assert evidence.corpora_for(["nemo-loso"]) == ["nemo"] and evidence.corpora_for([]) == []
    assert evidence.corpora_for(["whisper-ablation-nemo"]) == ["nemo"]
    assert evidence.corpora_for(["ravdess-zeroshot"]) == ["emodb", "nemo", "ravdess"]
    assert evidence.corpora_for(["ravdess-zeroshot"], COMPACT) == ["emodb", "ravdess"]
    assert evidence.corpora_for(["emodb4-to-ravdess"]) == evidence.corpora_for(["speakers"]) == ["emodb", "ravdess"]
    assert evidence.corpora_for(["gemoclap-base"]) == ["emodb", "ravdess"]
    assert evidence.corpora_for(["gemoclap-base-nemo"]) == ["emodb", "nemo", "ravdess"]


def test_the_list_of_the_part_of_nEMO(corpora):
    """The rows of nEMO can be rerun from the published corpus: the list names the recordings."""
    listed = (EVIDENCE / "nemo_part.txt").read_text().split()
    names = load_corpus(corpora / "nemo").column("file_name").to_pylist()
    assert listed == sorted(Path(name).stem for name in names)


def test_the_openSMILE_records_have_what_reruns_them():
    for row, records in load("opensmile")["rows"].items():
        for features, record in records.items():
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


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_loads_offline(name):
    folder = shipped_checkpoints()[name]
    assert sum(path.stat().st_size for path in folder.iterdir() if not path.is_symlink()) <= MAX_BYTES
    code = {path.name for path in (ROOT / "modeling_gemoclap").glob("*_gemoclap.py")}
    assert code == {path.name for path in folder.glob("*.py")}
    for file in code:
        assert (folder / file).resolve() == ROOT / "modeling_gemoclap" / file
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    wave = torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy()
    embeds = model.get_audio_features(**processor(audio=wave, sampling_rate=16000))
    assert embeds.shape == (1, model.config.projection_dim) and model.config.calibration_temperature
    [record] = [record for record in model.config.training_data if "corpus" in record]
    assert record["corpus"] == "emodb" and not {"14", "15"} & {*record["speakers"]} and len(record["speakers"]) == 8
    others = [record for record in model.config.training_data if "corpus" not in record]
    assert all("encoder" in other for other in others) and bool(others) == ("base" in name)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.skipif(not os.environ.get("GEMOCLAP_CORPORA"), reason="GEMOCLAP_CORPORA is not set: it holds emodb/")
def test_a_shipped_checkpoint_gives_its_card_s_figures_to_the_clip(name, tmp_path):
    corpus, record = os.path.join(os.environ["GEMOCLAP_CORPORA"], "emodb"), load(record_name(name))
    options = ["--data_dir", corpus, "--speakers", "14", "15", "--output_dir", tmp_path]
    run_script("evaluate.py", "--model", shipped_checkpoints()[name], *options)
    answers = [
        {row["file_name"]: row["predicted"] for row in csv.DictReader(path.read_text().splitlines())}
        for path in (tmp_path / "predictions.csv", EVIDENCE / f"{record_name(name)}_predictions.csv")
    ]
    assert answers[0] == answers[1] and len(answers[0]) == record["n"]
    assert json.loads((tmp_path / "results.json").read_text())["uar"] == pytest.approx(record["uar"])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_a_shipped_checkpoint_names_licences_limits_and_compression(name):
    text, entry = (shipped_checkpoints()[name] / "README.md").read_text(encoding="utf-8"), CHECKPOINTS[name]
    assert entry["card"]["licences"] in text and entry["card"]["limits"] in text
    assert "Whether the model may be redistributed" not in text and f"license: {entry['card']['license']}" in text
    assert ("rounded to half precision" in text) == ("word pieces" in text) == ("compress" in entry)
    for file in entry["card"].get("licence_files", {}):
        assert (shipped_checkpoints()[name] / file).is_file() and f"`{file}`" in text


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_a_shipped_checkpoint_is_that_of_the_records(name, tmp_path):
    shipped = shipped_checkpoints()[name]
    copy = shutil.copytree(shipped, tmp_path / name)
    for made in ("README.md", "notebook.ipynb", ".eval_results/RavdessZeroshot.yaml"):
        (copy / made).unlink()
    evidence_cards.describe(copy, name)
    for path in (path for path in copy.rglob("*") if path.is_file()):
        other = shipped / path.relative_to(copy)
        assert path.read_bytes() == other.read_bytes(), f"{other}: run python benchmarks/evidence.py"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_of_a_shipped_card_stands_in_its_records(name):
    """The results of the tables equal the record, and every figure of the results is in one of them."""
    record, results = load(record_name(name)), evidence_cards.results_of(name)
    same = ("uar", "war", "macro_f1", "recall", "n")
    assert {field: results[0][field] for field in same} == {field: pytest.approx(record[field]) for field in same}
    assert results[1]["n"] == 1440 and results[1]["asked"]["protocol"] == "ravdess-zeroshot"
    gender = ("uar_female", "uar_male", "gap", "num_female", "num_male")
    assert all(results[0]["fairness"][field] == pytest.approx(record["fairness"][field]) for field in gender)
    for field in ("ece", "confidence", "accuracy"):
        assert results[0]["calibration"][field] == pytest.approx(record["calibration"][field])
    text = (shipped_checkpoints()[name] / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Results") : text.index("## Limitations")]
    section = re.sub(r"```.*?```", "", re.sub(r"Versions: .*", "", section), flags=re.DOTALL)
    figures = re.findall(r"(?<![\w.])\d+\.\d(?![\w.])", section)
    rows = rows_of(CHECKPOINTS[name]["system"])
    allowed = {f"{100 * abs(value):.1f}" for value in numbers_in([record, results, rows])}
    allowed |= {f"{size / 1e6:.1f}" for size in (record["bytes"], record.get("before", {}).get("bytes", 0))}
    allowed |= {bound for row in rows.values() for bound in evidence_filters.interval(row).split(" to ")}
    assert len(figures) > 40 and not {*figures} - allowed


def numbers_in(value):
    """All numbers of a record."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(item)
    elif isinstance(value, int | float):
        yield float(value)


def test_the_model_card_is_that_of_the_records():
    path = evidence_cards.MODEL_CARD
    assert path.read_text(encoding="utf-8") == evidence_cards.model_card(), "run python benchmarks/evidence.py"
    index = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])["model-index"]
    assert [model["name"] for model in index] == SHIPPED and all(len(model["results"]) == 2 for model in index)


@pytest.mark.parametrize("name", SHIPPED)
def test_words_were_measured_on_templates_that_training_never_showed(name):
    record, config = load(record_name(name)), json.loads((shipped_checkpoints()[name] / "config.json").read_text())
    assert not {template["template"] for template in record["words"]["templates"]} & {*config["emotion_templates"]}
    taught = {word for words in config["emotion_synonyms"].values() for word in words}
    measured = {word["word"] for word in record["words"]["words"] if word["trained"]}
    assert taught <= measured and PLAN["words"]["unknown"] not in measured
    if "before" in record:
        assert not record["before"]["changed_words"]
        assert {"livid", "cheerful", "terrified"} <= {word["word"] for word in record["words"]["words"]}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_checkpoint_is_a_recipe_and_says_its_licence(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    entry = part_of(name)
    check_recipe([*map(str, entry["train"]), "--output_dir", "RUN"], name)
    assert ("CORPORA/nemo" in entry["train"]) == (entry["card"]["license"] == "cc-by-nc-sa-4.0")
    assert ("CORPORA/nemo" in entry["train"]) == (name not in shipped_checkpoints())
    excluded = option_of(entry["train"], "--exclude_speakers")
    assert [speaker.rpartition("/")[2] for speaker in excluded] == option_of(entry["judge"], "--speakers")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_made_by_one_command(name, tmp_path, monkeypatch):
    """Programs are not run: a training and a compression leave the included compact checkpoint in their folder."""
    compact = shipped_checkpoints()["gemoclap-compact"]

    def run(command, **_):
        words = list(map(str, command[1:]))
        if words[0] in ("train.py", "-m"):
            shutil.copytree(compact, words[words.index("--output_dir") + 1] if words[0] == "train.py" else words[4])
        else:
            output = Path(words[words.index("--output_dir") + 1])
            output.mkdir(parents=True, exist_ok=True)
            (output / "predictions.csv").touch()
            results = evidence_cards_results[1 if "--protocol" in words else 0]
            (output / "results.json").write_text(json.dumps(results | {"command": f"evaluate.py {output}"}))
        return subprocess.CompletedProcess(command, 0)

    evidence_cards_results = evidence_cards.results_of("gemoclap-compact")
    monkeypatch.setattr(evidence_runs.subprocess, "run", run)
    monkeypatch.setattr(evidence_checkpoints, "record_of", lambda folders: {"uar": 0.5})
    monkeypatch.setattr(evidence_checkpoints, "cost_of", lambda folders: {})
    monkeypatch.setattr(evidence_checkpoints, "_before", lambda trained, folder: {})
    monkeypatch.setattr(evidence_checkpoints, "store_training_clips", lambda *parts: None)
    words = {"words": [{"word": "livid", "nearest": "angry", "uar": 0.5}]}
    monkeypatch.setattr(evidence_checkpoints.words, "measure_words", lambda *parts: words)
    monkeypatch.setattr(evidence_checkpoints, "CHECKPOINTS_FOLDER", tmp_path / "checkpoints")
    for module in (evidence, evidence_checkpoints, evidence_cards):
        monkeypatch.setattr(module, "EVIDENCE", tmp_path / "evidence")
    monkeypatch.setattr(evidence_cards, "load", lambda name: None)
    runner = evidence_runs.Runner(name, tmp_path / "corpora", tmp_path, overwrite=False)
    evidence.rerun(name, runner)
    record = json.loads((tmp_path / f"evidence/{record_name(name)}.json").read_text())
    assert [line.split()[1] for line in record["commands"]][-1] == "evaluate.py"
    assert len(record["commands"]) == (5 if "compress" in CHECKPOINTS[name] else 3)
    stored = json.loads((tmp_path / f"evidence/{record_name(name)}_results.json").read_text())
    places = [f"evaluate.py RUN/{name}/{folder}" for folder in ("results", "results_zeroshot")]
    assert [results["command"] for results in stored] == places
    if earlier := load(record_name(name)):
        place = f"{tmp_path}/checkpoints/"
        assert [line.replace(place, "checkpoints/") for line in record["commands"]] == earlier["commands"]
    shipped = tmp_path / "checkpoints" / name
    assert shipped.is_dir() == (name in shipped_checkpoints())
    place = shipped if shipped.is_dir() else runner.folder / name
    card = (place / "README.md").read_text()
    assert CHECKPOINTS[name]["card"]["licences"] in card and CHECKPOINTS[name]["card"]["limits"] in card
    assert ("RavdessZeroshot of MTEB" in card) == (not shipped.is_dir()), "write_cards writes that of a shipped one"
    assert all(path.is_symlink() for path in shipped.glob("*.py"))
    monkeypatch.setattr(evidence_checkpoints, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="bytes, of 1,000 at most: keep fewer word pieces"):
        evidence_checkpoints.ship(runner.folder / name, name)


@pytest.mark.slow
def test_rerunning_without_the_corpora_says_where_to_get_them(tmp_path):
    done = run_script("benchmarks/evidence.py", "gemoclap-compact", "--corpora", tmp_path, check=False)
    assert done.returncode == 1 and "no folder emodb" in done.stderr and "emodb.bilderbar.info" in done.stderr
    options = ("--config", "configs/compact.yaml", "--data_dir", tmp_path / "emodb", "--output_dir", tmp_path / "run")
    done = run_script("train.py", *options, check=False)
    assert done.returncode == 1 and "download Emo-DB from http://emodb.bilderbar.info (CC0-1.0)" in done.stderr
    assert "no such folder" in done.stderr and not (tmp_path / "run").exists()
