"""The page as a process, and a browser that visits it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from conftest import ROOT

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
SECONDS = 60_000  # milliseconds that a test waits at most


def require_chromium():
    """Skip without the browser, but never in continuous integration."""
    if not os.path.exists(CHROMIUM):
        assert not os.environ.get("CI"), "chromium must be installed in continuous integration"
        pytest.skip("chromium is not installed: apt install chromium")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def served(*options, temporary):
    """The address of the page, served by `app.py` in a process of its own."""
    port = free_port()
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]).strip(os.pathsep)
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    command = [sys.executable, ROOT / "app.py", "--model", "compact", "--port", str(port), *options]
    with open(temporary / "server.log", "w+") as log:
        process = subprocess.Popen(command, cwd=temporary, env=env, stdout=log, stderr=log)
        try:
            for _ in range(600):
                if re.search("Page: http", (temporary / "server.log").read_text()):
                    break
                assert process.poll() is None, (temporary / "server.log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
