"""Classification of windows in batches, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..predictions import Prediction, extractor_of, predict
from ..segments import MAX_WINDOW, Segment, TimelineOptions
from .smoothing import Smoother
from .windows import RegionEnd, SpeechWindows, Window

WINDOW_SECONDS = 3.0  # of a checkpoint whose training clips have an unknown length
STEPS_PER_WINDOW = 4


def default_window(pipe) -> float:
    """The window in seconds that fits a checkpoint: the median length of its training clips, of 1 to 10 seconds.

    It is 3 seconds if the length is unknown: `load_pipeline` reads it from `training_clips.safetensors`.
    """
    seconds = getattr(pipe, "clip_seconds", None)
    return WINDOW_SECONDS if seconds is None else round(min(max(seconds, 1.0), 10.0), 1)


class TimelineEngine:
    """Turns samples at the rate of the model into segments.

    Args:
        pipe: The model, from `load_pipeline`.
        options: How the timeline is made.

    Raises:
        ValueError: If an option does not fit the model.
        ImportError: If a detector is asked for that is not installed.
    """

    def __init__(self, pipe, options: TimelineOptions):
        extractor = extractor_of(pipe)
        self.pipe, self.rate, self._asked = pipe, extractor.sampling_rate, options.of_prediction()
        window = options.window or min(default_window(pipe), extractor.max_seconds or MAX_WINDOW)
        step = options.step or window / STEPS_PER_WINDOW
        if step > window:
            raise ValueError(f"step={step:g} must be at most window={window:g}: speech between windows would be lost")
        if extractor.max_seconds and window > extractor.max_seconds:
            raise ValueError(f"window={window:g} must be at most {extractor.max_seconds:g} s, the input of the model")
        list(predict(pipe, [], self._asked))  # invalid labels and templates raise an error before anything is read
        self.window, self.step = window, step
        labels = self._asked.labels_of(pipe)
        samples = max(1, round(window * self.rate)), max(1, round(step * self.rate))
        self._windows = SpeechWindows(options, self.rate, *samples)
        self._smoother = Smoother(labels, self.rate, samples[1], options.hysteresis)
        self._batch_size, self._waiting, self._reject_below = options.batch_size, [], options.reject_below

    @property
    def detector(self) -> str:
        """Name of what finds speech: `"silero"` or `"level"`."""
        return self._windows.detector.name

    @property
    def position(self) -> float:
        """Seconds so far."""
        return self._windows.position / self.rate

    @property
    def current(self) -> Segment | None:
        """The segment that is not finished."""
        current = self._smoother.current
        return current and current.below(self._reject_below)

    def feed(self, wave, at_once: bool = False) -> Iterator[Segment]:
        """Continue with samples.

        Args:
            wave: `(time,)` at the rate of the model.
            at_once: Whether windows are classified as they are complete, instead of when they fill a batch.

        Yields:
            Segments that are finished.
        """
        yield from self._classify(self._windows.feed(wave), at_once)

    def finish(self) -> Iterator[Segment]:
        """End with the recording; yields as `feed` does."""
        yield from self._classify(self._windows.finish(), at_once=True)

    def _classify(self, items: Iterable[Window | RegionEnd], at_once: bool) -> Iterator[Segment]:
        for item in items:
            self._waiting.append(item)
            if sum(isinstance(each, Window) for each in self._waiting) >= self._batch_size:
                yield from self._answer()
        if at_once and self._waiting:
            yield from self._answer()

    def _answer(self) -> Iterator[Segment]:
        return (segment.below(self._reject_below) for segment in self._smoothed())

    def _smoothed(self) -> Iterator[Segment]:
        items, self._waiting = self._waiting, []
        clips = ({"array": item.wave, "sampling_rate": self.rate} for item in items if isinstance(item, Window))
        answers = predict(self.pipe, clips, self._asked, on_error="return")
        for item in items:
            if isinstance(item, RegionEnd):
                yield from self._smoother.end(item)
            else:
                answer = next(answers)
                yield from self._smoother.add(item, answer.scores if isinstance(answer, Prediction) else None)
