"""The process of the web page, and a visitor who uses the HTTP API of its script; for `load_page.py`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from attack import ROOT

API = "/gradio_api"


@contextmanager
def page(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The process and the address of the page, whose temporary files are in `folder`."""
    command = [sys.executable, "-m", "modeling_gemoclap", "page", "--model", "compact"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
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
        self.client, self.session, self.config = client, uuid.uuid4().hex, config
        fields = {each["id"]: each for each in config["components"]}
        self.labels = fields[self._event("elem_id", "ge-analyse")["inputs"][1]]["props"]["value"]

    def _event(self, field: str, value: str) -> dict:
        """What a click on the button with this value of a field does."""
        buttons = [[each["id"], "click"] for each in self.config["components"] if each["props"].get(field) == value]
        return next(event for event in self.config["dependencies"] for button in buttons if button in event["targets"])

    async def upload(self, data: bytes) -> str:
        """Upload a recording; its path on the server."""
        answer = await self.client.post(f"{API}/upload", files={"files": ("clip.wav", data, "audio/wav")})
        answer.raise_for_status()
        return answer.json()[0]

    async def join(self, event: dict, data: list) -> bool:
        """Join the queue for an event; whether there was room."""
        body = {"data": data, "fn_index": event["id"], "trigger_id": event["targets"][0][0]}
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
        file = {"path": path, "orig_name": "clip.wav", "meta": {"_type": "gradio.FileData"}}
        while not await self.join(self._event("elem_id", "ge-analyse"), [file, self.labels, False]):
            await asyncio.sleep(random.uniform(0.5, 2))
        return await self.result(leave)

    async def reset_labels(self) -> str:
        """Click on the button that runs no model; the labels."""
        while not await self.join(self._event("value", "Labels of the model"), []):
            await asyncio.sleep(0.05)
        return await self.result()
