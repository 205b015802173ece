"""The example of docs/extending.md: an objective in one file with its options, which is trained and evaluated."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, run_script

from modeling_gemoclap.objectives.registry import OBJECTIVES, objective_named, register

CODE = re.search(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S)[1]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    assert len(CODE.splitlines()) <= 70 and len([line for line in CODE.splitlines() if line.strip()]) <= 60
    path = tmp_path_factory.mktemp("example") / "focal.py"
    path.write_text(CODE)
    return path


def test_the_example_trains_and_is_evaluated(example, tones, tmp_path):
    run = tmp_path / "run"
    options = ("--config", "tests/tiny.yaml", "--head", "focal", "--data_dir", tones, "--exclude_speakers", "04")
    done = run_script(example, *options, "--output_dir", run, env={"PYTHONPATH": str(ROOT)})
    assert "mean_probability" in done.stdout and "is for --head contrastive" in done.stderr
    identity = json.loads((run / "run_identity.json").read_text())
    assert identity["settings"]["focal_gamma"] == 2.0 and len(identity["objective_code"]) == 64
    assert "trained by the focal loss" in (run / "README.md").read_text()
    run_script(
        "evaluate.py", "--model", run, "--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path / "out"
    )
    assert json.loads((tmp_path / "out/results.json").read_text())["n"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "focal", "--focal_gamma", "-1"), "--focal_gamma -1.0 must be at least 0"),
        (("--focal_gamma", "1"), r"--focal_gamma is an option of --head focal \(the focal loss\)"),
        (("--head", "focal", "--alpha", "0.5"), r"--alpha is an option of --head contrastive \(GEmo-CLAP\)"),
    ],
)
def test_options_of_the_example(example, options, message):
    done = subprocess.run(
        [sys.executable, example, *options], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and re.search(message, done.stderr), done.stderr[-500:]


def test_the_registry():
    assert list(OBJECTIVES) == ["contrastive", "classifier", "supcon", "speaker"]
    with pytest.raises(ValueError, match="--head emo: no such objective; known are contrastive, classifier"):
        objective_named("emo")
    with pytest.raises(ValueError, match="'classifier' exists already"):
        register(type("Another", (OBJECTIVES["supcon"],), {"name": "classifier"}))
