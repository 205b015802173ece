"""Checkpoints to resume from: complete ones are recognised, and damaged ones passed over."""

import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import ROOT, TINY, TORCHRUN, run_script, same_weights
from transformers import TrainerState, TrainingArguments

from modeling_gemoclap.command_line.failures import TerminatedError, failure_message
from modeling_gemoclap.runs import termination
from modeling_gemoclap.training import checkpoints
from modeling_gemoclap.training.checkpoints import (
    FILES,
    damage_of,
    evaluation_is_missing,
    latest_complete_checkpoint,
    record_files,
    refuse_partial_checkpoint,
    remove_surplus_checkpoints,
    settle_checkpoints,
    whole_checkpoint,
)
from modeling_gemoclap.training.finite import with_lasting_workers

OPTIONS = ("--exclude_speakers", "04", "--num_train_epochs", "2", "--save_strategy", "steps", "--save_steps", "2")
OPTIONS += ("--max_seconds", "0.5", "--projection_dropout", "0.2")


@pytest.fixture
def steps(tmp_path):
    """Creates complete checkpoints of some steps."""

    def make(*numbers):
        for number in numbers:
            folder = tmp_path / f"checkpoint-{number}"
            (folder / "part").mkdir(parents=True)
            for name in ("optimizer.pt", "part/weights"):
                (folder / name).write_bytes(b"content")
            (folder / "trainer_state.json").write_text("{}")
            record_files(folder)
        return tmp_path

    return make


