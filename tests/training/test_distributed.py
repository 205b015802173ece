"""Training with several processes equals training with one process and the complete batch."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, TINY, TORCHRUN, run_script, worker_results

from modeling_gemoclap import GEmoClapModel
from modeling_gemoclap.training.checkpoints import record_files

TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
AUDIO = {**TEXT, "num_mel_bins": 16, "conv_channels": [8, 8], "hidden_dropout": 0.0, "conv_dropout": 0.0}
AUDIO |= {"apply_spec_augment": False}
SCRIPT_WITH_CORPUS_OF_RANK = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
sys.argv = ["train.py", *sys.argv[2:], "--data_dir", f"{sys.argv[1]}/corpus-{os.environ['RANK']}"]
runpy.run_path("train.py", run_name="__main__")
"""
SCRIPT_WITH_OPTIONS_OF_RANK = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
sys.argv = ["train.py", *sys.argv[3:], *sys.argv[1 + int(os.environ["RANK"])].split()]
runpy.run_path("train.py", run_name="__main__")
"""
SCRIPT_THAT_PRINTS_SEEDS = """
import os, runpy, sys
import torch
sys.path.insert(0, os.getcwd())
from modeling_gemoclap import GEmoClapTrainer
step = GEmoClapTrainer.training_step
def print_seed(self, *args, **kwargs):
    if self.state.global_step == 0:
        sys.stdout.write(f"SEED {self.args.process_index} {torch.initial_seed()}\\n")  # in one call
        sys.stdout.flush()
    return step(self, *args, **kwargs)
GEmoClapTrainer.training_step = print_seed
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_loss_and_gradient_equal_those_of_one_process(processes):
    results = worker_results("tests/training/distributed_worker.py", processes)
    assert (
        len(results) == 2 * (9 + 3) * 3
    )  # precisions; objectives by similarities, teacher, prompts, classifier; batches
    for dtype, *kind, errors in results:
        bound = 1e-5 if dtype == "torch.float32" else 1e-10
        assert errors.pop("loss") < bound and errors.pop("gradient") <= bound, (dtype, kind, errors)
        if kind[0] != "classifier":
            assert errors.pop("cached loss") < bound and errors.pop("cached gradient") <= bound, (dtype, kind, errors)
        for shortcut, error in errors.items():
            assert error > 1e-3, f"{shortcut} must fail the same check: {kind}"
    assert sum(len(errors) for *_, errors in results) == 2 * (9 + 2) * 3, "three shortcuts were tested"


def test_sharded_parameters_train_the_same():
    """FSDP2 of torch with two processes; accelerate uses it on GPUs only."""
    results = worker_results("tests/training/sharded_worker.py")
    assert [objective for objective, _ in results] == ["ml", "sl"]
    for _, errors in results:
        assert errors.pop("sharded") > 20, "number of sharded parameters"
        assert all(error <= 1e-10 for error in errors.values()), errors


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 2])
def test_uneven_batches_train_as_with_one_process(tones, tmp_path, chunk):
    """Of 36 clips in batches of ten, the last global batch has six: five on one process and one on the other."""
    options = ("--data_dir", tones, "--exclude_speakers", "04", "--class_balanced_sampling", "true")
    options += ("--num_train_epochs", "2", "--unknown_gender_prob", "0", "--optimizer", "optim", "--optim", "sgd")
    options += ("--text_config", json.dumps(TEXT), "--audio_config", json.dumps(AUDIO), "--learning_rate", "0.1")
    single, double = tmp_path / "single", tmp_path / "double"
    run_script("train.py", *TINY, *options, "--per_device_train_batch_size", 10, "--output_dir", single)
    more = ("--per_device_train_batch_size", 5, "--output_dir", double)
    more += ("--contrastive_chunk_size", chunk) if chunk else ()
    run_script("train.py", *TINY, *options, *more, launcher=TORCHRUN)
    first, second = (GEmoClapModel.from_pretrained(folder).state_dict() for folder in (single, double))
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-5
    logs = [json.loads((run / "trainer_state.json").read_text())["log_history"] for run in (single, double)]
    for a, b in zip(*logs, strict=True):
        for name in ("loss", "cross_entropy_floor"):
            if name in a:
                assert a[name] == pytest.approx(b[name], abs=2e-4)


