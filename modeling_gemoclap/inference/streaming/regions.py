"""Stretches of speech, from the probability of speech of each frame."""

from __future__ import annotations

from dataclasses import dataclass

from ..segments import TimelineOptions


@dataclass
class Region:
    """A stretch of speech, in samples.

    Args:
        start: Its start, with the extension by `speech_pad_ms`.
        heard: Where the last frame of speech so far ends.
        known: Up to where it certainly reaches, with the extension.
        end: Its end, once that is known.
    """

    start: int
    heard: int
    known: int
    end: int | None = None


class SpeechRegions:
    """Finds stretches of speech with two thresholds, as Silero VAD does.

    A frame with at least `threshold` begins speech; `min_silence_duration_ms` of frames, the first of which is below
    `neg_threshold` and none of which reaches `threshold`, end it. Shorter stretches than `min_speech_duration_ms` are
    left out. (Silero ends speech only at a frame below `neg_threshold`, so noise with a probability between the two
    thresholds would prolong it without end.) Both ends are extended by `speech_pad_ms`, but not into the stretch
    before.

    Args:
        options: Thresholds and durations.
        rate: Sampling rate in Hz.
        frame: Samples of a frame.

    Attributes:
        position: Number of samples so far.
    """

    def __init__(self, options: TimelineOptions, rate: int, frame: int):
        self._threshold, self._neg_threshold = options.threshold, options.end_threshold
        durations = options.min_speech_duration_ms, options.min_silence_duration_ms, options.speech_pad_ms
        self._min_speech, self._min_silence, self._pad = (round(value * rate / 1000) for value in durations)
        self._frame = frame
        self.position = 0
        self._begin: int | None = None  # where the first frame of the present stretch begins
        self._silence: int | None = None  # where the present silence in it begins
        self._region: Region | None = None
        self._last_end = 0

    @property
    def active(self) -> Region | None:
        """The present stretch, once it is long enough; else None."""
        return self._region if self._region and self._region.heard - self._begin > self._min_speech else None

    @property
    def needed(self) -> int:
        """The first sample that the present or the next stretch may contain."""
        return self._region.start if self._region else max(self._last_end, self.position - self._pad)

    def step(self, probability: float) -> Region | None:
        """Continue with the next frame.

        Args:
            probability: Probability of speech in the frame.

        Returns:
            A stretch that ended.
        """
        begin = self.position
        self.position += self._frame
        if self._region is None:
            if probability >= self._threshold:
                start = max(begin - self._pad, self._last_end)
                self._begin, self._region = begin, Region(start, self.position, self.position)
            return None
        if probability >= self._threshold:
            self._silence = None
        elif probability < self._neg_threshold and self._silence is None:
            self._silence = begin
        if self._silence is None:
            self._region.heard = self.position
        self._region.known = min(self._region.heard + self._pad, self.position)
        if self._silence is not None and begin - self._silence >= self._min_silence:
            return self._close(self.position)
        return None

    def finish(self, total: int) -> Region | None:
        """End with the recording.

        Args:
            total: Its number of samples; the last frame may exceed it.

        Returns:
            The stretch that was active.
        """
        if self._region is not None:
            self._region.heard = min(self._region.heard, total)
        self.position = total
        return self._close(total) if self._region is not None else None

    def _close(self, limit: int) -> Region | None:
        region = self.active
        self._region = self._silence = None
        if region is None:
            return None
        region.end = region.known = self._last_end = min(region.heard + self._pad, limit)
        return region
