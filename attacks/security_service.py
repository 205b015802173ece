"""Hostile requests to a service that runs as a process: answers, leaks, and what is left afterwards."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import psutil
from attack import ROOT, Attack
from security_floods import KINDS
from security_payloads import CONTROL
from security_requests import CLIP, HEALTH, Request, send
from service_process import service

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
LEAKS = re.compile(rb"Traceback|site-packages|\.py\b|/tmp/|/root/|/home/|" + re.escape(str(ROOT)).encode())
HEADERS = {b"content-length", b"content-type", b"connection", b"date", b"allow", b"retry-after", b"transfer-encoding"}


def check(address: tuple[str, int], request: Request) -> None:
    """Send a request; check the statuses, the number, the headers and the text of what comes back."""
    answer = send(address, request.content)
    found = STATUS.findall(answer)
    assert found, f"no answer: {answer[:80]!r}"
    statuses = [status.decode() for status, _ in found]
    assert len(found) <= request.answers and set(statuses) <= set(request.statuses), statuses
    assert not LEAKS.search(answer), LEAKS.search(answer)[0]
    for _, headers in found:
        names = {line.split(b":")[0].lower() for line in headers.splitlines()}
        assert names <= HEADERS | {b"content-security-policy"}, names - HEADERS
        assert b"evil.example" not in headers
    body = answer[[*STATUS.finditer(answer)][-1].end() :]
    if body.startswith(b"{"):
        assert b"application/json" in found[-1][1] and not CONTROL.search(
            json.dumps(json.loads(body), ensure_ascii=False)
        )
    else:
        assert b"text/html" not in found[-1][1]


def _state(process: psutil.Process) -> tuple[int, int]:
    return process.num_fds(), process.num_threads()


def run(attack: Attack, place: Path) -> None:
    """Send every request; the service must answer others afterwards, and hold no more files and threads."""
    every = 8 if attack.options.small else 1
    with service("compact", str(place), "--upload-timeout", "3") as (process, url):
        address = (httpx.URL(url).host, httpx.URL(url).port)
        with httpx.Client(base_url=url) as client:
            expected = client.post("/predict", files={"file": CLIP}).json()
        before = _state(process)
        for kind, requests in KINDS.items():
            for name, request in list(requests().items())[::every]:
                with attack.case(kind, name):
                    check(address, request)
                    assert send(address, HEALTH).startswith(b"HTTP/1.1 200"), "the service is gone"
        with attack.case("the service after all of them", "the same answer, and nothing left"):
            time.sleep(0.5)
            with httpx.Client(base_url=url) as client:
                answer = client.post("/predict", files={"file": CLIP}).json()
                queue = client.get("/health").json()["queue"]
            assert answer == expected and queue["requests"] == queue["waiting"] == 0, queue
            after = _state(process)
            assert after[0] <= before[0] + 2 and after[1] <= before[1] + 4, (before, after)
            assert not [path for path in place.rglob("*") if path.is_file()]
