"""What stands out in a set of recordings, in sentences from measured values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..recordings_gemoclap import name_of
from ..training_clips import TrainingClips
from .predictions import NONE_OF_THESE, Prediction
from .signals import TELEPHONE_HZ, Signal

MANY = 0.25  # share of recordings from which a difference to the training clips is reported
FAR = 95  # percentile of the distances among training clips
CLIPPED = 0.001  # share of samples at full scale from which a recording counts as clipped
NAMES = {  # of a measure: name, unit, and the words for recordings below and above the range of the training clips
    "level_db": ("level", "dBFS", "quieter", "louder"),
    "snr_db": ("signal-to-noise ratio", "dB", "noisier", "less noisy"),
    "seconds": ("length", "s", "shorter", "longer"),
    "bandwidth_hz": ("bandwidth", "Hz", "narrower in bandwidth", "wider in bandwidth"),
}


@dataclass(frozen=True)
class ReportRow:
    """One recording of a report.

    Args:
        name: Its name.
        answer: The prediction, or why it cannot be used.
        signal: What it is as a signal; None if it cannot be read.
        distance: Distance to the nearest training clip; None if it is unknown.
        percentile: The per cent of training clips with a shorter distance; None if it is unknown.
    """

    name: str
    answer: Prediction | str
    signal: Signal | None
    distance: float | None = None
    percentile: int | None = None

    @property
    def reason(self) -> str | None:
        """Why it cannot be used, without its name; None if it can."""
        if isinstance(self.answer, Prediction):
            return None
        return self.answer.removeprefix(f"{name_of(self.name)}: ")

    @property
    def is_far(self) -> bool:
        """Whether it is farther from the training clips than 95 % of these are from each other."""
        return self.percentile is not None and self.percentile >= FAR

    @property
    def is_clipped(self) -> bool:
        """Whether more than 0.1 % of the samples are at full scale."""
        return self.signal is not None and self.signal.clipped > CLIPPED


@dataclass(frozen=True)
class Background:
    """What recordings are compared with.

    Args:
        training: A sample of the training clips, or why there is none.
        only_ranks: Why scores are no probabilities; None if they are calibrated.
        reject_below: Threshold on the scores; None if no prediction is rejected.
        sets_level: Whether the model brings every recording to the same level.
    """

    training: TrainingClips | str
    only_ranks: str | None = None
    reject_below: float | None = None
    sets_level: bool = False


def findings(rows: Sequence[ReportRow], background: Background) -> list[str]:
    """Say what stands out.

    Args:
        rows: The recordings.
        background: What they are compared with.

    Returns:
        Sentences. Each has the numbers that it rests on.
    """
    used = [row for row in rows if isinstance(row.answer, Prediction)]
    if not used:
        return [f"None of the {_recordings(len(rows))} can be used."]
    sentences = [_answers(used), *_rejections(used, background)]
    differences = [*_differences(used, background), *_narrow(used, background), *_clipping(used)]
    sentences += differences
    if not differences and isinstance(background.training, TrainingClips):
        sentences.append(
            "Level, noise, length, bandwidth and clipping: fewer than a quarter of the recordings are outside of the "
            "range of the training clips."
        )
    sentences.append(_distances(used, background))
    if len(used) < len(rows):
        sentences.append(f"{_of(len(rows) - len(used), len(rows))} cannot be used.")
    return sentences


def median_of(rows: Sequence[ReportRow], value: Callable[[ReportRow], float | None]) -> float | None:
    """The median of a value over the recordings that have it; None if none has."""
    known = [each for each in map(value, rows) if each is not None]
    return float(np.median(known)) if known else None


def measure_of(row: ReportRow, name: str) -> float | None:
    """A measure of `Signal` of a recording; None if it is unknown."""
    return getattr(row.signal, name, None)


def number_text(value: float) -> str:
    """A measured value, with one decimal below 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _recordings(number: int) -> str:
    return f"{number} recording{'' if number == 1 else 's'}"


def _of(part: int, whole: int) -> str:
    return f"{part} of {_recordings(whole)}"


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _answers(used: Sequence[ReportRow]) -> str:
    [(label, count)] = Counter(row.answer.best_label for row in used).most_common(1)
    score = np.mean([row.answer.score for row in used if row.answer.best_label == label])
    return f"{_of(count, len(used))} {_is_or_are(count)} {label}, with a mean score of {score:.2f}."


def _rejections(used: Sequence[ReportRow], background: Background) -> list[str]:
    sentences = []
    if background.reject_below is not None:
        count = sum(row.answer.rejected for row in used)
        below = f"with a score below {background.reject_below:g}, {_is_or_are(count)} answered {NONE_OF_THESE!r}"
        sentences.append(f"{_of(count, len(used))}, {below}.")
    if background.only_ranks:
        sentences.append(f"Scores only rank the labels and are no probabilities: {background.only_ranks}.")
    return sentences


def _differences(used: Sequence[ReportRow], background: Background) -> list[str]:
    """Level, noise and length outside of the range of the training clips."""
    training, sentences = background.training, []
    if isinstance(training, str):
        return []
    for name in ("level_db", "snr_db", "seconds"):
        expected, (title, unit, below, above) = training.range_of(name), NAMES[name]
        values = [value for value in (measure_of(row, name) for row in used) if value is not None]
        if not values or expected is None:
            continue
        low, middle, high = expected
        sides = ((sum(value < low for value in values), below), (sum(value > high for value in values), above))
        for count, word in sides:
            if count >= MANY * len(used):
                sentences.append(
                    f"{_of(count, len(used))} {_is_or_are(count)} {word} than 95 % of the training clips: the median "
                    f"{title} is {number_text(np.median(values))} {unit}, that of the training clips "
                    f"{number_text(middle)} {unit}."
                )
                if name == "level_db" and background.sets_level:
                    sentences.append(
                        "The model brings every recording to the same level, so the level itself does not change its "
                        "answers; noise that comes with a low level may."
                    )
    return sentences


def _narrow(used: Sequence[ReportRow], background: Background) -> list[str]:
    count = sum(row.signal is not None and row.signal.is_narrow for row in used)
    if count < MANY * len(used):
        return []
    rates = Counter(row.signal.sampling_rate for row in used if row.signal is not None and row.signal.is_narrow)
    files = ", ".join(f"{number} at {rate:,} Hz" for rate, number in rates.most_common(3))
    expected = isinstance(background.training, TrainingClips) and background.training.range_of("bandwidth_hz")
    trained = f"; the median bandwidth of the training clips is {number_text(expected[1])} Hz" if expected else ""
    has = "has" if count == 1 else "have"
    return [
        f"{_of(count, len(used))} {has} no sound above {TELEPHONE_HZ:,.0f} Hz, as on the telephone ({files}){trained}."
    ]


def _clipping(used: Sequence[ReportRow]) -> list[str]:
    count = sum(row.is_clipped for row in used)
    if not count:
        return []
    return [f"{_of(count, len(used))} {_is_or_are(count)} clipped: more than 0.1 % of the samples are at full scale."]


def _distances(used: Sequence[ReportRow], background: Background) -> str:
    training = background.training
    if isinstance(training, str):
        return f"The distance to the training clips is unknown: {training}."
    count, median = sum(row.is_far for row in used), median_of(used, lambda row: row.percentile)
    return (
        f"{_of(count, len(used))} {_is_or_are(count)} farther from the nearest training clip than {FAR} % of the "
        f"training clips are from the nearest of the {training.compared_with}; the median recording is farther than "
        f"{median:.0f} % of them."
    )
