"""From a recording and labels to what the page shows, and the messages for what cannot be used."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..inference.classifier import AudioClassifier
from ..inference.predictions import Prediction, PredictionOptions, predict
from ..inference.remarks import collect_remarks
from ..inference.streaming.files import is_longer
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..prompts_gemoclap import check_words, refuse_shared_prompts, require_two_words
from ..recordings_gemoclap import AudioError, read_audio
from .acoustics import Contours, contours

if TYPE_CHECKING:
    from ..inference.timeline import Segment

MAX_SECONDS = 600
MAX_FILE_MEGABYTES = 100
MAX_LABELS = 50
MAX_LABEL_LENGTH = 60
NAMED_LABELS = 4  # that a note names when the segments differ
TELEPHONE_RATE = 16_000  # Hz: below it, a recording lacks frequencies that the models were trained on
NAME = "This recording"  # in messages, in place of the path on the server


@dataclass(frozen=True)
class Analysis:
    """What the page shows of a recording.

    Args:
        prediction: The scores of the whole recording.
        segments: Its stretches of speech with their labels.
        contours: Envelope, loudness and pitch.
        notes: Sentences on what makes the result less reliable.
    """

    prediction: Prediction
    segments: list[Segment]
    contours: Contours
    notes: list[str] = field(default_factory=list)


class PageModel:
    """A model as the page uses it.

    Args:
        pipe: From `load_pipeline`.

    Attributes:
        labels: The emotions of the checkpoint.
        has_prompts: Whether other labels can be given.
        predicts_gender: Whether the checkpoint has texts for gender.
    """

    def __init__(self, pipe: ZeroShotEmotionPipeline | AudioClassifier):
        self.pipe = pipe
        self.labels = list(pipe.model.config.emotions)
        self.has_prompts = not isinstance(pipe, AudioClassifier)
        self.predicts_gender = self.has_prompts and self._has_gender_prompts()

    def _has_gender_prompts(self) -> bool:
        try:
            return bool(self.pipe.model.config.gender_class_prompts())
        except ValueError:
            return False

    def analyse(self, path: str, labels: list[str], gender: bool = False) -> Analysis:
        """Analyse a recording.

        Args:
            path: The file.
            labels: From `parse_labels`.
            gender: Whether to predict the gender of the speaker.

        Raises:
            AudioError: If the file cannot be used. The message does not contain its path.
        """
        from ..inference.timeline import TimelineOptions, timeline

        remarks: list[str] = []
        wave, rate = read_recording(path, remarks)
        recording = {"array": wave, "sampling_rate": rate, "path": NAME}
        asked = None if labels == self.labels else labels
        [prediction] = predict(self.pipe, [recording], PredictionOptions(asked, gender=gender))
        segments = list(timeline(self.pipe, recording, TimelineOptions(labels=asked)))
        return Analysis(prediction, segments, contours(wave, rate), self._notes(labels, segments, rate, remarks))

    def _notes(self, labels: list[str], segments: list[Segment], rate: int, remarks: Sequence[str] = ()) -> list[str]:
        notes = []
        if not segments:
            notes.append("No speech was found. The model answers with one of the labels all the same: disregard it.")
        if len(counts := Counter(each.label for each in segments)) > 1:
            named = ", ".join(f"{label} {count}" for label, count in counts.most_common(NAMED_LABELS))
            more = len(counts) - NAMED_LABELS
            notes.append(
                f"The segments differ ({named}{f', and {more} more' if more > 0 else ''}): look at the timeline. One "
                "label for the whole recording says little."
            )
        notes += [f"{NAME}: {remark}." for remark in remarks]
        if rate < TELEPHONE_RATE:
            notes.append(f"A sampling rate of {rate:,} Hz, as on the telephone: the scores are less reliable.")
        if labels != self.labels:
            notes.append("These are not the labels of the model: the scores are not calibrated for them.")
        if unknown := self.pipe.model.config.unknown_words(labels) if self.has_prompts else []:
            notes.append(
                f"The model was not trained on these words, so their scores mean little: {', '.join(unknown)}."
            )
        return notes


def parse_labels(text: str | None) -> list[str]:
    """Convert the text of the field for labels to a list.

    Args:
        text: Labels, one on a line or separated by commas. Empty lines are ignored.

    Raises:
        ValueError: If there are fewer than two labels or more than `MAX_LABELS`, if a label is repeated, too long or
            has braces, or if two labels have the same prompt.
    """
    words = [word.strip() for word in re.split(r"[,\n]", text or "") if word.strip()]
    if not words:
        raise ValueError("There are no labels: write at least two, or use those of the model.")
    if len(words) > MAX_LABELS:
        raise ValueError(f"There are {len(words)} labels: give at most {MAX_LABELS}.")
    if too_long := next((word for word in words if len(word) > MAX_LABEL_LENGTH), None):
        raise ValueError(f"The label {too_long[:20]!r}... is longer than {MAX_LABEL_LENGTH} characters: shorten it.")
    return refuse_shared_prompts("Labels", require_two_words("Labels", check_words("Labels", words)))


def read_recording(path: str, remarks: list[str] | None = None) -> tuple[np.ndarray, int]:
    """Read a recording that is not longer than `MAX_SECONDS`.

    The length is counted block by block first, so that a small file of many hours does not fill the memory.

    Args:
        path: The file.
        remarks: Warnings about the file, such as a wrong size in its header, are appended to it instead of logged.

    Returns:
        The mean over channels, or the loudest channel if they cancel out, `(time,)` float32, and its rate in Hz.

    Raises:
        AudioError: As for `read_audio`, or if the recording is too long. The message does not contain the path.
    """
    if not os.path.exists(path):
        raise AudioError(f"{NAME} was deleted from the server in the meantime: give it again.")
    remarks = [] if remarks is None else remarks
    with collect_remarks(path, remarks):
        if is_longer(path, MAX_SECONDS):
            raise AudioError(f"{NAME} is longer than {MAX_SECONDS // 60} minutes: cut it into parts.")
        try:
            return read_audio(path, name=path)
        except AudioError as error:
            raise AudioError(str(error).replace(path, NAME)) from None
