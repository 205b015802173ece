"""Batches of concurrent requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from .limits import ServiceLimits


@dataclass(eq=False)
class _Waiting:
    """A clip that waits for a batch."""

    key: Hashable
    clip: np.ndarray
    answer: asyncio.Future
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Collects clips with equal options into batches, in the order of their arrival.

    A batch starts when it is full, or when its first clip has waited for the delay. While a batch is computed, clips
    arrive for the next one.

    Args:
        predict: Maps options and the features of clips to as many answers.
        executor: Runs `predict`; one thread.
        limits: Size and delay of batches.
        max_length: Length of a batch with its padding, in frames of the features.

    Attributes:
        batches: Number of batches that were computed.
        clips: Number of clips in these batches.
    """

    def __init__(
        self,
        predict: Callable[[Hashable, list[np.ndarray]], Sequence],
        executor: Executor,
        limits: ServiceLimits,
        max_length: int,
    ):
        self.predict, self.executor, self.max_length = predict, executor, max_length
        self.batch_size, self.delay = limits.batch_size, limits.max_batch_delay_ms / 1000
        self.batches = self.clips = 0
        self._queue: list[_Waiting] = []
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """The number of clips that wait."""
        return len(self._queue)

    async def submit(self, key: Hashable, clip: np.ndarray):
        """Wait for the answer for a clip. If the caller is cancelled, the clip leaves the queue.

        Args:
            key: Options; only clips with equal options share a batch.
            clip: Features of the clip, `(frames, ...)`.

        Raises:
            Exception: That of `predict` for this clip.
        """
        waiting = _Waiting(key, clip, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._changed.set()
        try:
            return await waiting.answer
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)

    async def run(self) -> None:
        """Compute batches until this task is cancelled."""
        while True:
            while not self._queue:
                await self._wait(None)
            first = self._queue[0]
            while first in self._queue and len(self._next()) < self.batch_size:
                left = first.arrived + self.delay - time.monotonic()
                if left <= 0 or not await self._wait(left):
                    break
            if batch := self._next():
                self._queue = [waiting for waiting in self._queue if waiting not in batch]
                await self._compute(batch)

    async def _wait(self, seconds: float | None) -> bool:
        """Wait for a change of the queue; whether there was one in time."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def _next(self) -> list[_Waiting]:
        """The batch of the first clip in the queue."""
        batch: list[_Waiting] = []
        longest = 0
        for waiting in self._queue:
            length = max(longest, len(waiting.clip))
            fits = not batch or length * (len(batch) + 1) <= self.max_length
            if fits and waiting.key == self._queue[0].key and len(batch) < self.batch_size:
                batch.append(waiting)
                longest = length
        return batch

    async def _compute(self, batch: list[_Waiting]) -> None:
        self.batches += 1
        self.clips += len(batch)
        loop, clips = asyncio.get_running_loop(), [waiting.clip for waiting in batch]
        try:
            answers = await loop.run_in_executor(self.executor, self.predict, batch[0].key, clips)
        except Exception as error:
            if len(batch) > 1:  # one clip must not fail the others
                for waiting in batch:
                    await self._compute([waiting])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