def state_of(best=None):
    return TrainerState(best_model_checkpoint=best and str(best))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "optimizer.pt has 0 of 7 bytes"),
        (lambda path: path.write_bytes(b"conten"), "optimizer.pt has 6 of 7 bytes"),
        (lambda path: path.write_bytes(b"c0ntent"), "optimizer.pt was changed after it was written"),
        (lambda path: path.unlink(), "optimizer.pt is missing or cannot be read"),
        (lambda path: (path.parent / FILES).unlink(), f"{FILES} is missing or cannot be read"),
        (lambda path: (path.parent / FILES).write_text('{"files": {"optim'), f"{FILES} is missing or cannot be read"),
        (lambda path: (path.parent / FILES).write_text('{"files": ["optimizer.pt"]}'), f"{FILES} is missing or"),
        (lambda path: (path.parent / FILES).write_text('{"files": null}'), "it was not written to its end"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(steps, damage, message):
    folder = steps(2, 10)
    (folder / "checkpoint-x").mkdir()
    assert latest_complete_checkpoint(folder) == str(folder / "checkpoint-10")
    damage(folder / "checkpoint-10/optimizer.pt")
    assert message in damage_of(folder / "checkpoint-10")
    assert latest_complete_checkpoint(folder) == str(folder / "checkpoint-2")
    shutil.rmtree(folder / "checkpoint-2")
    (folder / "checkpoint-10/trainer_state.json").unlink()  # with it and without a record, it is of an earlier version
    assert latest_complete_checkpoint(folder) is None


@pytest.mark.parametrize("record", [None, '{"files": null}'])
def test_the_oldest_checkpoints_are_removed_and_incomplete_ones_first(steps, record):
    folder = steps(2, 4, 6, 8, 10, 12)
    (folder / "checkpoint-10" / FILES).unlink()
    if record:
        (folder / "checkpoint-10" / FILES).write_text(record)
    remove_surplus_checkpoints(folder / "checkpoint-8", 0, state_of())
    assert len(names(folder)) == 6
    remove_surplus_checkpoints(folder / "checkpoint-8", 4, state_of())
    assert names(folder) == ["checkpoint-12", "checkpoint-4", "checkpoint-6", "checkpoint-8"]
    remove_surplus_checkpoints(folder / "checkpoint-8", 1, state_of("elsewhere/checkpoint-4"))
    assert names(folder) == ["checkpoint-12", "checkpoint-4", "checkpoint-8"]  # 12 is later than the present one


def test_old_checkpoints_stay_until_the_new_one_is_complete(steps):
    folder = steps(2)
    arguments = SimpleNamespace(should_save=True, save_total_limit=1)
    with pytest.raises(KeyboardInterrupt), whole_checkpoint(folder / "checkpoint-4", arguments, state_of()):
        assert arguments.save_total_limit is None  # transformers removes none
        (folder / "checkpoint-4/part").touch()
        raise KeyboardInterrupt
    assert latest_complete_checkpoint(folder) == str(folder / "checkpoint-2") and arguments.save_total_limit == 1
    with whole_checkpoint(folder / "checkpoint-4", arguments, state_of()):
        assert names(folder / "checkpoint-4") == [FILES]  # without what the interrupted process left
        assert damage_of(folder / "checkpoint-4") == "it was not written to its end"
    assert names(folder) == ["checkpoint-4"] and damage_of(folder / "checkpoint-4") is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full ({})"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "the disk is full ({})"),
        (Exception("I/O error: No space left on device (os error 28)"), "the disk is full ({})"),
        (OSError(errno.EROFS, "Read-only file system", "a/file"), "a/file: Read-only file system"),
        (OSError(errno.EIO, "x"), "{}: Input/output error"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_removed_and_named(steps, error, message):
    folder = steps(2)
    arguments = SimpleNamespace(should_save=True, save_total_limit=1)
    with pytest.raises(OSError) as raised, whole_checkpoint(folder / "checkpoint-4", arguments, state_of()):
        raise error
    assert failure_message(raised.value).startswith(message.format(folder / "checkpoint-4"))
    assert names(folder) == ["checkpoint-2"]


def test_an_error_of_another_kind_keeps_its_cause(steps):
    arguments, error, cause = SimpleNamespace(should_save=True, save_total_limit=1), RuntimeError("x"), KeyError("y")
    with pytest.raises(RuntimeError) as raised, whole_checkpoint(steps(2) / "checkpoint-4", arguments, state_of()):
        raise error from cause
    assert raised.value is error and error.__cause__ is cause


@pytest.mark.parametrize("failing", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("saves", [True, False])
def test_a_checkpoint_is_complete_when_all_processes_have_written_it(steps, monkeypatch, failing, saves):
    """This process waits for the other one four times, and the other one may fail before each of them."""
    folder, waits, arguments = steps(2), [], SimpleNamespace(should_save=saves, save_total_limit=1)
    new = folder / "checkpoint-4"

    def all_gather_object(value):
        waits.append(((new / "written").exists(), damage_of(new) is None))
        return [value, "its disk is full" if len(waits) - 1 == failing else None]

    monkeypatch.setattr(checkpoints, "all_gather_object", all_gather_object)
    try:
        with whole_checkpoint(new, arguments, state_of()):
            new.mkdir(exist_ok=True)
            (new / "written").touch()
        assert failing is None
    except OSError as error:
        assert failing is not None and "process 1: its disk is full" in str(error)
    expected = [(False, False), (True, False), (True, saves), (True, saves)]
    assert waits == expected[: len(expected) if failing is None else failing + 1]
    assert (damage_of(new) is None) == (saves and failing in (None, 3))
    assert (folder / "checkpoint-2").exists() == (not saves or failing in (0, 1, 2))


@pytest.mark.parametrize("saves", [True, False])
def test_a_failure_of_this_process_reaches_the_others(steps, monkeypatch, saves):
    sent, arguments = [], SimpleNamespace(should_save=saves, save_total_limit=1)
    monkeypatch.setattr(checkpoints, "all_gather_object", lambda value: [None, sent.append(value)])
    folder = steps(2) / "checkpoint-4"
    with pytest.raises(OSError, match="No space left"), whole_checkpoint(folder, arguments, state_of()):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert sent[0] is None and sent[1].startswith(f"the disk is full ({folder})") and len(sent) == 2


def test_the_best_checkpoint_is_found_after_a_move(steps):
    folder = steps(2, 4)
    arguments = SimpleNamespace(
        should_save=True, save_total_limit=1, output_dir=str(folder), load_best_model_at_end=True
    )
    (folder / "checkpoint-4/trainer_state.json").write_text('{"best_model_checkpoint": "before/checkpoint-2"}')
    state = state_of()  # transformers 5 forgets the path
    settle_checkpoints(folder / "checkpoint-4", arguments, state)
    assert state.best_model_checkpoint == str(folder / "checkpoint-2") and len(names(folder)) == 2
    (folder / "checkpoint-2/optimizer.pt").write_bytes(b"part")
    with pytest.raises(ValueError, match="checkpoint-2, the best checkpoint so far, is missing or damaged .*4 of 7"):
        settle_checkpoints(folder / "checkpoint-4", arguments, state)
    (folder / "checkpoint-2" / FILES).unlink()  # as earlier versions wrote it
    settle_checkpoints(folder / "checkpoint-4", arguments, state)
    assert state.best_model_checkpoint == str(folder / "checkpoint-2")


@pytest.mark.parametrize("needed", [True, False])
def test_the_best_checkpoint_is_missing(steps, tmp_path, needed):
    """It may be beside the checkpoint to resume from, or where it was when that was saved."""
    folder, new = steps(2, 4), tmp_path / "new"
    record = {"best_model_checkpoint": str(folder / "checkpoint-2")}
    arguments = SimpleNamespace(should_save=True, save_total_limit=1, output_dir=str(new))
    arguments.load_best_model_at_end = needed
    shutil.move(folder / "checkpoint-4", new / "checkpoint-4")
    (new / "checkpoint-4/trainer_state.json").write_text(json.dumps(record))
    settle_checkpoints(new / "checkpoint-4", arguments, state := state_of())
    assert state.best_model_checkpoint == str(folder / "checkpoint-2")
    shutil.rmtree(folder / "checkpoint-2")
    with pytest.raises(ValueError, match="new/checkpoint-2, the best .*is missing") if needed else nullcontext():
        settle_checkpoints(new / "checkpoint-4", arguments, state := state_of(folder / "checkpoint-2"))
        assert state.best_model_checkpoint is None


def test_a_checkpoint_of_an_earlier_version_is_accepted_by_its_path(steps, caplog):
    checkpoint = steps(2) / "checkpoint-2"
    for name in ("trainer_state.json", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).touch()
    (checkpoint / FILES).write_text('{"files": {"optim')
    with pytest.raises(ValueError, match=f"checkpoint-2 is damaged: {FILES} is missing or cannot be read"):
        refuse_partial_checkpoint(checkpoint, 1, 0, False, False)
    assert latest_complete_checkpoint(checkpoint.parent) is None
    (checkpoint / FILES).unlink()
    refuse_partial_checkpoint(checkpoint, 1, 0, False, False)
    assert f"checkpoint-2 has no {FILES}, so its files are not checked" in caplog.text


def test_checkpoints_of_an_earlier_version_are_not_overwritten_by_a_new_start(steps):
    """What is left of a checkpoint whose saving or removal was interrupted is passed over."""
    folder = steps(2, 4, 6)
    for step in (2, 4):
        (folder / f"checkpoint-{step}/trainer_state.json").touch()
        (folder / f"checkpoint-{step}" / FILES).unlink()
    assert latest_complete_checkpoint(folder) == str(folder / "checkpoint-6")
    (folder / "checkpoint-6/optimizer.pt").unlink()
    with pytest.raises(ValueError, match=r"an earlier version .* give --resume_from_checkpoint \S*/checkpoint-4 "):
        latest_complete_checkpoint(folder)
    for step in (2, 4):
        (folder / f"checkpoint-{step}/trainer_state.json").unlink()
    assert latest_complete_checkpoint(folder) is None


@pytest.mark.parametrize("windows", [False, True])
def test_a_system_that_does_not_flush_folders(steps, monkeypatch, windows):
    real_open, real_fsync, writable = os.open, os.fsync, {}

    def open_file(path, flags, *args, **options):
        if windows and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        descriptor = real_open(path, flags, *args, **options)
        writable[descriptor] = flags & os.O_RDWR
        return descriptor

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        if windows and not writable[descriptor]:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(descriptor)

    monkeypatch.setattr(checkpoints, "WINDOWS", windows)
    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", fsync)
    assert damage_of(steps(2) / "checkpoint-2") is None


# ---- SIGTERM --------------------------------------------------------------------------------------------------------
@pytest.fixture
def stopping(monkeypatch):
    """A trainer that records requests to stop, and the handlers of SIGTERM when the process sends it to itself."""
    requests, handlers = [], []
    monkeypatch.setattr(os, "kill", lambda process, number: handlers.append(signal.getsignal(number)))
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield SimpleNamespace(request_stop=lambda: requests.append(True), requests=requests, handlers=handlers)
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", [None, ValueError("no step"), KeyboardInterrupt(), TerminatedError("saved")])
def test_sigterm_after_the_last_step_ends_the_process(stopping, error):
    """No step follows that could stop. After a checkpoint, `TerminatedError` ends it."""
    with pytest.raises(type(error)) if error else nullcontext(), termination.checkpoint_on_sigterm(stopping):
        signal.raise_signal(signal.SIGTERM)
        if error:
            raise error
    assert stopping.requests and stopping.handlers == [signal.SIG_DFL] * (not isinstance(error, TerminatedError))


def test_sigterm_also_calls_the_handler_of_the_caller(stopping):
    calls = []
    signal.signal(signal.SIGTERM, handler := lambda *arguments: calls.append(arguments))
    with termination.checkpoint_on_sigterm(stopping):
        signal.raise_signal(signal.SIGTERM)
    assert len(calls) == len(stopping.requests) == 1 and calls[0][0] == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler and not stopping.handlers  # it was called once


def test_sigterm_stays_ignored(stopping):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with termination.checkpoint_on_sigterm(stopping):
        signal.raise_signal(signal.SIGTERM)
    assert not stopping.requests and signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_thread_does_not_handle_signals(stopping):
    seen = []

    def run():
        with termination.checkpoint_on_sigterm(stopping):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


# ---- trainings ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def whole(tones, tmp_path_factory):
    """A training of six steps with the checkpoints of its steps 2, 4 and 6."""
    run = tmp_path_factory.mktemp("whole") / "run"
    run_script("train.py", *TINY, *OPTIONS, "--data_dir", tones, "--output_dir", run)
    return run


def losses(run):
    return json.loads((run / "trainer_state.json").read_text())["log_history"][-1]["train_loss"]


def test_a_damaged_checkpoint_is_refused_by_name_and_passed_over(train, tones, whole, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "checkpoint-6/optimizer.pt").write_bytes((run / "checkpoint-6/optimizer.pt").read_bytes()[:-1])
    options = (*OPTIONS, "--data_dir", tones, "--output_dir", run, "--resume_from_checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint-6 is damaged: optimizer.pt has \d+ of \d+ bytes. Resume from"):
        train(*options, run / "checkpoint-6")
    (run / "model.safetensors").unlink()
    train(*options, "true")
    assert same_weights(whole, run)
    assert losses(run) == losses(whole)  # the mean of all steps, not only of those after step 4


def test_a_run_that_is_resumed_after_its_last_step_has_the_same_files(train, tones, whole, tmp_path):
    """The tokenizer, which no step has used, and the sample of the training clips, whose metadata have an order."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    train(*OPTIONS, "--data_dir", tones, "--output_dir", run, "--resume_from_checkpoint", "true")
    for name in ("model.safetensors", "tokenizer.json", "training_clips.safetensors", "config.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_sigterm_saves_a_checkpoint_at_the_end_of_the_step(train, tones, whole, tmp_path, monkeypatch):
    """Also with `--save_strategy no`; the training that continues has the same weights."""
    run = tmp_path / "run"
    options = (*OPTIONS, "--data_dir", tones, "--output_dir", run, "--save_only_model", "true")
    options += ("--save_strategy", "no")
    step = termination.SpeechTrainer.training_step

    def terminated_step(trainer, *args, **kwargs):
        if trainer.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, *args, **kwargs)

    monkeypatch.setattr(termination.SpeechTrainer, "training_step", terminated_step)
    with pytest.raises(TerminatedError, match=r"stopped by SIGTERM after step 3 of 6: \S*checkpoint-3 is complete"):
        train(*options)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (run / "model.safetensors").exists() and damage_of(run / "checkpoint-3") is None
    train(*options, "--resume_from_checkpoint", "true")
    assert same_weights(whole, run)


def test_sigterm_saves_a_checkpoint_instead_of_an_evaluation(train, tones, tmp_path, monkeypatch):
    """With `--save_strategy best`, the evaluation would decide whether it is saved. It is made up on resumption."""
    options = (*OPTIONS, "--data_dir", tones, "--num_train_epochs", "1", "--dev_speakers", "03")
    options += ("--eval_strategy", "steps", "--eval_steps", "1", "--metric_for_best_model", "uar")
    options += ("--save_strategy", "best", "--output_dir")
    train(*options, tmp_path / "whole")
    step, evaluations = termination.SpeechTrainer.training_step, []

    def terminated_step(trainer, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(termination.SpeechTrainer, "training_step", terminated_step)
        patch.setattr(termination.SpeechTrainer, "_determine_best_metric", lambda *args, **kwargs: False)
        patch.setattr(termination.SpeechTrainer, "evaluate", lambda *args, **kwargs: evaluations.append(1) or {})
        with pytest.raises(TerminatedError, match=r"by SIGTERM after step 1 of 2: \S*checkpoint-1 is complete"):
            train(*options, tmp_path / "run")
    assert damage_of(tmp_path / "run/checkpoint-1") is None and not evaluations
    train(*options, tmp_path / "run", "--resume_from_checkpoint", "true")
    assert evaluated_steps(tmp_path / "run") == evaluated_steps(tmp_path / "whole") == [1, 2]
    assert same_weights(tmp_path / "whole", tmp_path / "run")  # the evaluation has drawn its random number


def evaluated_steps(run):
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry["step"] for entry in log if "eval_uar" in entry]


@pytest.mark.parametrize(
    ("strategy", "step", "epoch", "delay", "missing"),
    [
        ("steps", 4, 0.8, 0, True),
        ("steps", 4, 0.8, 5, False),
        ("steps", 5, 1.0, 0, False),
        ("steps", 9, 1.8, 0, transformers.__version__ >= "5"),  # the last step, which transformers 4 does not evaluate
        ("epoch", 5, 1.0, 0, True),
        ("epoch", 5, 1.0, 2, False),
        ("epoch", 4, 0.8, 0, False),
        ("epoch", 9, 1.8, 0, True),
        ("no", 4, 1.0, 0, False),
        ("no", 9, 1.8, 0, False),
    ],
)
def test_a_missed_evaluation_is_recognised(strategy, step, epoch, delay, missing):
    arguments = TrainingArguments(eval_strategy=strategy, eval_steps=2, eval_delay=delay)
    state = TrainerState(global_step=step, max_steps=9, epoch=epoch, eval_steps=2, logging_steps=1, save_steps=1)
    state.log_history = [{"step": step - 1, "eval_runtime": 1.0}, {"step": step, "loss": 1.0}]
    assert evaluation_is_missing(arguments, state) == missing
    state.log_history.append({"step": step, "eval_runtime": 1.0})
    assert not evaluation_is_missing(arguments, state)


class Signalled(torch.utils.data.Dataset):
    """Items whose first is read after the worker got SIGTERM from another process."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if not index:
            subprocess.run([sys.executable, "-c", f"import os; os.kill({os.getpid()}, 15)"], check=True)
            time.sleep(0.1)
        return os.getpid()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell the sender of a signal")
def test_only_their_parent_ends_workers_by_sigterm():
    """A worker that ignored it altogether would let its parent wait for ever at its end."""
    loader = torch.utils.data.DataLoader(Signalled(), num_workers=1, persistent_workers=True)
    iterator = iter(with_lasting_workers(loader))
    assert len({int(next(iterator)) for _ in range(3)}) == 1
    worker = iterator._workers[0]
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


FULL_IN_ONE = """
import errno, sys, time
from pathlib import Path
from types import SimpleNamespace
import torch.distributed as dist
from transformers import TrainerState, TrainingArguments
from modeling_gemoclap.training.checkpoints import whole_checkpoint
dist.init_process_group("gloo")
folder, first = Path(sys.argv[1]), dist.get_rank() == 0
arguments = SimpleNamespace(should_save=first, save_total_limit=None)
for name, fails in (("checkpoint-1", False), ("checkpoint-2", True)):
    try:
        with whole_checkpoint(folder / name, arguments, TrainerState()):
            folder.joinpath(name).mkdir(exist_ok=True)
            time.sleep(0 if first else 0.5)
            if fails and not first:
                raise OSError(errno.ENOSPC, "No space left on device")
            (folder / name / f"rng_state_{dist.get_rank()}.pth").touch()
    except OSError as error:
        (folder / f"error-{dist.get_rank()}").write_text(f"{name}: {error}")
dist.barrier()
"""


@pytest.mark.slow
def test_both_processes_end_if_one_cannot_write(tmp_path):
    """The other one neither waits for ever nor records a checkpoint without the files of the slower one."""
    script = tmp_path / "script.py"
    script.write_text(FULL_IN_ONE)
    run_script(script, tmp_path, launcher=TORCHRUN, env={"PYTHONPATH": str(ROOT)})
    assert names(tmp_path) == ["checkpoint-1", "error-0", "error-1", "script.py"]
    assert names(tmp_path / "checkpoint-1") == [FILES, "rng_state_0.pth", "rng_state_1.pth"]
    assert damage_of(tmp_path / "checkpoint-1") is None
    assert "rng_state_1.pth" in (tmp_path / "checkpoint-1" / FILES).read_text()
    assert "checkpoint-2: process 1: the disk is full" in (tmp_path / "error-0").read_text()
    assert "No space left on device" in (tmp_path / "error-1").read_text()


TERMINATED = """
import os, runpy, signal, sys
sys.path.insert(0, os.getcwd())
sys.argv = ["train.py", *sys.argv[1:]]
from modeling_gemoclap.training.trainer import SpeechTrainer
step = SpeechTrainer.training_step
def training_step(trainer, *args, **kwargs):
    if trainer.state.global_step == 2 and os.environ["RANK"] == "1" and "--resume_from_checkpoint" not in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(trainer, *args, **kwargs)
SpeechTrainer.training_step = training_step
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both(tones, tmp_path):
    (tmp_path / "script.py").write_text(TERMINATED)
    options = (*TINY, *OPTIONS, "--data_dir", tones, "--per_device_train_batch_size", "6", "--output_dir")
    run_script("train.py", *options, tmp_path / "whole", launcher=TORCHRUN)
    run = tmp_path / "run"
    done = run_script(tmp_path / "script.py", *options, run, launcher=TORCHRUN, check=False)
    assert done.returncode and re.search(r"stopped by SIGTERM after step 3 of 6: \S*checkpoint-3", done.stderr)
    assert "exitcode  : 143" in done.stderr and damage_of(run / "checkpoint-3") is None
    run_script(tmp_path / "script.py", *options, run, "--resume_from_checkpoint", "true", launcher=TORCHRUN)
    assert same_weights(tmp_path / "whole", run)
