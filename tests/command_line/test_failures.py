"""How commands fail: one sentence and a status, before anything is lost; a traceback for what nobody expected."""

import errno
import json
import os
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
from modeling_gemoclap.command_line.failures import sentence_for
from modeling_gemoclap.runs.preflight import PushError, check_places, push

LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", ROOT / "configs/accelerate/cpu.yaml")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/figure.png")


def raised(action):
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


def by_the_package():
    from modeling_gemoclap.command_line.ranges import refuse

    refuse(["--alpha 2 must be at most 1"])


def by_transformers(tmp_path):
    TrainingArguments(str(tmp_path), load_best_model_at_end=True, save_strategy="epoch", use_cpu=True)


class Clips(torch.utils.data.Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise self.error


def in_a_worker(error):
    return raised(lambda: list(torch.utils.data.DataLoader(Clips(error), num_workers=1)))


# ---- what is told ---------------------------------------------------------------------------------------------------
def test_errors_that_were_written_for_users(tmp_path):
    assert sentence_for(raised(by_the_package)) == "--alpha 2 must be at most 1"
    assert "save and eval strategy" in sentence_for(raised(lambda: by_transformers(tmp_path)))
    assert sentence_for(AudioError("a.wav: silent")) == "a.wav: silent"
    assert sentence_for(raised(lambda: open(tmp_path / "x"))) == f"{tmp_path / 'x'}: No such file or directory"


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
def test_errors_that_may_be_bugs_are_not_sentences(action):
    assert sentence_for(raised(action)) is None


def test_errors_of_workers_are_told_without_the_traceback_in_them():
    assert (
        sentence_for(in_a_worker(AudioError("a.wav: silent\nas b.wav: silent"))) == "a.wav: silent\nas b.wav: silent"
    )
    assert sentence_for(in_a_worker(KeyError("x"))) is None
    died = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert "--dataloader_num_workers" in sentence_for(died)


@pytest.mark.parametrize(
    ("error", "said"),
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
        (MemoryError(), "the machine's memory is used up"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "the GPU's memory .*--contrastive_chunk",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
            "the machine's memory .*--batch_size",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), "no GPU can be used.*--use_cpu true"),
        (ConnectionError("offline mode is enabled"), "the network or the Hub"),
        (torch.distributed.DistNetworkError("peer"), "another process ended"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "another process ended"),
        (subprocess.CalledProcessError(3, ["python", "x y"]), "stopped: python 'x y' ended with 3"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), r"peft.*pip install 'gemoclap\[lora\]'"),
        (ModuleNotFoundError("No module named 'sklearn.x'", name="sklearn.x"), r"pip install 'gemoclap\[train\]'"),
        (ImportError("Using the `Trainer` with `PyTorch` requires `accelerate>=1.1.0`"), r"'gemoclap\[train\]'"),
        (ModuleNotFoundError("No module named 'soundfile'", name="soundfile"), "pip install gemoclap$"),
        (ModuleNotFoundError("No module named 'wandb'", name="wandb"), "pip install wandb$"),
        (PushError("the trained checkpoint is in x"), "^the trained checkpoint is in x$"),
    ],
)
def test_causes_outside_of_the_program(error, said):
    import re

    assert re.search(said, sentence_for(error), re.S)


def test_every_package_of_an_extra_has_its_name():
    """What the package imports and setup.cfg lists is known to the handler by its extra."""
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    imported = {"scikit-learn": "sklearn", "pyyaml": "yaml", "espeakng-loader": "espeakng_loader"}
    for extra in ("train", "lora", "tensorboard", "demo"):
        for line in config["options.extras_require"][extra].split():
            name = line.partition(">")[0]
            assert failures.EXTRAS[imported.get(name, name)] == extra
    for line in config["options"]["install_requires"].split():
        assert line.partition(">")[0] in failures.BASE


# ---- how the process ends -------------------------------------------------------------------------------------------
def ended(main, capsys):
    """The status of a command and what it printed as errors."""
    with pytest.raises(SystemExit) as end:
        failures.run_main("it.py", main)
    return end.value.code, capsys.readouterr().err


def test_status_and_what_is_printed(capsys, monkeypatch):
    def refuse(argv):
        by_the_package()

    assert failures.run_main("it.py", lambda argv: None) is None
    assert ended(refuse, capsys) == (1, "it.py: --alpha 2 must be at most 1\n")
    assert ended(raising(KeyboardInterrupt()), capsys) == (130, "it.py: interrupted; what had been written is kept\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup2", lambda *files: None)
        assert ended(raising(BrokenPipeError()), capsys) == (1, "")
    status, said = ended(lambda argv: [][0], capsys)
    assert status == 1 and "Traceback" in said
    assert said.splitlines()[-1].startswith("it.py: this IndexError was not expected: please report it as a bug")
    with pytest.raises(SystemExit) as end:
        failures.run_main("it.py", lambda argv: sys.exit(7))
    assert end.value.code == 7
    monkeypatch.setenv("GEMOCLAP_TRACEBACK", "1")
    status, said = ended(refuse, capsys)
    assert status == 1 and "Traceback" in said and said.endswith("it.py: --alpha 2 must be at most 1\n")


