"""Training and evaluation with a protocol: resuming, results, comparison, errors."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY, TORCHRUN, run_script, write_corpus

from modeling_gemoclap import GEmoClapFeatureExtractor
from modeling_gemoclap.evaluation.comparison import compare_runs
from modeling_gemoclap.evaluation.prediction_files import load_predictions

pytestmark = pytest.mark.slow
SMALL = (*TINY, "--num_train_epochs", "4", "--seed", "0")
FOLDS = ("--protocol", "4-folds-by-speaker")


def judge(run, tones, *options, check=True):
    return run_script("evaluate.py", "--model", run, "--data_dir", tones, *FOLDS, *options, check=check)


def figures(run):
    results = json.loads((run / "results/results.json").read_text())
    return {
        name: value for name, value in results.items() if name not in ("model", "asked", "command", "training_command")
    }


@pytest.fixture(scope="module")
def run(tones, tmp_path_factory):
    """An uninterrupted and evaluated run of all folds with two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "folds"
    run_script("train.py", *SMALL, "--data_dir", tones, *FOLDS, "--seeds", 0, 1, "--output_dir", folder)
    judge(folder, tones)
    return folder


def kill_when(command, list_files, count):
    """Start a program and kill it as soon as a number of files exist."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while len(list_files()) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list_files())


def test_a_killed_and_resumed_run_gives_the_same_results(run, tones, tmp_path):
    folder = tmp_path / "folds"
    train = ["train.py", *SMALL, "--data_dir", tones, *FOLDS, "--seeds", 0, 1, "--output_dir", folder]
    done = kill_when(train, lambda: list(folder.glob("fold_*/seed_*/fold.json")), 2)
    assert 2 <= done < 8
    first = (folder / "fold_0/seed_0/fold.json").stat().st_mtime_ns
    (folder / "fold_2/seed_0").mkdir(parents=True, exist_ok=True)
    (folder / "fold_2/seed_0/model.safetensors").write_bytes(b"half of one")
    run_script(*train)
    assert (folder / "fold_0/seed_0/fold.json").stat().st_mtime_ns == first, "finished folds are skipped"
    evaluate = ["evaluate.py", "--model", folder, "--data_dir", tones, *FOLDS]
    done = kill_when(evaluate, lambda: list(folder.glob("fold_*/seed_*/answers/answers.json")), 3)
    assert 3 <= done < 8 and not (folder / "results").exists()
    judge(folder, tones)
    assert figures(folder) == figures(run)


def test_results_of_a_run(run):
    results = figures(run)
    assert results["n"] == 48 and results["seeds"] == [0, 1] and results["protocol"].startswith("4-folds-by-speaker (")
    for seed in "01":
        protocol = results["protocols"][seed]
        assert re.fullmatch("[0-9a-f]{64}", protocol["sha256"]) and sorted(sum(protocol["folds"], [])) == [
            "01",
            "02",
            "03",
            "04",
        ]
    rows = list(csv.DictReader(open(run / "results/predictions_seed_0.csv")))
    assert len(rows) == len({row["file_name"] for row in rows}) == 48, "each clip is evaluated once"
    for row in rows:
        fold = json.loads((run / f"fold_{row['fold']}/seed_0/config.json").read_text())
        assert row["speaker_id"] not in fold["training_data"][0]["speakers"], (
            "by a model that was not trained on its speaker"
        )
    assert results["uar"] == pytest.approx(sum(seed["uar"] for seed in results["per_seed"].values()) / 2)
    controls = results["controls"]
    assert (
        controls["constant"]["uar"] == pytest.approx(1 / 3)
        and 0 <= controls["shuffled_labels"]["uar"] < results["uar"]
    )
    config = json.loads((run / "shuffled_labels/fold_0/seed_0/config.json").read_text())
    assert config["training_data"][0]["labels_shuffled"]
    assert results["fairness"]["num_female"] == 2 and 0 < results["gender_probe"]["uar"] <= 1
    assert {"mean", "std"} == set(results["over_folds"]["uar"])


def test_results_without_the_gender_probe(run, tones, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("results"))
    judge(tmp_path / "run", tones, "--gender_probe", "false")
    results = figures(tmp_path / "run")
    assert results["gender_probe"] is None and results["uar"] == figures(run)["uar"]
    assert "gender probe" not in (tmp_path / "run/results/results.md").read_text()


def test_contents_of_the_report(run):
    page = (run / "results/report.html").read_text()
    assert 'src="data:image/png;base64,' in page and not re.search(r"(src|href)=\"(?!data:)", page), "self-contained"
    assert (
        'name="viewport"' in page
        and "By the protocol, the checkpoint of each fold" in page
        and "shuffled labels" in page
        and "evaluate.py" in page
        and "train.py --config" in page
    )
    for name in ("confusion_matrix", "calibration", "fairness", "projection_gender", "similarity"):
        assert (run / f"results/{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert "| trained on shuffled labels |" in (run / "results/results.md").read_text()


def test_runs_are_compared(run):
    done = run_script("-m", "modeling_gemoclap.evaluation.comparison", run, run)
    assert "difference +0.0" in done.stdout and "cannot be distinguished" in done.stdout
    done = run_script("-m", "modeling_gemoclap.evaluation.comparison", run, ROOT, check=False)
    assert done.returncode == 1 and "no results.json there" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num_train_epochs", "5"), "is of another run, which differs in: num_train_epochs (4.0 then, 5.0 now)"),
        (("--protocol", "3-folds-by-speaker"), "was started with another protocol, 4-folds-by-speaker"),
        (("--speakers", "01"), "--protocol defines the training speakers"),
        (("--select", "dev"), "--select dev needs development speakers"),
        (("--protocol", "7-folds-by-speaker", "--overwrite_output", "true"), "7 folds of 4 speakers"),
        (("--folds", "4"), "--folds 4: 4-folds-by-speaker has folds 0 to 3"),
        (("--protocol", "leave-one-session-out"), "its clips have no session"),
    ],
)
def test_training_refuses_other_options(run, tones, options, message):
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*.safetensors"))
    arguments = (*SMALL, "--data_dir", tones, *FOLDS, "--output_dir", run, *options)
    done = run_script("train.py", *arguments, check=False)
    assert done.returncode == 1 and message in done.stderr
    assert before == sorted(path.stat().st_mtime_ns for path in run.rglob("*.safetensors"))


def test_evaluation_refuses_other_options(run, tones, trained, tmp_path):
    assert "was not trained by 3-folds" in judge(run, tones, "--protocol", "3-folds-by-speaker", check=False).stderr
    assert "not trained by 4-folds-by-speaker with seed 7" in judge(run, tones, "--seeds", "7", check=False).stderr
    assert "--protocol determines what is evaluated" in judge(run, tones, "--speakers", "01", check=False).stderr
    assert "leave out --allow_seen" in judge(run, tones, "--allow_seen_speakers", check=False).stderr
    assert (
        "holds the results of another run, with another seeds" in judge(run, tones, "--seeds", 0, check=False).stderr
    )
    assert "no run.json there" in judge(trained, tones, check=False).stderr
    done = run_script("evaluate.py", "--model", run, "--data_dir", tones, check=False)
    assert "the run of a protocol" in done.stderr
    options = ("--model", trained, "--data_dir", tones, "--speakers", "04", "--output_dir", run / "results")
    assert "holds the results of another run" in run_script("evaluate.py", *options, check=False).stderr
    part = tmp_path / "part"
    run_script(
        "train.py", *SMALL, "--data_dir", tones, *FOLDS, "--folds", 1, "--control", "false", "--output_dir", part
    )
    assert "fold_0/seed_0 is not trained to its end" in judge(part, tones, check=False).stderr


@pytest.fixture(scope="module")
def quick_runs(tones, tmp_path_factory):
    """Two runs of one step with the same protocol and different learning rates."""
    root = tmp_path_factory.mktemp("quick")
    for name, rate in (("one", "3e-3"), ("two", "1e-6")):
        options = ("--protocol", "2-folds-by-speaker", "--learning_rate", rate, "--output_dir", root / name)
        run_script("train.py", *SMALL, "--data_dir", tones, *options, "--max_steps", "1")
    return root


TWO_FOLDS = ("--protocol", "2-folds-by-speaker")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("two/fold_1", "fold_1", "learning_rate (0.003 in run.json, 1e-06 in the fold)"),
        ("two/shuffled_labels/fold_0", "shuffled_labels/fold_0", "learning_rate (0.003 in run.json, 1e-06 in the"),
        ("one/fold_0", "fold_1", "fold (1 in run.json, 0 in the fold)"),
        ("one/shuffled_labels/fold_1", "fold_1", "labels_shuffled (false in run.json, true in the fold)"),
    ],
)
def test_a_fold_of_another_run_is_refused(quick_runs, tones, tmp_path, source, target, message):
    shutil.copytree(quick_runs / "one", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / target)
    shutil.copytree(quick_runs / source, tmp_path / "run" / target)
    done = judge(tmp_path / "run", tones, *TWO_FOLDS, check=False)
    assert done.returncode == 1 and "is a fold of another run" in done.stderr and message in done.stderr
    if target == "fold_1":
        options = ("--model", tmp_path / "run", "--data_dir", tones, "--layer_similarity")
        assert message in run_script("evaluate.py", *options, check=False).stderr


def test_folds_without_an_identity_are_evaluated_with_a_note(quick_runs, tones, tmp_path):
    shutil.copytree(quick_runs / "one", tmp_path / "run")
    judge(tmp_path / "run", tones, *TWO_FOLDS)
    assert "do not record which run" not in (tmp_path / "run/results/results.md").read_text()
    (tmp_path / "run/fold_1/seed_0/run_identity.json").unlink()
    judge(tmp_path / "run", tones, *TWO_FOLDS)
    assert "Some folds do not record which run they belong to" in (tmp_path / "run/results/results.md").read_text()


def test_selection_and_calibration_use_only_development_speakers(tones, tmp_path):
    options = ("--num_dev_speakers", "1", "--select", "dev", "--control", "false", "--output_dir", tmp_path)
    run_script("train.py", *SMALL, "--data_dir", tones, *FOLDS, *options)
    for fold in range(4):
        folder = tmp_path / f"fold_{fold}/seed_0"
        plan, config = (json.loads((folder / name).read_text()) for name in ("fold.json", "config.json"))
        protocol = json.loads((tmp_path / "run.json").read_text())["protocols"]["0"]
        heard = {*plan["dev"], *config["training_data"][0]["speakers"]}
        assert len(plan["dev"]) == 1 and len(heard) == 3 and not heard & set(protocol["folds"][fold])
        history = json.loads((folder / "trainer_state.json").read_text())
        assert history["best_metric"] == max(e["eval_uar"] for e in history["log_history"] if "eval_uar" in e)
        card = (folder / "README.md").read_text()
        assert f"UAR {history['best_metric']:.3f}" in card and "best epoch on the development speakers is kept" in card
    judge(tmp_path, tones)
    assert "No model was trained on shuffled labels" in (tmp_path / "results/results.md").read_text()
    options = ("--model", folder, "--data_dir", tones, "--speakers", *plan["dev"])
    done = run_script("evaluate.py", *options, check=False)
    assert "trained or developed on its speakers" in done.stderr, (
        "speakers that selected the epoch are not test speakers"
    )


def test_the_control_and_the_evaluated_seeds(run, tones, tmp_path):
    folder = tmp_path / "folds"
    shutil.copytree(run, folder)
    judge(folder, tones, "--seeds", 1, "--overwrite_output")
    results = figures(folder)
    assert results["controls"]["shuffled_labels"] == figures(run)["controls"]["shuffled_labels"], "that of seed 0"
    assert not (folder / "results/predictions_seed_0.csv").exists() and len(load_predictions(folder)) == 1
    (folder / "shuffled_labels/fold_1/seed_0/fold.json").unlink()
    judge(folder, tones, "--seeds", 1)
    assert (
        "The control on shuffled labels is incomplete: fold_1, seed_0 is missing"
        in (folder / "results/results.md").read_text()
    )
    two = ("--data_dir", tones, "--protocol", "2-folds-by-speaker")
    options = ("--exclude_speakers", "04", "--control", "false", "--output_dir", tmp_path / "two")
    run_script("train.py", *SMALL, *two, *options)
    run_script("evaluate.py", "--model", tmp_path / "two", *two)
    results = figures(tmp_path / "two")
    assert results["speakers"] == ["01", "02", "03"] and "speakers 04 are excluded" in results["notes"]
    with pytest.raises(ValueError, match="have different protocols"):
        compare_runs(run, tmp_path / "two")


def test_two_processes_train_all_folds(run, tones, tmp_path):
    folder = tmp_path / "folds"
    options = ("--data_dir", tones, *FOLDS, "--output_dir", folder, "--per_device_train_batch_size", "6")
    done = run_script("train.py", *SMALL, *options, launcher=TORCHRUN)
    assert done.stdout.count("Trained on 36 clips") == 8 and len(list(folder.glob("fold_*/seed_0/fold.json"))) == 4
    judge(folder, tones)


def test_a_mixture_is_trained_and_evaluated(tones, tmp_path):
    """Speakers with the same name in two corpora are different; a corpus of the mixture is recognised."""
    shutil.copytree(tones, tmp_path / "here")
    write_corpus(tmp_path / "there", clips=3, salt="other")
    data = ("--data_dir", tmp_path / "here", tmp_path / "there", "--corpus_name", "here", "there")
    options = ("--protocol", "2-folds-by-speaker", "--control", "false", "--output_dir", tmp_path / "run")
    run_script("train.py", *SMALL, *data, *options, "--feature_config", '{"do_normalize": false}')
    config = json.loads((tmp_path / "run/fold_0/seed_0/config.json").read_text())
    assert [record["corpus"] for record in config["training_data"]] == ["here", "there"]
    extractor = GEmoClapFeatureExtractor.from_pretrained(tmp_path / "run/fold_0/seed_0")
    assert extractor.do_normalize, "levels differ between corpora"
    run_script("evaluate.py", "--model", tmp_path / "run", *data, "--protocol", "2-folds-by-speaker")
    results = json.loads((tmp_path / "run/results/results.json").read_text())
    assert results["n"] == 84 and results["corpus"] == "here+there" and "here/01" in results["speakers"]
    judged = set(results["protocols"]["0"]["folds"][0])
    seen = sorted(speaker.removeprefix("here/") for speaker in {f"here/0{n}" for n in range(1, 5)} - judged)
    done = run_script("evaluate.py", "--model", tmp_path / "run/fold_0/seed_0", "--data_dir", tones, check=False)
    assert done.returncode == 1 and "trained or developed on its speakers" in done.stderr and seen[0] in done.stderr


def test_an_overwritten_run_of_a_protocol(run, tones, tmp_path):
    shutil.copytree(run, tmp_path / "folds")
    options = ("--data_dir", tones, "--protocol", "2-folds-by-speaker", "--output_dir", tmp_path / "folds")
    more = ("--overwrite_output", "true", "--control", "false", "--per_device_train_batch_size", "6")
    run_script("train.py", *SMALL, *options, *more, launcher=TORCHRUN)
    assert sorted(path.name for path in (tmp_path / "folds").glob("fold_*")) == ["fold_0", "fold_1"]
    assert not (tmp_path / "folds/shuffled_labels").exists()
