"""Turns of speakers from a diarisation, and their emotions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers.utils import logging

from ..audio_headers_gemoclap import AudioError
from .predictions import Prediction, extractor_of, predict
from .segments import Segment, TimelineOptions
from .streaming.waves import waves

logger = logging.get_logger(__name__)

LONGEST_CLIP = 30.0  # seconds: a longer turn is classified in parts
MOST_SECONDS = 30 * 86400  # of all turns together, and of the end of each: more are times in another unit, or damage
TOLERANCE = 0.5  # seconds by which a turn may exceed the recording without a warning
FIELDS = "SPEAKER FILE CHANNEL START DURATION <NA> <NA> SPEAKER_NAME <NA> <NA>"


@dataclass(frozen=True)
class Turn:
    """A turn of a speaker.

    Args:
        start: Start in seconds.
        end: End in seconds.
        speaker: Name of the speaker.
    """

    start: float
    end: float
    speaker: str


def read_rttm(path: str | Path, recording: str | Path | None = None) -> list[Turn]:
    """Read a diarisation in the format RTTM, as pyannote and other tools write it.

    Args:
        path: The file. Lines of other types than SPEAKER, and comments, are ignored.
        recording: The recording. Of a file with the turns of several recordings, those are read whose name is that of
            the recording without its suffix.

    Returns:
        The turns, in the order of their start.

    Raises:
        ValueError: If a line is not valid, or if there are no turns of the recording.
        OSError: If the file cannot be read.
    """
    by_file: dict[str, list[Turn]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8; give a diarisation in the format RTTM") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words and words[0] == "SPEAKER":
            by_file.setdefault(words[1] if len(words) > 1 else "", []).append(_turn(words, f"{path}, line {number}"))
    if not by_file:
        raise ValueError(f"{path}: no line that begins with SPEAKER; give a diarisation in the format RTTM")
    stem = Path(recording).stem if recording is not None else None
    if stem in by_file:
        by_file = {stem: by_file[stem]}
    if len(by_file) > 1:
        names = ", ".join(sorted(by_file)[:5])
        reason = "the recording has no name" if stem is None else f"but none of {stem}"
        raise ValueError(f"{path}: turns of {len(by_file)} recordings ({names}), {reason}: give a file with one")
    [(name, turns)] = by_file.items()
    if stem not in (None, name):
        logger.warning(f"{path}: its turns are those of {name}, and the recording is {stem}")
    try:
        _check_length(turns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def _check_length(turns: list[Turn]) -> None:
    """Check that turns can be divided into parts, each of which takes memory.

    Raises:
        ValueError: If they are longer than `MOST_SECONDS` together, or one of them ends later.
    """
    total, last = sum(turn.end - turn.start for turn in turns), max((turn.end for turn in turns), default=0.0)
    if not max(total, last) <= MOST_SECONDS:
        raise ValueError(
            f"its turns have {total:g} s together and end at {last:g} s, more than {MOST_SECONDS // 86400} days; give "
            "times in seconds"
        )


def _turn(words: list[str], place: str) -> Turn:
    try:
        start, duration, speaker = float(words[3]), float(words[4]), words[7]
    except (IndexError, ValueError):
        raise ValueError(f"{place}: not {FIELDS}, with times in seconds") from None
    if not (math.isfinite(start) and math.isfinite(duration) and start >= 0 and duration > 0):
        raise ValueError(f"{place}: start {words[3]} and duration {words[4]}; give numbers of at least 0 and above 0")
    return Turn(start, start + duration, speaker)


@dataclass
class _Part:
    """A part of a turn that is classified as one clip, in samples."""

    turn: int
    start: int
    end: int
    scores: dict[str, float] | None = None


def turn_segments(pipe, source, options: TimelineOptions, turns: list[Turn], hook=None) -> Iterator[Segment]:
    """Classify each turn as one clip; of a turn longer than 30 s, equal parts whose scores are averaged.

    Args:
        pipe: The model, from `load_pipeline`.
        source: The recording.
        options: Labels, templates and size of batches.
        turns: The turns. They may overlap.
        hook: See `timeline`.

    Returns:
        An iterator over the segments, in the order of the turns' starts. A turn that cannot be used, for example
        because it is silent, has none, and a warning is given.

    Raises:
        AudioError: If the recording cannot be read, or, after the other segments, if turns begin after its end.
        ValueError: If options are invalid.
    """
    asked = options.of_prediction()
    list(predict(pipe, [], asked))
    turns = sorted(turns, key=lambda turn: (turn.start, turn.end))
    return _classified(pipe, source, options, turns, hook)


def _classified(pipe, source, options, turns, hook) -> Iterator[Segment]:
    extractor = extractor_of(pipe)
    rate = extractor.sampling_rate
    parts = _split(turns, rate, min(extractor.max_seconds or LONGEST_CLIP, LONGEST_CLIP))
    answers: list[list[_Part]] = [[] for _ in turns]
    for part in parts:
        answers[part.turn].append(part)
    unanswered = [len(of_turn) for of_turn in answers]
    asked, next_turn = options.of_prediction(), 0
    for batch in _batches(_clips(waves(source, rate, hook), parts, turns, rate), options.batch_size):
        clips = ({"array": wave, "sampling_rate": rate} for _, wave in batch)
        for (part, _), answer in zip(batch, predict(pipe, clips, asked, on_error="return"), strict=True):
            unanswered[part.turn] -= 1
            if isinstance(answer, Prediction):
                part.scores = answer.scores
            elif part.end > part.start:  # a part after the end of the recording was reported already
                turn = turns[part.turn]
                logger.warning(f"the turn of {turn.speaker} at {turn.start:g} s cannot be used: {answer}")
        while next_turn < len(turns) and not unanswered[next_turn]:
            for segment in _segment(turns[next_turn], answers[next_turn], rate):
                yield segment.below(options.reject_below)
            next_turn += 1


def _split(turns: list[Turn], rate: int, longest: float) -> list[_Part]:
    """The parts of all turns, in the order of their ends."""
    _check_length(turns)
    parts = []
    for number, turn in enumerate(turns):
        borders = np.linspace(turn.start, turn.end, math.ceil((turn.end - turn.start) / longest) + 1)
        samples = [round(border * rate) for border in borders]
        parts += [_Part(number, start, end) for start, end in zip(samples, samples[1:], strict=False)]
    return sorted(parts, key=lambda part: (part.end, part.start))


def _clips(waves: Iterator[np.ndarray], parts: list[_Part], turns, rate: int) -> Iterator[tuple[_Part, np.ndarray]]:
    """The samples of each part, as soon as they were read."""
    wave, offset, todo = np.zeros(0, np.float32), 0, deque(parts)
    starts = np.minimum.accumulate([part.start for part in reversed(parts)])[::-1]  # lowest of the parts from one on
    for block in waves:
        wave = np.concatenate([wave, block])
        position = offset + len(wave)
        while todo and todo[0].end <= position:
            part = todo.popleft()
            yield part, wave[part.start - offset : part.end - offset]
        needed = max(offset, min(position, int(starts[len(parts) - len(todo)]) if todo else position))
        wave, offset = wave[needed - offset :], needed
    total, late = offset + len(wave), []
    for part in todo:
        turn = turns[part.turn]
        if turn.start * rate >= total:
            late += [turn] if turn not in late else []
            part.end = part.start  # it has no answer
        elif turn.end - total / rate > TOLERANCE and part.end == round(turn.end * rate):
            logger.warning(f"the turn of {turn.speaker} at {turn.start:g} s is cut: the recording ends before it")
        part.end = max(part.start, min(part.end, total))
        yield part, wave[max(0, part.start - offset) :][: part.end - part.start]
    if late:
        raise AudioError(
            f"{len(late)} of {len(turns)} turns begin after the end of the recording, {total / rate:.2f} s, the first "
            f"that of {late[0].speaker} at {late[0].start:g} s: is it the diarisation of another recording?"
        )


def _batches(items: Iterator, size: int) -> Iterator[list]:
    """Items in batches. If their source fails, the batch before the error comes first."""
    batch, error = [], None
    while error is None:
        try:
            batch.append(next(items))
        except (StopIteration, AudioError) as end:
            error = end
        if batch and (error or len(batch) == size):
            yield batch
            batch = []
    if isinstance(error, AudioError):
        raise error


def _segment(turn: Turn, parts: list[_Part], rate: int) -> Iterator[Segment]:
    used = [part for part in parts if part.scores is not None and part.end > part.start]
    if not used:
        return
    total = sum(part.end - part.start for part in used)
    means = {
        label: sum(part.scores[label] * (part.end - part.start) for part in used) / total for label in used[0].scores
    }
    scores = dict(sorted(means.items(), key=lambda item: -item[1]))
    label = next(iter(scores))
    yield Segment(turn.start, max(part.end for part in used) / rate, label, scores[label], scores, turn.speaker)