BLOCKED = """
import os
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
def absent(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in os.environ["BLOCKED"].split() else find_spec(name, path, target)
PathFinder.find_spec = classmethod(absent)
"""
COMPARISON = ("-m", "modeling_gemoclap.evaluation.comparison")


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
def test_a_missing_extra_is_named(tones, tmp_path, command, missing, extra):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    words = [{"TONES": str(tones), "OUT": str(tmp_path / "out")}.get(word, word) for word in command]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "BLOCKED": missing}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert f"pip install 'gemoclap[{extra}]'" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


# ---- tried first ----------------------------------------------------------------------------------------------------
def test_a_place_is_tried_and_nothing_is_left(tmp_path):
    places.refuse_unwritable({"--output_dir": tmp_path / "a/b", "--other": tmp_path, "--none": None})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="--output_dir .*file.*; --cache .*file/sub.*give a folder"):
        places.refuse_unwritable({"--output_dir": tmp_path / "file", "--cache": tmp_path / "file/sub"})


@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.fsync", "os.replace"])
def test_each_step_of_writing_is_tried(tmp_path, monkeypatch, step):
    monkeypatch.setattr(f"modeling_gemoclap.command_line.places.{step}", raising(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(ValueError, match="--output_dir .* cannot be written .Read-only"):
        places.refuse_unwritable({"--output_dir": tmp_path})
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["train", "evaluate"])
@pytest.mark.parametrize("place", ["--output_dir", "HF_HOME"])
def test_places_are_tried_before_anything_is_read(tmp_path, monkeypatch, script, place):
    """The corpus does not exist: that is found later."""
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


def test_hf_home_that_cannot_be_written_as_a_user_has_it(tones, tmp_path):
    (tmp_path / "file").write_text("x")
    env = {"HF_HOME": str(tmp_path / "file/home"), "HF_DATASETS_CACHE": "", "HF_MODULES_CACHE": ""}
    env = {name: value for name, value in env.items() if value}
    options = ("--data_dir", tones, "--output_dir", tmp_path / "run")
    done = run_script("train.py", *TINY, *options, check=False, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "file/home" in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_training_reports_to_is_there(tmp_path):
    for name, package in (("wandb", "wandb"), ("no-such", "no-such")):
        arguments = TrainingArguments(str(tmp_path), report_to=[name], use_cpu=True)
        with pytest.raises(ValueError, match=f"--report_to {name}: .*pip install {package}"):
            check_places(SimpleNamespace(feature_cache_dir=None), arguments)
    for name in ("none", "all", "tensorboard"):
        arguments = TrainingArguments(str(tmp_path), report_to=name, use_cpu=True)
        check_places(SimpleNamespace(feature_cache_dir=str(tmp_path)), arguments)


def test_several_processes_tell_it_once(tones, tmp_path):
    (tmp_path / "file").write_text("x")
    for options, said in (
        (("--output_dir", tmp_path / "file/run"), "--output_dir"),
        (("--output_dir", tmp_path / "run", "--num_train_epochs", "0"), "--num_train_epochs 0.0 must be above 0"),
    ):
        done = run_script("train.py", *TINY, "--data_dir", tones, *options, launcher=LAUNCH, check=False)
        assert done.returncode != 0 and done.stderr.count("train.py: --") == 1 and said in done.stderr, done.stderr
        assert not (tmp_path / "run").exists()


# ---- what is finished is kept ---------------------------------------------------------------------------------------
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
        self.args = SimpleNamespace(output_dir=str(folder), hub_model_id="me/mine")
        self.hub_model_id = None
        self.push_to_hub = raising(ConnectionError("no route to host\nmore"))


def test_a_push_that_fails_names_the_checkpoint_and_the_command(tmp_path):
    with pytest.raises(PushError, match=r"no route to host\).*hf upload me/mine") as error:
        push(Unreachable(tmp_path))
    assert str(tmp_path) in str(error.value) and "more" not in str(error.value)
    assert sentence_for(error.value) == str(error.value)


def test_a_training_whose_push_fails_is_whole(train, tones, tmp_path, monkeypatch):
    from transformers import Trainer

    monkeypatch.setattr(
        Trainer, "init_hf_repo", lambda self, *args, **kwargs: setattr(self, "hub_model_id", "me/mine")
    )
    monkeypatch.setattr(Trainer, "push_to_hub", raising(ConnectionError("no route to host")))
    run = tmp_path / "run"
    with pytest.raises(PushError, match=f"checkpoint is in {run}.*hf upload me/mine {run}"):
        options = ("--num_train_epochs", "1", "--push_to_hub", "true")
        train("--data_dir", tones, "--output_dir", run, *options)
    for name in ("model.safetensors", "config.json", "trainer_state.json", "README.md"):
        assert (run / name).is_file()


def test_an_interrupted_training_says_so(tones, tmp_path):
    command = [sys.executable, "train.py", *TINY, "--data_dir", tones, "--output_dir", tmp_path / "run"]
    command += ["--num_train_epochs", "3000", "--disable_tqdm", "true", "--logging_steps", "1"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # else ignored where tests are: `&`
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env, text=True, **pipes)
    for line in process.stdout:
        if "loss" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.strip().splitlines()[-1] == "train.py: interrupted; what had been written is kept"
