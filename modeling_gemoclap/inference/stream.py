"""Live audio: segments while samples arrive."""

from __future__ import annotations

from ..audio_headers_gemoclap import AudioError
from ..recordings_gemoclap import check_rate
from .segments import Segment, TimelineOptions
from .streaming.arrays import to_frames
from .streaming.scoring import TimelineEngine
from .streaming.signal import ModelSignal

NAME = "stream"


class EmotionStream:
    """Finds segments in audio that arrives in chunks of any size. The segments are those of `timeline`.

    A segment is returned when it is certain: after `min_silence_duration_ms` of silence, or, where the emotion changes
    within a stretch of speech, about one window and one step after the change.

    Args:
        model: A `GEmoClap`, or a pipeline from `load_pipeline`.
        options: How segments are made; None: `TimelineOptions()`.
        channel_axis: The axis of the channels in chunks with two axes: 0 or 1. None: that with at most 32 entries in
            the first chunk.
        **kwargs: Fields of `TimelineOptions` instead.

    Raises:
        ValueError: If options are invalid or do not fit the model.

    Example:
        >>> stream = EmotionStream(GEmoClap.from_pretrained("base"), labels=["angry", "neutral"])
        >>> for chunk in chunks:
        ...     for segment in stream.push(chunk, sampling_rate=48000):
        ...         print(segment.start, segment.end, segment.label)
        >>> stream.finish()
    """

    def __init__(self, model, options: TimelineOptions | None = None, channel_axis: int | None = None, **kwargs):
        if options is not None and kwargs:
            raise ValueError(f"give options, or {', '.join(kwargs)}, not both")
        pipe = getattr(model, "pipe", model)
        if pipe is None:
            raise ValueError("the model is not fitted: call fit, or load one by GEmoClap.from_pretrained")
        self._engine = TimelineEngine(pipe, options or TimelineOptions(**kwargs))
        if channel_axis not in (None, 0, 1):
            raise ValueError(f"channel_axis={channel_axis!r} must be 0, 1 or None")
        self._channel_axis = channel_axis
        self._signal: ModelSignal | None = None
        self._rate: int | None = None
        self._finished = False

    @property
    def current(self) -> Segment | None:
        """The segment that is not finished: what is decided of it so far. It may still grow."""
        return self._engine.current

    @property
    def position(self) -> float:
        """Seconds of audio so far, without up to 0.1 s that are not processed yet."""
        return self._engine.position

    @property
    def detector(self) -> str:
        """Name of what finds speech: `"silero"` or `"level"`."""
        return self._engine.detector

    def push(self, samples, sampling_rate: int) -> list[Segment]:
        """Continue with samples.

        Args:
            samples: `(time,)`, `(channels, time)` or `(time, channels)`, integers or floats as for `read_audio`; it
                may be empty.
            sampling_rate: Their rate in Hz, the same for all chunks.

        Returns:
            Segments that are finished.

        Raises:
            AudioError: If samples are not finite or no audio, if the rate or the number of channels changes, or if it
                is not clear which axis has the channels. The stream is as before.
            ValueError: If the stream is finished.
        """
        if self._finished:
            raise ValueError("the stream is finished: make a new EmotionStream")
        rate = check_rate(sampling_rate, NAME)
        if self._rate not in (None, rate):
            raise AudioError(f"{NAME}: the sampling rate changes from {self._rate} to {rate} Hz: make a new stream")
        frames, axis = to_frames(samples, rate, NAME, self._channel_axis)
        if not len(frames):
            return []
        signal = self._signal or ModelSignal(rate, self._engine.rate, NAME)
        wave = signal.feed(frames)
        self._rate, self._signal, self._channel_axis = rate, signal, axis
        return list(self._engine.feed(wave, at_once=True))

    def finish(self) -> list[Segment]:
        """End the stream.

        Returns:
            The last segments. A second call returns none.
        """
        if self._finished:
            return []
        self._finished = True
        rest = [] if self._signal is None else list(self._engine.feed(self._signal.finish(), at_once=True))
        return [*rest, *self._engine.finish()]
