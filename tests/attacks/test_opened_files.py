"""What loading a checkpoint opens, starts and connects to, by an audit hook in another process."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

CODE = """
import socket, subprocess
open("/etc/hostname").close()
subprocess.run(["true"])
socket.socket().connect_ex(("127.0.0.1", 9))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return shutil.copytree(ROOT / "checkpoints/gemoclap-compact", tmp_path_factory.mktemp("copy") / "model")


def load(folder, place, kind):
    """The outcome and the forbidden events of each way of loading."""
    home, temporary = place / "home", place / "temporary"
    home.mkdir()
    temporary.mkdir()
    env = {**os.environ, "HF_HOME": str(home), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, ROOT / "attacks/security_child.py", kind, folder, home, temporary]
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, cwd=place, env=env | {"PYTHONPATH": str(ROOT)}, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("kind", ["trusted", pytest.param("untrusted", marks=pytest.mark.slow)])
def test_loading_opens_nothing_outside_of_the_checkpoint_the_cache_and_python(checkpoint, tmp_path, kind):
    report = load(checkpoint, tmp_path, kind)
    assert report and {way: found for way, found in report.items() if found != ["loaded", []]} == {}


@pytest.mark.slow
def test_the_hook_sees_code_that_opens_starts_and_connects(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "hostile")
    with open(folder / "losses_gemoclap.py", "a") as file:
        file.write(CODE)
    events = " ".join(load(folder, tmp_path, "trusted")["AutoModel"][1])
    assert "/etc/hostname" in events and "subprocess.Popen" in events and "socket.connect" in events
