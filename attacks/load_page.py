"""The web page under load, by the HTTP API that its script uses: uploads, the queue, and streams of events."""

from __future__ import annotations

import asyncio
import io
import random
import time
from pathlib import Path

import httpx
import psutil
import soundfile
from attack import Attack
from load_memory import Measured
from load_visitor import Visitor, page

from modeling_gemoclap.page.examples import EXAMPLES, RATE, speak

ANSWERS = "page: a visitor among 40 to 200 at the same time sees what a visitor alone sees"
LEFT = "page: a visitor who leaves before the answer"
POOLS = 40 + 8  # threads of Starlette for uploads, and of Gradio for answers
SESSIONS = 2250  # Gradio keeps something of the last 2,000, so its memory is constant only after as many


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
    # The server closes connections that are idle for 5 s; a browser sends again if that happens at the same moment.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
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


async def _fill_sessions(address: str, count: int) -> None:
    """Visitors who cost the page next to nothing."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        config = (await client.get("/config")).json()
        for _ in range(0, count, 15):
            labels = await asyncio.gather(*(Visitor(client, config).reset_labels() for _ in range(15)))
            assert all(labels)


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
        asyncio.run(_fill_sessions(address, 15 if small else SESSIONS))
        while not measured.requests or (time.monotonic() < until and not small):
            attack.tried[ANSWERS] += stay - 1
            attack.tried[LEFT] += leave
            with attack.case(ANSWERS, f"{stay + leave} visitors"):
                assert not (problems := asyncio.run(_round(address, clips, quiet, stay, leave))), problems[:3]
            measured.add(stay + leave)
            stay, leave = min(stay, 34), min(leave, 6)  # smaller rounds: memory is measured more often
        with attack.case("page: memory, files and threads over all rounds"):
            time.sleep(1)
            measured.add(0)
            measured.check(POOLS)
        attack.figures |= measured.figures("page")
        with attack.case("page: SIGTERM while visitors wait"):
            asyncio.run(_leave_waiting(address, clips * 3, process))
            process.wait(60)
    with attack.case("page: files that are left"):
        assert not list(place.rglob("*")), list(place.rglob("*"))[:3]
