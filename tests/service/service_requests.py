"""Requests to the service: recordings, and clients that are written by hand as an ASGI server would see them."""

import asyncio
import io
import json
from contextlib import asynccontextmanager

import httpx
import numpy as np
import soundfile

RATE = 16000
FORM = {"content-type": "multipart/form-data; boundary=b"}
WAV = {"content-type": "audio/wav"}


def recording(seed=0, seconds=1.0, format="WAV", rate=RATE, pauses=False) -> bytes:
    """A noisy tone as the bytes of a file. With pauses of 0.2 s every 2 s, it counts as speech."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.2 * np.sin(2 * np.pi * random.uniform(120, 900) * time) + 0.02 * random.standard_normal(len(time))
    if pauses:
        wave *= time % 2 > 0.2
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format)
    return file.getvalue()


def part(name, content, file_name=None) -> bytes:
    """A part of a form with the boundary of `FORM`."""
    file = f'; filename="{file_name}"' if file_name is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


@asynccontextmanager
async def running(app):
    """An asynchronous client of an application that runs."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client:
            yield client


class Client:
    """A client whose every message is given: chunks of the body, pauses in seconds, and at the end its departure.

    Args:
        app: The application.
        messages: `bytes` of the body; numbers, to wait for so many seconds; None, when the client goes away.
        headers: Headers of the request.
    """

    def __init__(self, app, messages, headers=WAV):
        self.app, self.messages, self.headers = app, list(messages), headers
        self.sent, self.read = [], 0

    async def _receive(self):
        while self.messages:
            message = self.messages.pop(0)
            if message is None:
                return {"type": "http.disconnect"}
            if isinstance(message, bytes):
                self.read += len(message)
                more = any(isinstance(each, bytes) or each is None for each in self.messages)
                return {"type": "http.request", "body": message, "more_body": more}
            await asyncio.sleep(message)
        await asyncio.Event().wait()

    async def _send(self, message):
        self.sent.append(message)

    async def post(self, path="/predict"):
        """Send the request; the status and the answer."""
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "", "state": {}}
        await self.app(scope | {"server": ("service", 80), "client": ("client", 1)}, self._receive, self._send)
        body = b"".join(message.get("body", b"") for message in self.sent)
        return self.sent[0]["status"], json.loads(body) if body else None
