"""The Dockerfile: a linter accepts it, and its build context is enough for what it runs. No image is built here."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import RATE, ROOT, tone

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def run_words():
    """The commands of RUN, each as words."""
    [run] = re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.M)
    return [shlex.split(command) for command in run.replace("\\\n", "").split("&&")]


def is_sent(path):
    """Whether `.dockerignore` leaves a file in the build context. The last line that matches decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = re.escape(line.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, each.as_posix()) for each in (path, *path.parents)):
            sent = line.startswith("!")
    return sent


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """The files that Docker copies, links as links."""
    folder = tmp_path_factory.mktemp("context")
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*", "what no later line names is left out"
    for name in sorted({line[1:].partition("/")[0] for line in lines if line.startswith("!")}):
        for path in (ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name]:
            relative = path.relative_to(ROOT)
            if (path.is_symlink() or path.is_file()) and is_sent(relative):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / relative, follow_symlinks=False)
    return folder


def test_the_linter_has_no_remarks():
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        assert not os.environ.get("CI"), "hadolint must be installed in continuous integration"
        pytest.skip("hadolint is not installed: pip install 'gemoclap[dev]'")
    done = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert "hadolint" not in DOCKERFILE, "no rule is switched off"
    assert len(DOCKERFILE.splitlines()) <= 15


def test_recordings_runs_and_caches_are_not_sent(context):
    sent = {path.relative_to(context).parts[0] for path in context.rglob("*")}
    assert {"modeling_gemoclap", "checkpoints", "configs", "demo", "constraints.txt", "setup.cfg"} <= sent
    assert not sent & {".git", ".venv", "tests", "pretrained", "docs", "runs"}
    assert not is_sent(Path("demo/output/corpus/a.wav")) and not is_sent(Path("modeling_gemoclap/__pycache__/a.pyc"))


def test_pip_accepts_the_options_in_the_build_context(context):
    """Without an index and without what the package requires; `make release-check` installs all of it."""
    install, doctor = run_words()
    assert install[:2] == ["pip", "install"] and install[-2:] == ["torch", "."] and doctor == ["gemoclap", "doctor"]
    offline = ("--dry-run", "--no-index", "--no-deps", "--no-build-isolation")
    done = subprocess.run([sys.executable, "-m", *install, *offline], cwd=context, capture_output=True, text=True)
    assert done.returncode == 0 and "Would install gemoclap" in done.stdout, done.stdout + done.stderr


def test_the_package_of_the_build_context_passes_the_doctor_and_predicts(context, tmp_path):
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    target = tmp_path / "target"
    command = [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), "."]
    subprocess.run(command, cwd=context, check=True, capture_output=True)
    soundfile.write(tmp_path / "clip.wav", tone("angry", 0), RATE)
    for words in (["doctor"], ["predict", "clip.wav", "--quiet", "--format", "jsonl"]):
        command = [sys.executable, "-m", "modeling_gemoclap", *words]
        env = os.environ | {"PYTHONPATH": str(target)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["label"]
