"""From the scores of overlapping windows to segments with one emotion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..segments import Segment
from .windows import RegionEnd, Window


class Smoother:
    """Averages the scores of overlapping windows, and joins cells with the same emotion to segments.

    A stretch of speech is divided into cells of one step; a rest shorter than half a step belongs to the last cell.
    The scores of a cell are the mean over the windows that contain its middle. The first cell has the emotion with the
    highest score. A later cell has the emotion of the cell before, unless the score of another exceeds it by more than
    the hysteresis. Windows that could not be used (digital silence) do not count; a cell without any is left out.

    Args:
        labels: The labels.
        rate: Sampling rate in Hz.
        step: Length of a cell, in samples.
        hysteresis: See above.
    """

    def __init__(self, labels: list[str], rate: int, step: int, hysteresis: float):
        self._labels, self._rate, self._step, self._hysteresis = labels, rate, step, hysteresis
        self._windows: list[tuple[int, int, np.ndarray | None]] = []
        self._start: int | None = None  # of the stretch of speech
        self._cell = 0  # number of the next cell
        self._run: _Run | None = None

    @property
    def current(self) -> Segment | None:
        """The segment that is not finished: what is decided of it so far."""
        return self._segment(self._run) if self._run else None

    def add(self, window: Window, scores: dict[str, float] | None) -> Iterator[Segment]:
        """Continue with the next window.

        Args:
            window: The window.
            scores: The score of each label; None if it could not be used.

        Yields:
            Segments that are finished.
        """
        if self._start is None:
            self._start = window.start
        vector = None if scores is None else np.array([scores[label] for label in self._labels])
        self._windows.append((window.start, window.end, vector))
        # The last window of a stretch may begin anywhere after this one, so only cells before its start are complete.
        complete = (window.start - self._start) // self._step
        while self._cell < complete:
            begin = self._start + self._cell * self._step
            yield from self._decide(begin, begin + self._step)
            self._cell += 1
        first = self._start + self._cell * self._step
        self._windows = [item for item in self._windows if item[1] > first]

    def end(self, region: RegionEnd) -> Iterator[Segment]:
        """End the stretch of speech; yields as `add` does."""
        count = max(1, int((region.end - self._start) / self._step + 0.5))
        for cell in range(self._cell, count):
            begin = self._start + cell * self._step
            yield from self._decide(begin, region.end if cell == count - 1 else begin + self._step)
        yield from self._flush()
        self._windows, self._start, self._cell = [], None, 0

    def _decide(self, begin: int, end: int) -> Iterator[Segment]:
        middle = (begin + end) / 2
        vectors = [vector for start, stop, vector in self._windows if start <= middle <= stop and vector is not None]
        if not vectors:
            yield from self._flush()
            return
        scores = np.mean(vectors, axis=0)
        best = int(scores.argmax())
        if self._run is not None and scores[best] - scores[self._run.label] > self._hysteresis:
            yield from self._flush()
        if self._run is None:
            self._run = _Run(best, begin)
        self._run.add(scores, begin, end)

    def _flush(self) -> Iterator[Segment]:
        if self._run is not None:
            yield self._segment(self._run)
            self._run = None

    def _segment(self, run: _Run) -> Segment:
        mean = run.total / run.duration
        order = np.argsort(-mean, kind="stable")
        scores = {self._labels[index]: float(mean[index]) for index in order}
        label = self._labels[run.label]
        return Segment(run.start / self._rate, run.end / self._rate, label, scores[label], scores)


class _Run:
    """Consecutive cells with the same emotion."""

    def __init__(self, label: int, start: int):
        self.label, self.start, self.end = label, start, start
        self.total, self.duration = 0.0, 0

    def add(self, scores: np.ndarray, begin: int, end: int) -> None:
        self.total = self.total + scores * (end - begin)
        self.duration += end - begin
        self.end = end
