"""The process of `gemoclap serve`: from its start to its end, and what it refuses before."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from conftest import ROOT
from service_requests import RATE, WAV, recording

from modeling_gemoclap import cli

pytest.importorskip("fastapi")


def test_a_server_from_its_start_to_its_end(tmp_path):
    """SIGTERM arrives during an upload, which is finished and answered; nothing is left."""
    command = [sys.executable, "-m", "modeling_gemoclap", "serve", "--model", "compact", "--port", "0"]
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        data = bytearray(recording())
        data[40:44] = (2 * RATE + 36).to_bytes(4, "little")  # a wrong size, which is a warning for the client

        def body():
            yield bytes(data[:1000])
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield bytes(data[1000:])

        words = {"labels": "zzzz,angry"}  # the pipeline warns of an unknown word, but clients' words are not logged
        answer = httpx.post(f"{address}/predict", content=body(), headers=WAV, params=words, timeout=60)
        assert answer.status_code == 200
        of_recording, of_words = answer.json()["warnings"]
        assert "its header specifies" in of_recording and "zzzz" in of_words
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "") and list(tmp_path.iterdir()) == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
    finally:
        process.kill()


def run(*words):
    with pytest.raises(SystemExit) as error:
        cli.main([*map(str, words)])
    return error.value.code


def test_what_the_command_refuses(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("serve", "--model", "compact", "--port", port) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"gemoclap serve: --port {port}: in use on 127.0.0.1; give another one, or 0 for a free one"
    for words, message in {
        ("--port", 70000): "--port 70000: give a number",
        ("--host", "no.such.host.invalid"): "--host no.such.host.invalid: no such address",
        ("--host", "192.0.2.1"): "--host 192.0.2.1: not an address of this machine",
        ("--max-upload-mb", 0): "--max-upload-mb 0.0 must be above 0",
        ("--port", 0, "--model", "no-such-model"): "no-such-model: no such folder",
    }.items():
        assert run("serve", *words) == 2
        assert message in capsys.readouterr().err


def test_the_extra_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("modeling_gemoclap.service.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run("serve") == 1
    assert "pip install 'gemoclap[serve]'" in capsys.readouterr().err
