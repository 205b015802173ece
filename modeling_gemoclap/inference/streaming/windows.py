"""Overlapping windows over stretches of speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..segments import TimelineOptions
from .detectors import build_detector
from .regions import Region, SpeechRegions

FRAMES_AT_ONCE = 128  # frames whose probabilities are computed together


@dataclass(frozen=True)
class Window:
    """A window to classify.

    Args:
        region: Number of its stretch of speech.
        start: First sample.
        end: End, in samples.
        wave: `(end - start,)`.
    """

    region: int
    start: int
    end: int
    wave: np.ndarray


@dataclass(frozen=True)
class RegionEnd:
    """The end of a stretch of speech, after its last window.

    Args:
        region: Its number.
        end: Its end, in samples.
    """

    region: int
    end: int


class SpeechWindows:
    """Cuts speech into windows as it arrives.

    The windows of a stretch begin at its start and follow one another by a step. The last one ends where the stretch
    ends. A stretch shorter than a window is one window.

    Args:
        options: Options of speech detection.
        rate: Sampling rate in Hz.
        window: Length of a window, in samples.
        step: Samples from one window to the next.

    Attributes:
        position: Number of samples so far.
    """

    def __init__(self, options: TimelineOptions, rate: int, window: int, step: int):
        self.detector = build_detector(options.vad, rate)
        self._regions = SpeechRegions(options, rate, self.detector.frame)
        self._window, self._step = window, step
        self._wave, self._offset = np.zeros(0, np.float32), 0  # samples that are still needed, from this one on
        self._region: Region | None = None
        self._number, self._next = -1, 0  # number of the region, start of its next window
        self.position = 0

    def feed(self, wave: np.ndarray) -> Iterator[Window | RegionEnd]:
        """Continue with samples `(time,)`.

        Yields:
            Windows that are complete, and ends of stretches of speech.
        """
        self._wave = np.concatenate([self._wave, wave])
        self.position += len(wave)
        frames = (self.position - self._regions.position) // self.detector.frame
        if self._regions.position or frames >= self.detector.first_frames:
            yield from self._run(frames)

    def finish(self) -> Iterator[Window | RegionEnd]:
        """End with the recording; yields as `feed` does."""
        frames = -((self._regions.position - self.position) // self.detector.frame)  # rounded up
        padding = self._regions.position + frames * self.detector.frame - self.position
        self._wave = np.concatenate([self._wave, np.zeros(padding, np.float32)])
        yield from self._run(frames)
        if region := self._regions.finish(self.position):
            yield from self._end(region)

    def _run(self, frames: int) -> Iterator[Window | RegionEnd]:
        size = self.detector.frame
        while frames > 0:
            count = min(frames, FRAMES_AT_ONCE)
            frames -= count
            begin = self._regions.position - self._offset
            block = self._wave[begin : begin + count * size].reshape(count, size)
            for probability in self.detector(block):
                ended = self._regions.step(probability)
                yield from self._end(ended) if ended else self._complete()
            self._forget()

    def _complete(self) -> Iterator[Window]:
        """Windows that certainly lie in the present stretch."""
        region = self._regions.active
        if region is None:
            return
        self._begin(region)
        while self._next + self._window <= min(region.known, self.position):
            yield self._cut(self._next, self._next + self._window)
            self._next += self._step

    def _begin(self, region: Region) -> None:
        if self._region is not region:
            self._region, self._next = region, region.start
            self._number += 1

    def _end(self, region: Region) -> Iterator[Window | RegionEnd]:
        self._begin(region)
        end = min(region.end, self.position)
        while self._next + self._window <= end:
            yield self._cut(self._next, self._next + self._window)
            self._next += self._step
        covered = self._next - self._step + self._window if self._next > region.start else region.start
        if covered < end:
            yield self._cut(max(region.start, end - self._window), end)
        yield RegionEnd(self._number, end)

    def _cut(self, start: int, end: int) -> Window:
        return Window(self._number, start, end, self._wave[start - self._offset : end - self._offset].copy())

    def _forget(self) -> None:
        """Drop samples that no window can contain any more."""
        region = self._regions.active
        needed = self._regions.needed
        if region is not None and region is self._region:
            needed = max(region.start, min(self._next, region.heard - self._window))
        needed = max(self._offset, min(needed, self._regions.position))
        self._wave, self._offset = self._wave[needed - self._offset :], needed