@pytest.mark.slow
def test_different_manifests_are_refused(tones, tmp_path):
    """Each process has its own copy of the corpus, and one copy lacks a row."""
    for rank in (0, 1):
        shutil.copytree(tones, tmp_path / f"corpus-{rank}")
    rows = (tmp_path / "corpus-1/metadata.csv").read_text().splitlines()
    (tmp_path / "corpus-1/metadata.csv").write_text("\n".join(rows[:-1]) + "\n")
    (tmp_path / "launch.py").write_text(SCRIPT_WITH_CORPUS_OF_RANK)
    options = [*TINY, "--output_dir", tmp_path / "run", "--corpus_name", "tones"]
    done = run_script(tmp_path / "launch.py", tmp_path, *options, launcher=TORCHRUN, check=False)
    assert done.returncode != 0 and "metadata.csv is not the same on all processes" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("", "--seed 7"), "--seed is not the same on all processes (process 0: 42, process 1: 7)"),
        (("--learning_rate 0.1", "--learning_rate 0.2"), "--learning_rate is not the same on all processes"),
    ],
)
def test_different_options_are_refused(tones, tmp_path, options, message):
    """As if each node was started with different options."""
    (tmp_path / "launch.py").write_text(SCRIPT_WITH_OPTIONS_OF_RANK)
    common = [*TINY, "--output_dir", tmp_path / "run", "--data_dir", tones]
    done = run_script(tmp_path / "launch.py", *options, *common, launcher=TORCHRUN, check=False)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["another order", "a clip that one cannot read"])
def test_clips_that_differ_between_processes_are_refused(tones, tmp_path, what):
    for rank in (0, 1):
        shutil.copytree(tones, tmp_path / f"corpus-{rank}")
    more = ()
    if what == "another order":
        head, *rows = (tmp_path / "corpus-1/metadata.csv").read_text().splitlines()
        (tmp_path / "corpus-1/metadata.csv").write_text("\n".join([head, *reversed(rows)]) + "\n")
    else:
        (tmp_path / "corpus-1/audio/02_sad_1.wav").write_bytes(b"")
        more = ("--on_bad_audio", "skip")
    (tmp_path / "launch.py").write_text(SCRIPT_WITH_CORPUS_OF_RANK)
    options = [*TINY, "--output_dir", tmp_path / "run", "--corpus_name", "tones", *more]
    done = run_script(tmp_path / "launch.py", tmp_path, *options, launcher=TORCHRUN, check=False)
    assert done.returncode != 0 and "is not the same on all processes" in done.stderr


@pytest.mark.slow
def test_resuming_from_different_checkpoints_is_refused(tones, tmp_path):
    """Each node has its own folder."""
    for rank, step in ((0, 6), (1, 3)):
        (tmp_path / f"run-{rank}/checkpoint-{step}").mkdir(parents=True)
        record_files(tmp_path / f"run-{rank}/checkpoint-{step}")
    (tmp_path / "launch.py").write_text(SCRIPT_WITH_OPTIONS_OF_RANK)
    options = [f"--output_dir {tmp_path}/run-{rank}" for rank in (0, 1)]
    common = [*TINY, "--data_dir", tones, "--resume_from_checkpoint", "true"]
    done = run_script(tmp_path / "launch.py", *options, *common, launcher=TORCHRUN, check=False)
    assert done.returncode != 0 and "process 0: checkpoint-6, process 1: checkpoint-3" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["files", "shards and gradient caching"])
