"""Several processes train what one process with the whole batch would."""

import json
import os

import pytest
from conftest import ROOT, TINY, run_script

from modeling_gemoclap import GEmoClapModel

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def test_loss_and_gradient_equal_those_of_one_process():
    done = run_script(
        "tests/distributed_worker.py", launcher=TORCHRUN, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    )
    results = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert len(results) == 7
    for objective, similarity, loss, error, shortcut in results:
        assert float(loss) < 1e-5 and float(error) < 1e-5, (objective, similarity)
        assert float(shortcut) > 1e-2, "without the gathering the check must fail"


def test_two_processes_train_and_save_one_checkpoint(tones, tmp_path):
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "2")
    more = ("--per_device_train_batch_size", "6", "--eval_strategy", "epoch", "--dev_speakers", "04")
    done = run_script("train.py", *TINY, *options, *more, launcher=TORCHRUN)
    assert done.stdout.count("Trained on 36 clips") == 1
    history = json.loads((tmp_path / "run/trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "eval_uar" in entry] == [3, 6]  # 36 clips, 12 a global step
    assert GEmoClapModel.from_pretrained(tmp_path / "run").config.training_data[0]["num_clips"] == 36
    assert (
        pytest.approx(history[0]["cross_entropy"] - history[0]["cross_entropy_floor"], abs=1e-3) == history[0]["loss"]
    )
