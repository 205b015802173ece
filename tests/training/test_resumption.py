"""Trainings that are resumed in another place or after their last step, and processes beside one that fails."""

import json
import os
import re
import shutil
import signal
import time

import pytest
from conftest import TINY, TORCHRUN, run_script, same_weights, worker_results

from modeling_gemoclap.command_line.failures import TerminatedError
from modeling_gemoclap.training.checkpoints import FILES, checkpoints_in, step_of
from modeling_gemoclap.training.trainer import SpeechTrainer

OPTIONS = ("--exclude_speakers", "04", "--max_seconds", "0.5", "--projection_dropout", "0.2")  # 3 steps in an epoch
RESUME = ("--resume_from_checkpoint", "true")


def state_of(run):
    return json.loads((run / "trainer_state.json").read_text())


def steps_in(run):
    return [step_of(path) for path in checkpoints_in(run)]


# ---- the best checkpoint --------------------------------------------------------------------------------------------
SELECTION = ("--dev_speakers", "03", "--eval_strategy", "epoch", "--save_strategy", "epoch", "--num_train_epochs", "4")
SELECTION += ("--load_best_model_at_end", "true", "--metric_for_best_model", "uar")
UAR = {2: 0.5, 4: 0.9, 6: 0.3, 8: 0.6}  # by step


@pytest.fixture
def best_is_second(monkeypatch):
    """Trainings whose second epoch is the best one."""
    is_best = SpeechTrainer._determine_best_metric

    def determine(trainer, metrics, trial):
        return is_best(trainer, {**metrics, "eval_uar": UAR[trainer.state.global_step]}, trial)

    monkeypatch.setattr(SpeechTrainer, "_determine_best_metric", determine)


@pytest.fixture
def interrupted(train, tones, tmp_path, best_is_second):
    """A run that stopped after a step, the same run to its end, and the options of both."""

    def make(*more, stop_after=6):
        run, whole = tmp_path / "run", tmp_path / "whole"
        options = (*OPTIONS, *SELECTION, *more, "--data_dir", tones, "--output_dir")
        train(*options, whole)
        if stop_after == 8:
            shutil.copytree(whole, run)
            return run, whole, options
        before = SpeechTrainer.training_step

        def stop(trainer, *args, **kwargs):
            if trainer.state.global_step == stop_after:
                raise KeyboardInterrupt
            return before(trainer, *args, **kwargs)

        SpeechTrainer.training_step = stop
        try:
            with pytest.raises(KeyboardInterrupt):
                train(*options, run)
        finally:
            SpeechTrainer.training_step = before
        return run, whole, options

    return make


@pytest.mark.parametrize(
    ("stop_after", "limit"), [(6, ()), (6, ("--save_total_limit", "1")), (8, ()), (8, ("--save_total_limit", "2"))]
)
def test_a_moved_run_ends_with_its_best_checkpoint(train, tmp_path, interrupted, stop_after, limit):
    """transformers 5 forgets the path of the best checkpoint if there is no such folder."""
    run, whole, options = interrupted(*limit, stop_after=stop_after)
    moved = tmp_path / "moved"
    run.rename(moved)
    train(*options, moved, *RESUME)
    assert state_of(moved)["best_global_step"] == 4
    assert state_of(moved)["best_model_checkpoint"] == str(moved / "checkpoint-4")
    assert steps_in(moved) == steps_in(whole)
    assert same_weights(moved, whole) and same_weights(moved, moved / "checkpoint-4")


def test_a_removed_best_checkpoint_is_refused(train, interrupted):
    run, _, options = interrupted()
    shutil.rmtree(run / "checkpoint-4")
    with pytest.raises(ValueError, match="checkpoint-4, the best checkpoint so far, is missing or damaged"):
        train(*options, run, *RESUME)