def test_resumed_run_of_two_processes_equals_uninterrupted_run(tones, tmp_path, form):
    """A run that is killed within the second epoch ends with the same weights.

    It resumes two steps before the end. An uninterrupted run reads the last batch, which is padded, after the
    checkpoint; a resumed one before it restores the random numbers.
    """
    data = tones
    if form != "files":
        data = tmp_path / "shards"
        run_script("-m", "modeling_gemoclap.corpora.shards", tones, data)
    options = ("--data_dir", data, "--exclude_speakers", "04", "--num_train_epochs", "2", "--max_seconds", "0.5")
    options += ("--per_device_train_batch_size", "4", "--save_strategy", "steps", "--save_steps", "8", "--seed", "3")
    options += ("--contrastive_chunk_size", "3") if form != "files" else ()
    run = tmp_path / "run"
    run_script("train.py", *TINY, *options, "--output_dir", run, launcher=TORCHRUN)
    before = GEmoClapModel.from_pretrained(run).state_dict()
    (run / "model.safetensors").unlink()
    shutil.rmtree(run / "checkpoint-10", ignore_errors=True)
    assert (run / "checkpoint-8").is_dir(), "the checkpoint is within the second epoch"
    done = run_script(
        "train.py", *TINY, *options, "--output_dir", run, "--resume_from_checkpoint", "true", launcher=TORCHRUN
    )
    after = GEmoClapModel.from_pretrained(run).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), done.stderr[-2000:]


@pytest.mark.slow
def test_layer_drop_under_gradient_checkpointing(tones, tmp_path):
    """Layers that a process drops have no gradient there; other processes must not wait for it."""
    audio = json.dumps({**AUDIO, "num_hidden_layers": 2, "layerdrop": 0.5})
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--audio_config", audio)
    more = ("--num_train_epochs", "3", "--per_device_train_batch_size", "6", "--gradient_checkpointing", "true")
    run_script("train.py", *TINY, *options, *more, launcher=TORCHRUN)
    assert (tmp_path / "run/model.safetensors").is_file()


@pytest.mark.slow
def test_processes_have_different_random_numbers(tones, tmp_path):
    (tmp_path / "noise.py").write_text(SCRIPT_THAT_PRINTS_SEEDS)
    options = (*TINY, "--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "1")
    done = run_script(tmp_path / "noise.py", *options, launcher=TORCHRUN)
    seeds = sorted({line for line in done.stdout.splitlines() if line.startswith("SEED")})
    assert [line.split()[1] for line in seeds] == ["0", "1"] and seeds[0].split()[2] != seeds[1].split()[2]


@pytest.mark.slow
def test_accumulation_is_refused(tones, tmp_path):
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run", "--gradient_accumulation_steps", "2")
    done = run_script("train.py", *TINY, *options, check=False)
    assert done.returncode == 1 and "gradient_accumulation_steps must be 1" in done.stderr


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


# Two messages of Gloo: for the timeout of a receive operation, and for the connection that it closes.
TIMEOUT = rb"Timed out|Application timeout"


@pytest.mark.slow
@pytest.mark.parametrize(("end", "message"), [("kill", rb"SIGKILL"), ("suspend", TIMEOUT)])
def test_processes_end_if_another_process_ends_or_hangs(tones, tmp_path, end, message):
    """torchrun detects a killed process immediately. For a suspended process, the others wait `--ddp_timeout`."""
    import psutil

    options = ["--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", 5000, "--ddp_timeout", 10]
    command = [sys.executable, *TORCHRUN, "train.py", *TINY, *options, "--save_strategy", "steps", "--save_steps", 5]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(part) for part in [*command, "--save_total_limit", 1]]
    launcher = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob("checkpoint-*/trainer_state.json")):
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        getattr(psutil.Process(launcher.pid).children()[-1], end)()
        _, error = launcher.communicate(timeout=120)
    finally:
        for process in psutil.Process(launcher.pid).children() if launcher.poll() is None else ():
            process.kill()
        launcher.kill()
    assert launcher.returncode != 0 and re.search(message, error), error[-3000:].decode()
