"""Failures of commands: one sentence for expected errors, a traceback for others, and the exit status."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, load_script, run_script
from transformers import TrainingArguments

from modeling_gemoclap import AudioError
from modeling_gemoclap.command_line import failures, places
from modeling_gemoclap.command_line.failures import causes, failure_message, is_network_error
from modeling_gemoclap.runs.preflight import PushError, check_environment, push, refuse_missing_encoders

LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", ROOT / "configs/accelerate/cpu.yaml")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/figure.png")


def error_of(action):
    """The error that an action raises."""
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("no error was raised")


def raising(error):
    """A function that raises an error."""

    def raise_error(*args, **kwargs):
        raise error

    return raise_error


def package_error():
    from modeling_gemoclap.command_line.ranges import refuse

    refuse(["--alpha 2 must be at most 1"])


def transformers_error(tmp_path):
    TrainingArguments(str(tmp_path), load_best_model_at_end=True, save_strategy="epoch", use_cpu=True)


class FailingClips(torch.utils.data.Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise self.error


def worker_error(error):
    """An error that is raised in a worker of a data loader."""
    return error_of(lambda: list(torch.utils.data.DataLoader(FailingClips(error), num_workers=1)))


# ---- messages -------------------------------------------------------------------------------------------------------
def test_errors_for_users_are_messages(tmp_path):
    assert failure_message(error_of(package_error)) == "--alpha 2 must be at most 1"
    assert "save and eval strategy" in failure_message(error_of(lambda: transformers_error(tmp_path)))
    assert failure_message(AudioError("a.wav: silent")) == "a.wav: silent"
    assert failure_message(error_of(lambda: open(tmp_path / "x"))) == f"{tmp_path / 'x'}: No such file or directory"


@pytest.mark.parametrize(
    "action",
    [
        lambda: json.loads("{"),
        lambda: np.zeros(3).reshape(2),
        lambda: {}["x"],
        lambda: None.x,
        lambda: torch.zeros(2) @ torch.zeros(3),
        lambda: np.array([1]) + np.array("a"),
        lambda: __import__("modeling_gemoclap.evaluate"),
    ],
)
def test_errors_that_may_be_bugs_have_no_message(action):
    assert failure_message(error_of(action)) is None


def test_messages_of_worker_errors_have_no_traceback():
    assert (
        failure_message(worker_error(AudioError("a.wav: silent\nas b.wav: silent")))
        == "a.wav: silent\nas b.wav: silent"
    )
    assert failure_message(worker_error(KeyError("x"))) is None
    died = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert "--dataloader_num_workers" in failure_message(died)


@pytest.mark.parametrize(
    ("error", "pattern"),
    [
        (FULL, r"the disk is full \(results/figure.png\).*kept"),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "the disk is full",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
            "could not be written",
        ),
        (MemoryError(), "out of main memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "out of GPU memory .*--contrastive_chunk",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
            "out of main memory .*--batch_size",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), "no GPU is available.*--use_cpu true"),
        (ConnectionError("offline mode is enabled"), "the network or the Hub"),
        (torch.distributed.DistNetworkError("peer"), "another process ended"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "another process ended"),
        (subprocess.CalledProcessError(3, ["python", "x y"]), "stopped: python 'x y' ended with status 3"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), r"peft.*pip install 'gemoclap\[lora\]'"),
        (ModuleNotFoundError("No module named 'sklearn.x'", name="sklearn.x"), r"pip install 'gemoclap\[train\]'"),
        (ImportError("Using the `Trainer` with `PyTorch` requires `accelerate>=1.1.0`"), r"'gemoclap\[train\]'"),
        (ModuleNotFoundError("No module named 'soundfile'", name="soundfile"), "pip install gemoclap$"),
        (ModuleNotFoundError("No module named 'wandb'", name="wandb"), "pip install wandb$"),
        (PushError("the trained checkpoint is in x"), "^the trained checkpoint is in x$"),
    ],
)
def test_messages_of_external_causes(error, pattern):
    assert re.search(pattern, failure_message(error), re.S)


def test_an_error_that_is_its_own_cause_has_a_message():
    error = ModuleNotFoundError("No module named 'wandb'", name="wandb")
    error.__cause__ = other = ImportError("wandb")
    other.__cause__ = error
    assert failure_message(error) == "wandb is not installed: pip install wandb"
    assert not is_network_error(error)
    error.__context__ = error
    assert list(causes(error)) == [error, other] == list(causes(error, context=True))


def test_every_requirement_is_known_by_its_extra():
    """The failure handler knows all requirements of setup.cfg."""
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    imported = {"scikit-learn": "sklearn", "pyyaml": "yaml", "espeakng-loader": "espeakng_loader"}
    imported |= {"python-multipart": "python_multipart"}
    for extra in ("train", "lora", "tensorboard", "demo", "serve"):
        for line in config["options.extras_require"][extra].split():
            name = line.partition(">")[0]
            assert failures.EXTRAS[imported.get(name, name)] == extra
    for line in config["options"]["install_requires"].split():
        assert line.partition(">")[0] in failures.BASE


# ---- exit status ----------------------------------------------------------------------------------------------------
def run_failing(main, capsys):
    """The exit status and the error output of a command."""
    with pytest.raises(SystemExit) as error:
        failures.run_main("it.py", main)
    return error.value.code, capsys.readouterr().err


def test_status_and_output(capsys, monkeypatch):
    def refuse(argv):
        package_error()

    assert failures.run_main("it.py", lambda argv: None) is None
    assert run_failing(refuse, capsys) == (1, "it.py: --alpha 2 must be at most 1\n")
    assert run_failing(raising(KeyboardInterrupt()), capsys) == (
        130,
        "it.py: interrupted; files written so far are kept\n",
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup2", lambda *files: None)
        assert run_failing(raising(BrokenPipeError()), capsys) == (1, "")
    status, output = run_failing(lambda argv: [][0], capsys)
    assert status == 1 and "Traceback" in output
    assert output.splitlines()[-1].startswith("it.py: unexpected IndexError: please report it as a bug")
    with pytest.raises(SystemExit) as error:
        failures.run_main("it.py", lambda argv: sys.exit(7))
    assert error.value.code == 7
    monkeypatch.setenv("GEMOCLAP_TRACEBACK", "1")
    status, output = run_failing(refuse, capsys)
    assert status == 1 and "Traceback" in output and output.endswith("it.py: --alpha 2 must be at most 1\n")


BLOCKED = """
import os
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
def absent(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in os.environ["BLOCKED"].split() else find_spec(name, path, target)
PathFinder.find_spec = classmethod(absent)
"""
COMPARISON = ("-m", "modeling_gemoclap.evaluation.comparison")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (("train.py",), "accelerate datasets evaluate matplotlib sklearn scipy jinja2", "train"),
        (("train.py", *TINY, "--data_dir", "TONES", "--output_dir", "OUT"), "accelerate", "train"),
        (("evaluate.py", "--model", "x", "--data_dir", "x"), "datasets evaluate matplotlib sklearn scipy", "train"),
        ((*COMPARISON, "x", "y"), "sklearn", "train"),
        (("demo/run.py", "OUT"), "espeakng_loader", "demo"),
    ],
)
def test_missing_extra_is_named(tones, tmp_path, command, missing, extra):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    words = [{"TONES": str(tones), "OUT": str(tmp_path / "out")}.get(word, word) for word in command]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "BLOCKED": missing}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert f"pip install 'gemoclap[{extra}]'" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


# ---- checks before a command starts ---------------------------------------------------------------------------------
def test_check_of_writable_folders_leaves_no_file(tmp_path):
    places.refuse_unwritable({"--output_dir": tmp_path / "a/b", "--other": tmp_path, "--none": None})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="--output_dir .*file.*; --cache .*file/sub.*give a folder"):
        places.refuse_unwritable({"--output_dir": tmp_path / "file", "--cache": tmp_path / "file/sub"})


@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.fsync", "os.replace"])
def test_every_step_of_writing_is_checked(tmp_path, monkeypatch, step):
    monkeypatch.setattr(f"modeling_gemoclap.command_line.places.{step}", raising(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(ValueError, match="--output_dir .* cannot be written .Read-only"):
        places.refuse_unwritable({"--output_dir": tmp_path})
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["train", "evaluate"])
@pytest.mark.parametrize("place", ["--output_dir", "HF_HOME"])
def test_folders_are_checked_before_the_corpus_is_read(tmp_path, monkeypatch, script, place):
    """The corpus does not exist, which is reported only if all folders are writable."""
    import datasets

    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file/folder" if place == "--output_dir" else tmp_path / "out"
    if place == "HF_HOME":
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file/cache")
    words = {"train": TINY, "evaluate": ("--model", str(tmp_path))}[script]
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=f"{place}.* cannot be written"):
        load_script(script).main([*words, "--data_dir", "nowhere", "--output_dir", str(folder)])
    with pytest.raises(ValueError, match="nowhere" if script == "train" else "config.json"):
        monkeypatch.undo()
        monkeypatch.chdir(ROOT)
        load_script(script).main([*words, "--data_dir", "nowhere", "--output_dir", str(tmp_path / "out")])


@pytest.mark.slow
def test_hf_home_that_cannot_be_written_is_refused(tones, tmp_path):
    (tmp_path / "file").write_text("x")
    env = {"HF_HOME": str(tmp_path / "file/home"), "HF_DATASETS_CACHE": "", "HF_MODULES_CACHE": ""}
    env = {name: value for name, value in env.items() if value}
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run")
    done = run_script("train.py", *TINY, *options, check=False, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "file/home" in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_reporting_integration_is_refused(tmp_path):
    for name, package in (("wandb", "wandb"), ("no-such", "no-such")):
        arguments = TrainingArguments(str(tmp_path), report_to=[name], use_cpu=True)
        with pytest.raises(ValueError, match=f"--report_to {name}: .*pip install {package}"):
            check_environment(SimpleNamespace(feature_cache_dir=None), arguments)
    for name in ("none", "all", "tensorboard"):
        arguments = TrainingArguments(str(tmp_path), report_to=name, use_cpu=True)
        check_environment(SimpleNamespace(feature_cache_dir=str(tmp_path)), arguments)


def test_pretrained_encoders_that_were_not_fetched_are_named(tmp_path, monkeypatch):
    """By the shipped recipe too, before the corpus is read or anything is written; not a name on the Hub."""
    monkeypatch.chdir(tmp_path)
    words = ["--config", str(ROOT / "configs/whisper_minilm.yaml"), "--use_cpu", "true", "--output_dir", "run"]
    message = (
        "^--audio_model pretrained/whisper-base, --text_model pretrained/all-MiniLM-L6-v2: no such folder: .* by "
    )
    with pytest.raises(ValueError, match=f"{message}make pretrained or gemoclap pretrained"):
        load_script("train").main([*words, "--data_dir", "nowhere"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "pretrained/whisper-base").mkdir(parents=True)
    fetched = {"audio_model": "pretrained/whisper-base", "text_model": None}
    refuse_missing_encoders(fetched | {"speaker_embeddings": "pretrained-xvectors/name"})
    with pytest.raises(ValueError, match="^--text_model /a/pretrained/x: .* --output_dir /a/pretrained$"):
        refuse_missing_encoders(fetched | {"text_model": "/a/pretrained/x"})


@pytest.mark.slow
def test_several_processes_report_a_failure_once(tones, tmp_path):
    (tmp_path / "file").write_text("x")
    for options, message in (
        (("--output_dir", tmp_path / "file/run"), "--output_dir"),
        (("--output_dir", tmp_path / "run", "--num_train_epochs", "0"), "--num_train_epochs 0.0 must be above 0"),
    ):
        done = run_script("train.py", *TINY, "--data_dir", tones, *options, launcher=LAUNCH, check=False)
        assert done.returncode != 0 and done.stderr.count("train.py: --") == 1 and message in done.stderr, done.stderr
        assert not (tmp_path / "run").exists()


# ---- finished files are kept ----------------------------------------------------------------------------------------
def test_figures_are_written_before_pictures(trained, tones, tmp_path, monkeypatch):
    from modeling_gemoclap.evaluation import report

    evaluate, output = load_script("evaluate"), tmp_path / "results"
    words = ["--model", str(trained), "--data_dir", str(tones), "--speakers", "04", "--output_dir", str(output)]
    monkeypatch.setattr(report, "draw", raising(FULL))
    with pytest.raises(OSError, match="No space"):
        evaluate.main(words)
    assert len((output / "predictions.csv").read_text().splitlines()) == 13
    assert json.loads((output / "results.json").read_text())["n"] == 12
    assert (output / "results.md").is_file()
    monkeypatch.undo()
    evaluate.main(words)
    assert (output / "confusion_matrix.png").is_file()


class Unreachable:
    def __init__(self, folder):
        self.args = SimpleNamespace(output_dir=str(folder), hub_model_id="me/mine", hub_revision="next")
        self.hub_model_id = None
        self.push_to_hub = raising(ConnectionError("no route to host\nmore"))


def test_failed_push_names_the_checkpoint_and_the_command(tmp_path):
    with pytest.raises(PushError, match=r"no route to host\).*gemoclap push .* me/mine --branch next") as error:
        push(Unreachable(tmp_path))
    assert str(tmp_path) in str(error.value) and "more" not in str(error.value)
    assert failure_message(error.value) == str(error.value)


def test_checkpoint_is_complete_after_a_failed_push(train, tones, tmp_path, monkeypatch):
    from huggingface_hub import HfApi
    from transformers import Trainer

    monkeypatch.setattr(
        Trainer, "init_hf_repo", lambda self, *args, **kwargs: setattr(self, "hub_model_id", "me/mine")
    )
    monkeypatch.setattr(HfApi, "create_repo", raising(ConnectionError("no route to host")))
    run = tmp_path / "run"
    with pytest.raises(PushError, match=f"checkpoint is in {run}.*no route to host.*gemoclap push {run} me/mine"):
        options = ("--num_train_epochs", "1", "--push_to_hub", "true")
        train("--data_dir", tones, "--output_dir", run, *options)
    for name in ("model.safetensors", "config.json", "trainer_state.json", "README.md"):
        assert (run / name).is_file()


@pytest.mark.slow
def test_interrupted_training_is_reported(tones, tmp_path):
    command = [sys.executable, "train.py", *TINY, "--data_dir", tones, "--output_dir", tmp_path / "run"]
    command += ["--num_train_epochs", "3000", "--disable_tqdm", "true", "--logging_steps", "1"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in background jobs otherwise
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env, text=True, **pipes)
    for line in process.stdout:
        if "loss" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output
    assert output.strip().splitlines()[-1] == "train.py: interrupted; files written so far are kept"
