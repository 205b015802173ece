"""Timelines: the emotions in long recordings, as segments."""

from __future__ import annotations

from collections.abc import Iterator

from .segments import Segment, TimelineOptions
from .streaming.scoring import TimelineEngine
from .streaming.waves import Hook, waves
from .turns import Turn, turn_segments

__all__ = ["Segment", "TimelineOptions", "timeline", "timeline_steps"]


def timeline(
    pipe, source, options: TimelineOptions | None = None, segments: list[Turn] | None = None, hook: Hook | None = None
) -> Iterator[Segment]:
    """Find the speech in a recording, and the emotions in it.

    The recording is read as a stream, so that its length does not matter. Speech is found by Silero VAD or by level.
    Overlapping windows over each stretch of speech are classified, and the scores of the windows over each moment are
    averaged. Another emotion takes over where its mean score exceeds that of the present one by more than
    `options.hysteresis`. The label of a segment is therefore not always the first of its `scores`.

    Args:
        pipe: The model, from `load_pipeline`.
        source: A path, or what `read_audio` accepts.
        options: How the timeline is made.
        segments: Turns of speakers, from `read_rttm`. Each becomes one segment with its speaker, and options of speech
            detection and smoothing have no effect.
        hook: Called with each block of samples at the rate of the model, `(time,)`, and the recording.

    Returns:
        An iterator over the segments, in the order of time. A recording without speech has none. Invalid options raise
        an error at once, others while iterating.

    Raises:
        AudioError: If the recording cannot be read; segments up to there were returned before.
        ValueError: If options are invalid or do not fit the model.
        ImportError: If `options.vad` is `"silero"` and silero-vad is not installed.
    """
    options = options or TimelineOptions()
    if segments is not None:
        return turn_segments(pipe, source, options, segments, hook)
    steps = timeline_steps(pipe, source, options, hook)
    return (segment for step in steps for segment in step)


def timeline_steps(
    pipe, source, options: TimelineOptions | None = None, hook: Hook | None = None
) -> Iterator[list[Segment]]:
    """A timeline in short steps, between which other work can be done; the parameters are those of `timeline`.

    Returns:
        An iterator over the segments that each block of the recording finishes, often none.
    """
    return _steps(TimelineEngine(pipe, options or TimelineOptions()), source, hook)


def _steps(engine: TimelineEngine, source, hook: Hook | None) -> Iterator[list[Segment]]:
    for wave in waves(source, engine.rate, hook):
        yield list(engine.feed(wave))
    yield list(engine.finish())
