"""The lock of a run's folder: two trainings in it are refused, and a killed one leaves it free."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.runs import folder as folder_module
from modeling_gemoclap.runs import lock
from modeling_gemoclap.runs import train as train_module
from modeling_gemoclap.runs.folder import PARTIAL_BACKUP, RunFolder
from modeling_gemoclap.runs.lock import LOCK, is_empty, lock_folder, unlock_folder
from modeling_gemoclap.training.checkpoints import record_files

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


def test_processes_without_a_process_group_do_not_wait_for_the_lock_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = SimpleNamespace(output_dir=tmp_path / "run", overwrite_output=False, process_index=0, world_size=1)
    with (
        pytest.raises(ValueError, match="2 processes were started, but each would train alone"),
        RunFolder(arguments),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_a_protocol_is_locked_too(train, tones, tmp_path, other_training, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS", 0.1)
    options = ("--data_dir", tones, "--protocol", "2-folds-by-speaker", "--output_dir", tmp_path / "run")
    (tmp_path / "run" / PARTIAL_BACKUP / "fold_0").mkdir(parents=True)  # the other one is moving an overwritten run
    with pytest.raises(ValueError, match="another training is writing to this folder"):
        train(*options)
    assert (tmp_path / "run" / PARTIAL_BACKUP / "fold_0").is_dir()


@pytest.fixture
def while_waiting(monkeypatch):
    """Sets what another training does to the folder before it releases the lock."""

    def change(action):
        def lock_later(folder):
            action()
            return lock_folder(folder)

        monkeypatch.setattr(folder_module, "lock_folder", lock_later)

    return change


def test_the_checkpoint_is_chosen_after_the_folder_is_locked(train, tones, tmp_path, monkeypatch, while_waiting):
    run, chosen = tmp_path / "run", []
    (run / "checkpoint-100").mkdir(parents=True)
    record_files(run / "checkpoint-100")
    while_waiting(lambda: (run / "checkpoint-100").rename(run / "checkpoint-150"))
    monkeypatch.setattr(train_module, "begin_run", lambda run, checkpoint: chosen.append(checkpoint))
    monkeypatch.setattr(train_module, "train_run", lambda *_: None)
    monkeypatch.setattr(train_module, "finish", lambda _: None)
    train("--data_dir", tones, "--output_dir", run, "--resume_from_checkpoint", "true")
    assert chosen == [str(run / "checkpoint-150")]
    assert [path.name for path in run.iterdir()] == ["checkpoint-150"]


def test_a_folder_that_is_filled_before_it_is_locked_is_refused(train, tones, tmp_path, while_waiting):
    (tmp_path / "run").mkdir()
    while_waiting((tmp_path / "run/model.safetensors").touch)
    with pytest.raises(ValueError, match="run is not empty: give another --output_dir"):
        train("--data_dir", tones, "--output_dir", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]


def test_an_error_is_reported_if_the_folder_was_removed(tmp_path):
    arguments = SimpleNamespace(output_dir=tmp_path / "run", overwrite_output=False, process_index=0)
    with pytest.raises(ValueError, match="the real error"), RunFolder(arguments) as folder:
        shutil.rmtree(folder.folder)
        raise ValueError("the real error")


def test_a_failure_before_training_leaves_no_folder(train, tones, tmp_path):
    (tmp_path / "other/checkpoint-1").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no run_identity.json"):
        train("--data_dir", tones, "--output_dir", tmp_path / "new/run", "--resume_from_checkpoint",
              tmp_path / "other/checkpoint-1")  # fmt: skip
    with pytest.raises(ValueError, match="no such folder"):
        train("--data_dir", tones, "--output_dir", tmp_path / "new/run", "--resume_from_checkpoint", tmp_path / "none")
    assert not (tmp_path / "new").exists()


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


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("left", [None, "", "123\nanother-host\n"])  # by a killed training, also on another host
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog, number, left):
    import fcntl

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "SECONDS", 0.1)
    if left is not None:
        (tmp_path / LOCK).write_text(left)
    held = lock_folder(tmp_path)
    assert "is on a file system without locks: start no other training in it" in caplog.text
    unlock_folder(held)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
def test_other_errors_of_a_lock_are_raised(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        lock_folder(tmp_path)


def test_on_windows_a_lock_is_released_before_its_file_is_removed(tmp_path, monkeypatch):
    (tmp_path / LOCK).touch()
    removed = []
    held = SimpleNamespace(
        lock_file=tmp_path / LOCK, release=lambda: removed.append(not Path(tmp_path, LOCK).exists())
    )
    monkeypatch.setattr(lock, "WINDOWS", True)
    unlock_folder(held)
    assert removed == [False, True]
    (tmp_path / LOCK).mkdir()
    unlock_folder(held)  # a file that another process has opened cannot be removed either
