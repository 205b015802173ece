"""Requests to the service, and what must hold for damaged ones."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from fuzz_audio import RATE, encoded, wave
from fuzz_judge import BrokenPromise
from fuzz_mutate import damage

BOUNDARY = b"----boundary7"


def request_seeds() -> list[bytes]:
    """Multipart forms, with the value of their Content-Type in the first line."""
    recording = encoded(wave(0.1, 1), RATE, "WAV", "PCM_16")
    part = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    file = part % (BOUNDARY, b"file", b'; filename="../\xc3\xa9.wav"\r\nContent-Type: audio/wav', recording)
    option = part % (BOUNDARY, b"labels", b"", b"angry,sad")
    form = b"multipart/form-data; boundary=%s\n" % BOUNDARY
    return [form + option + file + b"--%s--\r\n" % BOUNDARY, b"audio/wav\n" + recording]


def damage_request(data: bytes, dice: random.Random) -> bytes:
    """Damage a request, mostly in its headers."""
    return damage(data, dice, header=300)


def receive_request(path: Path) -> None:
    """Receive the body of a request as the service does.

    Raises:
        BrokenPromise: If the upload is empty, its name is not shown safely, or an error has no status and message.
    """
    from starlette.requests import Request

    from modeling_gemoclap import AudioError
    from modeling_gemoclap.prompts_gemoclap import CONTROL
    from modeling_gemoclap.service.errors import ClientGone, ServiceError
    from modeling_gemoclap.service.limits import ServiceLimits
    from modeling_gemoclap.service.uploads import receive

    kind, _, body = path.read_bytes().partition(b"\n")
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)] or [b""]
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False

    async def channel():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def handle():
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", kind)]}
        request = Request({**scope, "query_string": b"top_k=1", "state": {}}, channel)
        async with receive(request, ServiceLimits(), path.parent) as upload:
            if not upload.path.stat().st_size and "/" in upload.name or CONTROL.search(upload.name):
                raise BrokenPromise(f"{upload.path.stat().st_size} bytes, name {upload.name!r}")

    try:
        asyncio.run(handle())
    except (ServiceError, ClientGone) as error:
        if isinstance(error, ServiceError) and not (400 <= error.status < 500 and error.message):
            raise BrokenPromise(f"status {error.status}, {error.message!r}") from None
        raise AudioError(f"{path.name}: {error}") from None
