"""What loading a checkpoint opens, starts and connects to: an audit hook in another process sees it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from attack import ROOT, Attack
from security_pickles import copy_checkpoint

CHILD = Path(__file__).with_name("security_child.py")
OWN_CODE = """
import os, socket, subprocess
open("/etc/hostname").close()
subprocess.run(["true"])
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
"""
REPOSITORY = "stranger/model"


def load(place: Path, trusted: bool, checkpoint: str, **variables: str) -> dict[str, list]:
    """Load a checkpoint in another process; for each way of loading its outcome and the forbidden events."""
    home, temporary = place / "home", place / "temporary"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    environment = {**os.environ, "HF_HOME": str(home), "TMPDIR": str(temporary), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"PYTHONPATH": str(ROOT)} | variables
    words = ["trusted" if trusted else "untrusted", checkpoint, home, temporary]
    command = [sys.executable, CHILD, *map(str, words)]
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
    )
    assert done.returncode == 0, done.stderr[-600:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(report: dict[str, list]) -> None:
    """Check that every way has loaded the checkpoint, and that nothing forbidden has happened."""
    for way, (outcome, events) in report.items():
        assert outcome == "loaded", f"{way}: {outcome}"
        assert not events, f"{way}: {events[:3]}"


def _publish(folder: Path):
    """A server with a part of the Hub's API, and the commit of the checkpoint."""
    sys.path.append(str(ROOT / "tests" / "travelling"))
    from hub_server import Hub

    hub = Hub()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.publish(REPOSITORY, files)
    return hub, hub.repositories[REPOSITORY].refs["main"]


def run(attack: Attack, place: Path) -> None:
    """Load from a folder and from a server, and a checkpoint whose code does what is forbidden."""
    folder = copy_checkpoint(place / "checkpoint")
    offline = {"HF_HUB_OFFLINE": "1"}
    with attack.case("loading a checkpoint with its own code, under an audit hook", "a folder"):
        check(load(place, True, str(folder), **offline))
    with attack.case("code of a checkpoint that opens, starts and connects: the hook sees it", "a folder"):
        hostile = Path(shutil.copytree(folder, place / "hostile"))
        path = hostile / "losses_gemoclap.py"
        path.write_text(path.read_text(encoding="utf-8") + OWN_CODE, encoding="utf-8")
        events = " ".join(load(place, True, str(hostile), **offline)["AutoModel"][1])
        assert all(word in events for word in ("/etc/hostname", "subprocess.Popen", "socket.connect")), events
    if attack.options.small:
        return
    for name, each in {"a folder": folder, "with code that does what is forbidden": hostile}.items():
        with attack.case("loading a checkpoint by the package, under an audit hook", name):
            check(load(place, False, str(each), **offline))
    with attack.case("loading a checkpoint from a Hub, under an audit hook", "connects to the Hub alone"):
        hub, commit = _publish(folder)
        address = str(hub.server.server_address)
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "REVISION": commit, "ALLOWED_ADDRESS": address[:-1]}
        check(load(place, True, REPOSITORY, **online))
    with attack.case("loading a checkpoint from a Hub, under an audit hook", "a second time, without a network"):
        check(load(place, True, REPOSITORY, **offline, REVISION=commit))
    hub.server.shutdown()
