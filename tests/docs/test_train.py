"""The pages on training and evaluation run as they are written, with small encoders, tones, and a step of training."""

import json

import pytest
from conftest import ROOT
from pages import Commands, block, make_checkout, run_python, save_encoders


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return save_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture
def commands(encoders, tmp_path, monkeypatch):
    """The commands of a page, in a folder like the repository with the corpora emodb and ravdess."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    names = {"CORPUS": "corpora/emodb", "EMODB": "corpora/emodb", "RAVDESS": "corpora/ravdess", "RUN": "runs/run"}
    return Commands(make_checkout(tmp_path, encoders), names | encoders)


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


TWO = "--protocol 2-folds-by-speaker"  # in place of five folds, or of one fold a speaker


def test_train_and_evaluate(commands):
    commands.more["train.py"] += " --prompt_steps 1"
    commands.run(block("train.md", "Quick start"))
    assert results_of(commands.folder / "results/sl/emodb")["n"] == 12
    commands.more["evaluate.py"] = "--output_dir results/again"
    commands.run(block("evaluation.md", "Evaluate a checkpoint"))
    assert (
        results_of(commands.folder / "results/again")["uar"] == results_of(commands.folder / "results/sl/emodb")["uar"]
    )
    run_python(block("evaluation.md", "Evaluate a checkpoint", 1).replace("CORPUS", "emodb"))
    assert "emodb" in (commands.folder / "runs/sl/README.md").read_text()


def test_extending(commands):
    (commands.folder / "focal.py").write_text(block("extending.md", "Extend: add an objective", 1))
    commands.more["focal.py"] = commands.more["train.py"]
    commands.run(block("extending.md", "Extend: add an objective"))
    assert results_of(commands.folder / "results/focal/emodb")["n"] == 12


@pytest.mark.slow
def test_train_protocols_and_compare(commands):
    commands.more["train.py"] += " --control false --folds 0"
    commands.run(block("train.md", "Frozen encoders"))
    assert len(list((commands.folder / "runs/frozen").glob("fold_*/seed_42/model.safetensors"))) == 1
    commands.more["train.py"] = commands.more["train.py"].replace("--folds 0", f"--prompt_steps 1 --seeds 0 {TWO}")
    commands.more["evaluate.py"] = f"--seeds 0 --gender_probe false {TWO}"
    commands.run(block("train.md", "Protocols"))
    commands.run(block("evaluation.md", "Evaluate a protocol"))
    commands.names |= {"RUN_A": "runs/folds", "RUN_B": "runs/run"}
    assert "UAR" in commands.run(block("compare.md", "Two runs"))
    assert (
        results_of(commands.folder / "runs/folds/results")["n"]
        == results_of(commands.folder / "runs/run/results")["n"]
    )


@pytest.mark.slow
def test_zero_shot_evaluation(commands):
    commands.names["CREMAD"] = ""
    lines = block("evaluation.md", "Zero-shot evaluation with other labels").splitlines()
    commands.run("\n".join(lines[:2]))  # the third needs all clips of RAVDESS: tests/evaluation/test_mteb.py
    assert results_of(commands.folder / "results/run/ravdess")["n"] == 36


@pytest.mark.slow
def test_objectives(commands, encoders):
    commands.run(block("objectives.md", "Classifier"))
    commands.names["ENCODER"] = encoders["openai/whisper-base"]
    commands.more["train.py"] += f" --control false {TWO}"
    commands.more["evaluate.py"] = TWO
    commands.run(block("objectives.md", "Probe"))
    assert results_of(commands.folder / "runs/probe/results")["n"] == 36


@pytest.mark.slow
def test_distillation(commands):
    teacher, student, judge = block("objectives.md", "Distillation").splitlines()
    short = f"{commands.more['train.py']} --control false {TWO}"
    commands.more["evaluate.py"] = TWO
    commands.more["train.py"] = short
    commands.run(teacher)
    commands.more["train.py"] = short + " --prompt_steps 1"
    commands.run(f"{student}\n{judge}")
    assert results_of(commands.folder / "runs/student/results")["n"] == 36


@pytest.mark.slow
def test_encoders(commands):
    commands.more["train.py"] += " --audio_window_seconds 4"
    commands.run(block("encoders.md", "Encoders"))
    commands.names["RUN"] = "runs/fetched"
    commands.run(block("encoders.md", "Whisper-base and all-MiniLM-L6-v2 by one command"))
    for name in ("run", "fetched"):
        assert (commands.folder / "runs" / name / "model.safetensors").is_file()


def test_window_of_whisper(encoders):
    from modeling_gemoclap import GEmoClapModel, GEmoClapProcessor

    given = {"audio": encoders["openai/whisper-base"], "text": encoders["FacebookAI/roberta-base"]}
    given |= {"GEmoClapModel": GEmoClapModel, "GEmoClapProcessor": GEmoClapProcessor}
    names = run_python(block("encoders.md", "Whisper's window"), **given)
    assert names["model"].config.audio_config.max_source_positions == 400
    assert names["model"].config.audio_config.encoder_layers == 3


@pytest.mark.slow
def test_scaling(commands):
    commands.more["train.py"] += " --dataloader_drop_last false"
    commands.run(block("scaling.md", "Large batches in small memory"))
    commands.names |= {"RUN": "runs/shards", "SHARDS": "shards"}
    commands.more["train.py"] += " --dataloader_num_workers 1"
    commands.run(block("scaling.md", "Data"))
    assert (commands.folder / "runs/shards/model.safetensors").is_file()


SUPCON = "Two-stage supervised contrastive fine-tuning"


@pytest.mark.slow
def test_supcon(commands):
    commands.more["train.py"] = commands.more["train.py"].replace("--max_steps 1", "--num_train_epochs 1")
    commands.more["train.py"] += " --lr_milestones 0.5 --per_device_train_batch_size 12"
    commands.run(block("supcon.md", SUPCON))
    assert results_of(commands.folder / "results/stage2/emodb")["n"] == 12


@pytest.mark.slow
def test_supcon_protocols(commands):
    commands.more["train.py"] = commands.more["train.py"].replace("--max_steps 1", "--num_train_epochs 1")
    commands.more["train.py"] += (
        f" --lr_milestones 0.5 --per_device_train_batch_size 12 --seeds 0 --control false {TWO}"
    )
    commands.run(block("supcon.md", "Protocols"))
    *judged, compared, layers = block("supcon.md", "Protocols", 1).splitlines()
    assert "evaluation.comparison" in compared  # it needs the published corpora, whose speakers are known to differ
    commands.run(layers)
    commands.more["evaluate.py"] = f"--gender_probe false {TWO}"
    commands.run("\n".join(judged))
    assert results_of(commands.folder / "runs/stage2/results")["n"] == 36


SPEAKERS = "Pretraining on clusters of speaker embeddings"


@pytest.mark.slow
def test_speakers(commands):
    pytest.importorskip("resemblyzer", reason="speaker embeddings: make speaker-extra")
    commands.more["train.py"] += " --per_device_train_batch_size 8"
    commands.run(block("speakers.md", SPEAKERS))
    assert results_of(commands.folder / "results/ser/emodb")["n"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_speakers_protocols(commands, number):
    pytest.importorskip("resemblyzer", reason="speaker embeddings: make speaker-extra")
    commands.names |= {"UNLABELLED": "corpora/ravdess", "PROTOCOL": "2-folds-by-speaker"}
    pretraining, *protocols = block("speakers.md", "The paper's protocols", number).splitlines()
    commands.more["train.py"] += " --per_device_train_batch_size 8"
    commands.run(pretraining)
    commands.more["train.py"] += " --seeds 0 --control false"
    commands.run("\n".join(protocols))
    assert (commands.folder / "runs/pretrained-corpus/fold_1/seed_0/model.safetensors").is_file()
