"""The lock of a run's folder: two trainings in it are refused, and a killed one leaves it free."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.runs import lock
from modeling_gemoclap.runs.lock import LOCK, is_empty, lock_folder, unlock_folder

HOLDER = """
import sys, time
from pathlib import Path
from modeling_gemoclap.runs.lock import lock_folder
held = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_training(tmp_path):
    """A process that holds the lock of `run`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_of_a_running_training_is_refused(train, tones, tmp_path, other_training, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS", 0.1)
    options = ("--data_dir", tones, "--num_train_epochs", "1", "--output_dir", tmp_path / "run")
    with pytest.raises(ValueError, match="run: another training is writing to this folder: wait until it ends, or"):
        train(*options)
    os.kill(other_training.pid, signal.SIGKILL)
    other_training.wait()
    assert (tmp_path / "run" / LOCK).is_file() and is_empty(tmp_path / "run")
    train(*options)
    assert (tmp_path / "run/model.safetensors").is_file() and not (tmp_path / "run" / LOCK).exists()


def test_a_protocol_is_locked_too(train, tones, tmp_path, other_training, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS", 0.1)
    options = ("--data_dir", tones, "--protocol", "2-folds-by-speaker", "--output_dir", tmp_path / "run")
    with pytest.raises(ValueError, match="another training is writing to this folder"):
        train(*options)


def test_a_failure_before_training_leaves_no_folder(train, tones, tmp_path):
    (tmp_path / "other/checkpoint-1").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no run_identity.json"):
        train("--data_dir", tones, "--output_dir", tmp_path / "run", "--resume_from_checkpoint",
              tmp_path / "other/checkpoint-1")  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_training_that_was_killed_before_it_began_leaves_an_empty_folder(train, tones, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK).touch()
    (run / f".{IDENTITY}.part").write_text("{")
    assert is_empty(run)
    train("--data_dir", tones, "--num_train_epochs", "1", "--output_dir", run)
    assert not [path.name for path in run.iterdir() if path.name in (LOCK, f".{IDENTITY}.part")]


def test_the_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        held = lock_folder(tmp_path / "run")
        worker = multiprocessing.get_context("fork").Process(target=int)  # a worker inherits the file
        worker.start()
        worker.join()
        unlock_folder(held)
        assert is_empty(tmp_path / "run") and not (tmp_path / "run" / LOCK).exists()
