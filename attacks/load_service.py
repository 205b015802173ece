"""The HTTP service under load: clients that stay, go away or are slow, and its end while requests are processed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
from attack import Attack
from load_memory import Measured
from service_clients import TOLERANCE, run_round
from service_process import recordings, service

ANSWERS = "service: a request among 200 at the same time has the answer that it has alone"
LEFT = "service: a client that goes away, or sends slowly"


def _differs(found: dict, scores: dict) -> bool:
    return found.keys() != scores.keys() or any(abs(found[key] - scores[key]) > TOLERANCE for key in scores)


async def _all_at_once(address: str, clips: list[tuple[bytes, dict]], end) -> tuple[list, int]:
    """Send every recording at once, call `end` when the service has received all of them; the answers.

    The second number is that of the requests without an answer at that moment.
    """
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        tasks = [asyncio.ensure_future(client.post("/predict", files={"file": data})) for data, _ in clips]
        received = 0
        while received < len(clips):
            queue = (await client.get("/health")).json()["queue"]
            received = queue["requests"] + sum(task.done() for task in tasks)
        end()
        return await asyncio.gather(*tasks, return_exceptions=True), queue["requests"]


def check_end(process, address: str, clips: list[tuple[bytes, dict]], folder: Path) -> int:
    """SIGTERM with requests in flight: each of them has its answer, the process ends, and nothing is left.

    Returns:
        The number of the requests in flight.
    """
    answers, waiting = asyncio.run(_all_at_once(address, clips, process.terminate))
    for answer, (_, scores) in zip(answers, clips, strict=True):
        assert isinstance(answer, httpx.Response) and answer.status_code == 200, repr(answer)
        assert not _differs(answer.json()["scores"], scores)
    process.wait(60)
    assert not [path for path in folder.rglob("*") if path.is_file()], "files are left"
    return waiting


def run(attack: Attack, place: Path, until: float) -> None:
    """Rounds of requests until a time, in `time.monotonic`."""
    small = attack.options.small
    numbers = {"stay": 12, "leave": 6, "trickle": 2} if small else {"stay": 150, "leave": 40, "trickle": 10}
    data, _ = recordings(8 if small else 120)
    options = ("--upload-timeout", "3" if small else "20", "--max-batch-delay-ms", "20")
    with service("compact", str(place), *options) as (process, address):
        with httpx.Client(base_url=address, timeout=60) as client:
            quiet = [client.post("/predict", files={"file": clip}).json()["scores"] for clip in data]
        clips, measured = list(zip(data, quiet, strict=True)), Measured(process)
        while not measured.requests or (time.monotonic() < until and not small):
            _round(attack, address, clips, numbers, measured)
        with attack.case("service: memory, files and threads over all rounds"):
            measured.check()
        attack.figures |= measured.figures("service")
        with attack.case("service: SIGTERM while requests are processed"):
            waiting = check_end(process, address, clips[:64], place)
            attack.figures["service: requests in flight at SIGTERM"] = waiting


def _round(attack: Attack, address: str, clips: list, numbers: dict[str, int], measured: Measured) -> None:
    requests = 1 if attack.options.small else 2
    found = asyncio.run(run_round(address, clips, numbers, requests))
    attack.tried[ANSWERS] += found.answered + found.wrong + found.lost - 1
    attack.tried[LEFT] += found.left + numbers["trickle"] - 1
    with attack.case(ANSWERS):
        assert not found.lost and not found.wrong, f"{found.lost} lost, {found.wrong} wrong"
        assert found.answered == numbers["stay"] * requests
    with attack.case(LEFT):
        assert found.slow == numbers["trickle"], f"{found.slow} of {numbers['trickle']} slow clients were refused"
        time.sleep(0.5)
        queue = httpx.get(f"{address}/health").json()["queue"]
        assert queue["requests"] == queue["waiting"] == 0, queue
    measured.add(numbers["stay"] * requests + found.left + numbers["trickle"])
