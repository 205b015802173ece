"""Clients of the service for `service_load.py`: some stay, some go away, some are slow."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

TOLERANCE = 1e-5


@dataclass
class Outcomes:
    """What happened to the requests of a round.

    Args:
        latencies: Seconds from sending a recording to its answer, without refused attempts.
        answered: Requests with the right answer.
        wrong: Requests with another answer than the quiet one.
        lost: Requests without an answer.
        refused: Attempts that were told 429; they were sent again.
        left: Clients that went away during the upload or before the answer.
        slow: Slow clients that were told 408.
    """

    latencies: list[float] = field(default_factory=list)
    answered: int = 0
    wrong: int = 0
    lost: int = 0
    refused: int = 0
    left: int = 0
    slow: int = 0


async def _stay(client: httpx.AsyncClient, clips: list[tuple[bytes, dict]], outcomes: Outcomes) -> None:
    """Send recordings one after the other, each until it has an answer."""
    for data, scores in clips:
        while True:
            start = time.perf_counter()
            try:
                answer = await client.post("/predict", files={"file": ("clip.flac", data)})
            except httpx.HTTPError as error:
                outcomes.lost += 1
                print(f"lost: {error!r}")
                break
            if answer.status_code == 429:
                outcomes.refused += 1
                await asyncio.sleep(float(answer.headers["retry-after"]) * random.uniform(0.5, 1.5))
                continue
            outcomes.latencies.append(time.perf_counter() - start)
            found = answer.json().get("scores", {})
            same = found.keys() == scores.keys() and all(abs(found[key] - scores[key]) <= TOLERANCE for key in scores)
            outcomes.answered += same
            outcomes.wrong += not same
            break


async def _connect(address: str, length: int):
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = (
        "POST /predict HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: audio/flac",
        f"Content-Length: {length}",
    )
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return reader, writer


async def _leave(address: str, data: bytes, during_upload: bool, outcomes: Outcomes) -> None:
    """Send a recording or a part of it, and close the connection without an answer."""
    _, writer = await _connect(address, len(data))
    writer.write(data[: len(data) // 2] if during_upload else data)
    await writer.drain()
    await asyncio.sleep(random.uniform(0, 0.2))
    writer.close()
    outcomes.left += 1


async def _trickle(address: str, data: bytes, outcomes: Outcomes) -> None:
    """Send a byte every 0.2 s, until the service closes the connection."""
    reader, writer = await _connect(address, len(data))
    answer = asyncio.ensure_future(reader.read())
    for position in range(len(data)):
        if answer.done():
            break
        writer.write(data[position : position + 1])
        await asyncio.sleep(0.2)
    outcomes.slow += b" 408 " in (await answer).partition(b"\r\n")[0]
    writer.close()


async def run_round(address: str, clips: list[tuple[bytes, dict]], numbers: dict[str, int], requests: int) -> Outcomes:
    """Run all clients of a round at the same time.

    Args:
        address: Address of the service.
        clips: Recordings and their scores.
        numbers: Number of clients that `stay`, `leave` and `trickle`.
        requests: Requests of each client that stays or leaves.
    """
    outcomes, limits = Outcomes(), httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=120) as client:
        tasks = [
            asyncio.ensure_future(_trickle(address, random.choice(clips)[0], outcomes))
            for _ in range(numbers["trickle"])
        ]
        await asyncio.sleep(0.5)  # slow clients are admitted before the service is full
        tasks += [_stay(client, random.sample(clips, requests), outcomes) for _ in range(numbers["stay"])]
        for number in range(numbers["leave"]):
            tasks += [_leave(address, random.choice(clips)[0], number % 2 == 0, outcomes) for _ in range(requests)]
        await asyncio.gather(*tasks)
    return outcomes


def send_zeros(address: str, size: int, head: bytes = b"") -> tuple[int, str]:
    """Send a body of zeros without telling its length; the status and the code of the error."""

    def body():
        yield head
        for _ in range(size // 2**20):
            yield bytes(2**20)

    answer = httpx.post(f"{address}/predict", content=body(), headers={"content-type": "audio/wav"}, timeout=300)
    return answer.status_code, json.loads(answer.text)["error"]["code"]
