"""Segments of a timeline, and how they are made."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from .predictions import BATCH_SIZE, NONE_OF_THESE, PredictionOptions, Rejectable, check_threshold

DETECTORS = ("auto", "silero", "level")
MAX_WINDOW = 60.0  # seconds


@dataclass(frozen=True)
class Segment(Rejectable):
    """A stretch of speech with one emotion.

    Args:
        start: Start in seconds from the beginning of the recording.
        end: End in seconds.
        label: The emotion; see `timeline` for the rule.
        score: Its score.
        scores: The mean score of each label over the segment, highest first. They sum to 1.
        speaker: The speaker, if a diarisation was given.
        best_label: The emotion, also of a rejected segment, whose label is `NONE_OF_THESE`; None: `label`.
    """

    start: float
    end: float
    label: str
    score: float
    scores: dict[str, float]
    speaker: str | None = None
    best_label: str | None = None

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.end - self.start

    def below(self, threshold: float | None) -> Segment:
        """The same segment, rejected if its score is below a threshold. None rejects nothing."""
        return self if threshold is None or self.score >= threshold else replace(self, label=NONE_OF_THESE)

    def as_dict(self) -> dict:
        """The fields as a dict."""
        return asdict(self)


@dataclass(frozen=True)
class TimelineOptions:
    """How a timeline is made. The options of speech detection have the names and meanings of Silero VAD.

    Args:
        labels: Words to choose from; None: the emotions of the checkpoint.
        templates: Prompt templates with `{}`; None: those of the checkpoint.
        threshold: Probability of speech from which on a frame of 32 ms begins speech.
        neg_threshold: Probability below which a frame may end speech; None: 0.15 below `threshold`, at least 0.01.
        min_speech_duration_ms: Shorter stretches of speech are left out, in milliseconds.
        min_silence_duration_ms: Speech ends after this much silence, in milliseconds.
        speech_pad_ms: Speech is extended by this much on both sides, in milliseconds; at most
            `min_silence_duration_ms`.
        window: Length of the windows that are classified, in seconds; None: see `default_window`.
        step: Time from one window to the next, in seconds; None: a quarter of the window.
        hysteresis: Another emotion takes over only if its score exceeds that of the present one by more than this.
        batch_size: Windows that are processed together. It does not change the results.
        reject_below: The label of a segment is `NONE_OF_THESE` if its score is below this number; None rejects none.
        vad: `"silero"`, `"level"`, or `"auto"`: Silero VAD where it is installed, else the level.

    Raises:
        ValueError: If a value is out of range.
    """

    labels: Sequence[str] | str | None = None
    templates: Sequence[str] | str | None = None
    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: float = 250
    min_silence_duration_ms: float = 500
    speech_pad_ms: float = 100
    window: float | None = None
    step: float | None = None
    hysteresis: float = 0.1
    batch_size: int = BATCH_SIZE
    vad: str = "auto"
    reject_below: float | None = None

    def __post_init__(self):
        _check(self, "threshold", 0, 1, exclusive=True)
        _check(self, "neg_threshold", 0, self.threshold)
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            _check(self, name, 0, 60_000)
        _check(self, "window", 0.1, MAX_WINDOW)
        _check(self, "step", 0.01, self.window or MAX_WINDOW)
        _check(self, "hysteresis", 0, 1)
        if self.speech_pad_ms > self.min_silence_duration_ms:
            raise ValueError(
                f"speech_pad_ms={self.speech_pad_ms:g} must be at most min_silence_duration_ms="
                f"{self.min_silence_duration_ms:g}: speech is not extended beyond the silence that ends it"
            )
        if not (isinstance(self.batch_size, numbers.Integral) and self.batch_size >= 1):
            raise ValueError(f"batch_size={self.batch_size!r} must be a whole number of at least 1")
        if self.reject_below is not None:
            check_threshold("reject_below", self.reject_below)
        if self.vad not in DETECTORS:
            raise ValueError(f"vad={self.vad!r} is unknown; choose from {', '.join(DETECTORS)}")

    @property
    def end_threshold(self) -> float:
        """Probability of speech below which a frame may end speech."""
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold

    def of_prediction(self) -> PredictionOptions:
        """The options of the predictions for windows."""
        return PredictionOptions(
            self.labels, self.templates, batch_size=self.batch_size, reject_below=self.reject_below
        )


def _check(options: TimelineOptions, name: str, low: float, high: float, exclusive: bool = False) -> None:
    """Check that an option is a number in a range; None is allowed where it is the default.

    Raises:
        ValueError: If it is not.
    """
    value = getattr(options, name)
    if value is None and type(options).__dataclass_fields__[name].default is None:
        return
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not (low < value < high if exclusive else low <= value <= high):
        between = f"above {low:g} and below {high:g}" if exclusive else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}={value!r} must be a number {between}")