# ---- the last step --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_no_step_follows_the_last_one(train, tones, tmp_path, strategy):
    """`--max_steps 4` ends within the second epoch of three steps."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = (*OPTIONS, "--data_dir", tones, "--max_steps", "4", "--lr_scheduler_type", "constant")
    options += ("--save_strategy", strategy, "--save_steps", "2", "--output_dir")
    train(*options, whole)
    shutil.copytree(whole, run)
    (run / "model.safetensors").unlink()
    train(*options, run, *RESUME)
    assert same_weights(run, whole) and steps_in(run) == steps_in(whole)
    for name in ("global_step", "epoch", "num_train_epochs", "max_steps", "total_flos"):
        assert state_of(run)[name] == state_of(whole)[name], name


def test_sigterm_in_the_last_step(train, tones, tmp_path, monkeypatch):
    run, whole, step = tmp_path / "run", tmp_path / "whole", SpeechTrainer.training_step
    options = (*OPTIONS, "--data_dir", tones, "--max_steps", "4", "--save_strategy", "no", "--output_dir")
    train(*options, whole)

    def last_step(trainer, *args, **kwargs):
        if trainer.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(TerminatedError, match="after step 4 of 4"):
        patch.setattr(SpeechTrainer, "training_step", last_step)
        train(*options, run)
    train(*options, run, *RESUME)
    assert same_weights(run, whole) and state_of(run)["global_step"] == 4


# ---- an earlier version ---------------------------------------------------------------------------------------------
def test_checkpoints_of_an_earlier_version_are_not_overwritten(train, tones, tmp_path):
    options = (
        *OPTIONS,
        "--data_dir",
        tones,
        "--num_train_epochs",
        "1",
        "--save_strategy",
        "steps",
        "--save_steps",
        "2",
    )
    run = tmp_path / "run"
    train(*options, "--output_dir", run)
    for checkpoint in checkpoints_in(run):
        (checkpoint / FILES).unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    latest = checkpoints_in(run)[-1]
    with pytest.raises(ValueError, match=f"an earlier version wrote it.*--resume_from_checkpoint {latest} "):
        train(*options, "--output_dir", run, *RESUME)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    train(*options, "--output_dir", run, "--resume_from_checkpoint", latest)


# ---- several processes ----------------------------------------------------------------------------------------------
FULL_ON_MAIN = """
import errno, os, runpy, sys
sys.path.insert(0, os.getcwd())
sys.argv = ["train.py", *sys.argv[1:]]
from modeling_gemoclap.training.trainer import SpeechTrainer
save = SpeechTrainer._save
def _save(trainer, output_dir=None, state_dict=None):
    if os.environ["RANK"] == "0" and trainer.state.best_global_step and str(output_dir).endswith("checkpoint-4"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return save(trainer, output_dir, state_dict)
SpeechTrainer._save = _save
runpy.run_path("train.py", run_name="__main__")
"""


ONE_PROCESS_SAVES = """
import sys
from pathlib import Path
import torch.distributed as dist
from conftest import audio_config, text_config
from modeling_gemoclap import GEmoClapConfig, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.publishing import hub_trainer
from worker_end import end_worker
folder = Path(sys.argv[1])
arguments = GEmoClapTrainingArguments(output_dir=str(folder / "run"), use_cpu=True, ddp_timeout=60)
model = GEmoClapModel(GEmoClapConfig(audio_config=audio_config("compact"), text_config=text_config("roberta")))
trainer = GEmoClapTrainer(model, arguments, lambda items: items, [])
trainer.hub_model_id = "user/model"
trainer.create_model_card = lambda: None
hub_trainer.push_checkpoint = lambda *args, **options: "pushed"
if dist.get_rank() == 0:
    trainer.save_model(str(folder / "saved"))
    print("RESULT", repr(trainer.push_to_hub()), flush=True)
end_worker()
"""


@pytest.mark.slow
def test_one_process_alone_may_save_and_push(tmp_path):
    (tmp_path / "script.py").write_text(ONE_PROCESS_SAVES)
    assert worker_results(str(tmp_path / "script.py"), 2, tmp_path) == ["pushed"]
    assert (tmp_path / "saved/model.safetensors").is_file() and (tmp_path / "run/model.safetensors").is_file()


@pytest.mark.slow
def test_a_full_disk_on_the_main_process_ends_both(tones, tmp_path):
    """The other process must not wait in the barrier that transformers has after the model is saved."""
    (tmp_path / "script.py").write_text(FULL_ON_MAIN)
    options = (*TINY, *OPTIONS, *SELECTION, "--data_dir", tones, "--per_device_train_batch_size", "6")
    options += ("--ddp_timeout", "120", "--output_dir", tmp_path / "run")
    start = time.monotonic()
    done = run_script(tmp_path / "script.py", *options, launcher=TORCHRUN, check=False)
    assert time.monotonic() - start < 110, "it waited for the limit of the process group"
    assert done.returncode and re.search(r"train.py: (process 0: )?the disk is full \(\S*/checkpoint-4\)", done.stderr)
    assert steps_in(tmp_path / "run") == [2]
