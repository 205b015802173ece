"""The blocks of docs/export.md: files are exported, and run where torch and transformers cannot be imported."""

import ast
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
import pytest
import soundfile
from conftest import RATE, ROOT, tone
from pages import block

from modeling_gemoclap import GEmoClap
from modeling_gemoclap.cli import main

WITHOUT_TORCH = """import sys
REFUSED = ("torch", "transformers", "modeling_gemoclap", "soxr", "onnx")
sys.modules.update(dict.fromkeys(REFUSED))
"""


def exported(folder, model="compact"):
    """A model in a folder with two recordings."""
    for name, emotion, seconds in (("a", "angry", 1.2), ("b", "sad", 2.9)):
        soundfile.write(folder / f"{name}.wav", tone(emotion, 0, seconds=seconds), RATE, subtype="FLOAT")
    model = GEmoClap.from_pretrained(model, device="cpu")
    model.export(folder / "emotions.onnx")
    return model


def printed(model, folder, python, code):
    """The scores that the lines of the page print, as the package computes them."""
    (folder / "run.py").write_text(code)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-I", "run.py"], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    wanted = model.predict_proba([folder / "a.wav", folder / "b.wav"])
    assert [[*row] for row in rows] == [model.classes_.tolist()] * 2
    assert np.abs(np.array([[*row.values()] for row in rows]) - wanted).max() < 6e-4  # printed with three decimals


def test_an_exported_model_runs_without_torch(tmp_path):
    model = exported(tmp_path)
    code = block("export.md", "Run an exported model")
    assert len([line for line in code.splitlines() if line.strip()]) <= 22
    printed(model, tmp_path, sys.executable, WITHOUT_TORCH + code)
    for name, wave in (("silent", np.zeros(RATE)), ("short", tone("sad", 0)[:1000])):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
        (tmp_path / "run.py").write_text(code.replace("a.wav", f"{name}.wav"))
        done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True)
        assert f"ValueError: {name}.wav: too short or silent" in done.stderr


@pytest.mark.slow
def test_it_runs_in_an_environment_with_three_packages(tmp_path):
    model = exported(tmp_path)
    python = tmp_path / "environment/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    install = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "-c",
        ROOT / "constraints.txt",
        "onnxruntime",
        "numpy",
        "soundfile",
    ]
    subprocess.run(install, check=True)
    printed(model, tmp_path, python, block("export.md", "Run an exported model"))


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path, monkeypatch):
    """In this process, with the smaller checkpoint and words that it was trained on."""
    monkeypatch.chdir(tmp_path)
    for line in block("export.md", "Export to ONNX").splitlines():
        line = line.replace("export base", "export compact").replace("furious,gloomy,cheerful", "angry,sad,happy")
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(line)[1:])
        assert not ended.value.code, line
    for name, labels, quantized in (("emotions", 7, None), ("furious", 3, None), ("emotions-int8", 7, "int8")):
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert (len(content["labels"]), content["quantized"]) == (labels, quantized)
        assert content["model"] == "compact" and content["licence"] == "apache-2.0"
