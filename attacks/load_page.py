"""The web page under load, by the HTTP API that its script uses: uploads, the queue, and streams of events."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import soundfile
from attack import ROOT, Attack
from load_memory import Measured

from modeling_gemoclap.page.examples import EXAMPLES, RATE, speak

ANSWERS = "page: a visitor among 200 at the same time sees what a visitor alone sees"
LEFT = "page: a visitor who leaves before the answer"
API = "/gradio_api"


@contextmanager
def page(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The process and the address of the page, whose temporary files are in `folder`."""
    command = [sys.executable, "-m", "modeling_gemoclap", "page", "--model", "compact"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "GRADIO_SERVER_PORT": ""}
    environment.pop("GRADIO_SERVER_PORT")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield psutil.Process(process.pid), re.search(r"http://[^\s]+?(?=/? )", process.stdout.readline())[0]
    finally:
        process.terminate()
        assert process.wait(60) == 0, "the page did not end by itself"


class Visitor:
    """A visitor of the page.

    Args:
        client: The client, whose address is that of the page.
        config: What `/config` says: the number of the event and of the button.
    """

    def __init__(self, client: httpx.AsyncClient, config: dict):
        [button] = [each["id"] for each in config["components"] if each["props"].get("elem_id") == "ge-analyse"]
        events = [each for each in config["dependencies"] if [button, "click"] in each["targets"]]
        self.client, self.event, self.session = client, (events[0]["id"], button), uuid.uuid4().hex
        fields = {each["id"]: each for each in config["components"]}
        self.labels = fields[events[0]["inputs"][1]]["props"]["value"]

    async def upload(self, data: bytes) -> str:
        """Upload a recording; its path on the server."""
        answer = await self.client.post(f"{API}/upload", files={"files": ("clip.wav", data, "audio/wav")})
        answer.raise_for_status()
        return answer.json()[0]

    async def join(self, path: str) -> bool:
        """Join the queue; whether there was room."""
        file = {"path": path, "orig_name": "clip.wav", "meta": {"_type": "gradio.FileData"}}
        function, button = self.event
        body = {"data": [file, self.labels, False], "fn_index": function, "trigger_id": button}
        answer = await self.client.post(f"{API}/queue/join", json=body | {"session_hash": self.session})
        if answer.status_code == 503:
            return False
        answer.raise_for_status()
        return True

    async def result(self, leave: bool = False) -> str | None:
        """The HTML of the answer; None for a visitor who leaves at the first message."""
        stream = self.client.stream("GET", f"{API}/queue/data", params={"session_hash": self.session})
        async with stream as lines:
            async for line in lines.aiter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if leave and message:
                    return None
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return message["output"]["data"][0]
        raise AssertionError("the stream ended without an answer")

    async def analyse(self, data: bytes, leave: bool = False) -> str | None:
        """Upload, wait for room in the queue, and wait for the answer."""
        path = await self.upload(data)
        while not await self.join(path):
            await asyncio.sleep(random.uniform(0.5, 2))
        return await self.result(leave)


def _clips(count: int) -> list[bytes]:
    """Short synthetic voices as WAV."""
    found = []
    for number in range(count):
        voice = list(EXAMPLES.values())[number % len(EXAMPLES)]
        file = io.BytesIO()
        soundfile.write(file, speak(voice, "aeio"[: 2 + number % 3]), RATE, format="WAV")
        found.append(file.getvalue())
    return found


async def _round(address: str, clips: list[bytes], quiet: list[str], stay: int, leave: int) -> list[str]:
    """All visitors at the same time; what was wrong."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=300) as client:
        config = (await client.get("/config")).json()
        numbers = [random.randrange(len(clips)) for _ in range(stay + leave)]
        visits = [Visitor(client, config).analyse(clips[n], place >= stay) for place, n in enumerate(numbers)]
        answers = await asyncio.gather(*visits, return_exceptions=True)
    failed = [repr(answer)[:200] for answer in answers if isinstance(answer, BaseException)]
    wrong = [n for n, answer in zip(numbers[:stay], answers, strict=False) if answer != quiet[n]]
    return failed + [f"another answer for clip {number}" for number in wrong if not failed]


async def _alone(address: str, clips: list[bytes]) -> list[str]:
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        config = (await client.get("/config")).json()
        return [await Visitor(client, config).analyse(clip) for clip in clips]


async def _leave_waiting(address: str, clips: list[bytes], process: psutil.Process) -> None:
    """Visitors in the queue when the page is told to end."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        config = (await client.get("/config")).json()
        visits = [asyncio.ensure_future(Visitor(client, config).analyse(clip)) for clip in clips]
        await asyncio.sleep(0.3)
        process.terminate()
        await asyncio.gather(*visits, return_exceptions=True)


def run(attack: Attack, place: Path, until: float) -> None:
    """Rounds of visitors until a time."""
    small = attack.options.small
    stay, leave, clips = (6, 2, _clips(2)) if small else (170, 30, _clips(6))
    with page(place) as (process, address):
        quiet, measured = asyncio.run(_alone(address, clips)), Measured(process)
        while not measured.requests or (time.monotonic() < until and not small):
            attack.tried[ANSWERS] += stay - 1
            attack.tried[LEFT] += leave
            with attack.case(ANSWERS):
                assert not (problems := asyncio.run(_round(address, clips, quiet, stay, leave))), problems[:3]
            measured.add(stay + leave)
        with attack.case("page: memory, files and threads over all rounds"):
            time.sleep(1)
            measured.add(0)
            measured.check()
        attack.figures |= measured.figures("page")
        with attack.case("page: SIGTERM while visitors wait"):
            asyncio.run(_leave_waiting(address, clips * 3, process))
            process.wait(60)
    with attack.case("page: files that are left"):
        assert not list(place.rglob("*")), list(place.rglob("*"))[:3]
