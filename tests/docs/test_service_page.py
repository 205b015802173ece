"""The page service.md: its requests to a service in another thread of this process."""

import importlib.util
import json
import shutil
import subprocess
import threading
import time

import pytest
import soundfile
import uvicorn
from fastapi import FastAPI
from pages import block, run_python

from modeling_gemoclap.service.server import address_of, listen

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tones, tmp_path, monkeypatch):
    clip = sorted(tones.glob("audio/*.wav"))[0]
    soundfile.write(tmp_path / "clip.wav", *soundfile.read(clip))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def address(folder):
    """The address of a service with the application of the page."""
    app = run_python(block("service.md", "Python", 1))["app"]
    assert isinstance(app, FastAPI)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    found = address_of(listener)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found
    server.should_exit = True
    thread.join(30)


def test_requests(address, folder, capsys):
    run_python(block("service.md", "Python").replace(ADDRESS, address))
    assert capsys.readouterr().out.split()[0] in ("furious", "gloomy")
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    commands = block("service.md", "curl").replace(ADDRESS, address).splitlines()
    if not importlib.util.find_spec("modeling_gemoclap.inference.timeline"):
        commands = [line for line in commands if not line.endswith("/timeline")]
    answers = [
        json.loads(subprocess.run(["bash", "-c", line], check=True, capture_output=True).stdout) for line in commands
    ]
    assert not [answer for answer in answers if "error" in answer]
    assert answers[0]["file"] == "clip.wav" and len(answers[1]["scores"]) == 1 and answers[2]["gender"]
    assert answers[-1]["status"] == "ok"
