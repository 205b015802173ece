"""Recordings and labels as users have them: lists, columns of a pandas DataFrame or of a `datasets.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..recordings_gemoclap import is_one_recording

AUDIO_COLUMNS = ("audio", "path", "file", "file_name")
LABEL_COLUMNS = {
    "emotions": ("emotion", "label"),
    "speakers": ("speaker_id", "speaker"),
    "genders": ("gender", "sex"),
}


@dataclass(frozen=True)
class Labelled:
    """Recordings with labels, each a list of the same length.

    Args:
        recordings: Recordings of any type that `read_audio` accepts.
        emotions: Emotion words.
        speakers: Ids of the speakers; None if they are unknown.
        genders: `female` or `male`, "" where unknown; None if all are unknown.
    """

    recordings: list
    emotions: list[str]
    speakers: list[str] | None = None
    genders: list[str] | None = None


def recordings_of(data) -> list:
    """The recordings in `data`.

    Args:
        data: One recording, a list or column of them, or a DataFrame or `datasets.Dataset` with one of the columns
            `AUDIO_COLUMNS`. Audio of a `datasets.Dataset` is read without torchcodec.

    Raises:
        ValueError: If a table has no such column.
    """
    if _is_table(data):
        return _column(_undecoded(data), _find(data, AUDIO_COLUMNS, "recordings"))
    return [data] if is_one_recording(data) else list(data)


def labelled(data, emotions=None, speakers=None, genders=None) -> Labelled:
    """Collect recordings and their labels.

    Args:
        data: See `recordings_of`.
        emotions: A list or column of words, or the name of a column of `data`; None: the first of its columns
            `emotion` and `label`.
        speakers: The same for `speaker_id` and `speaker`; without such a column they are unknown.
        genders: The same for `gender` and `sex`.

    Raises:
        ValueError: If there are no emotions, if lengths differ, or if a column is missing.
    """
    recordings = recordings_of(data)
    given = {"emotions": emotions, "speakers": speakers, "genders": genders}
    columns = {name: _labels(data, name, value) for name, value in given.items()}
    if columns["emotions"] is None:
        raise ValueError("no emotions are given: give one word for each recording")
    for name, values in columns.items():
        if values is not None and len(values) != len(recordings):
            raise ValueError(f"{len(values)} {name} for {len(recordings)} recordings: give one for each recording")
    return Labelled(recordings, **columns)


def _labels(data, name: str, value) -> list[str] | None:
    table = _is_table(data)
    if value is None and table:
        value = next((column for column in LABEL_COLUMNS[name] if column in _names(data)), None)
    if value is None:
        return None
    if isinstance(value, str):
        if not table:
            raise ValueError(f"{name}={value!r}: give one for each recording, or a table with such a column")
        value = _words(data, _find(data, (value,), name))
    return ["" if _is_missing(item) else str(item) for item in value]


def _is_table(data) -> bool:
    """Whether it is a DataFrame or a `datasets.Dataset`; compared by name, since both libraries are optional."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(data).__mro__}
    return bool(names & {"pandas.DataFrame", "datasets.Dataset"})


def _names(data) -> list[str]:
    names = getattr(data, "column_names", None)  # of a dataset; in a DataFrame, a column of this name
    return names if isinstance(names, list) else list(data.columns)


def _find(data, candidates: Sequence[str], what: str) -> str:
    names = _names(data)
    found = next((name for name in candidates if name in names), None)
    if found is None:
        raise ValueError(f"no column {' or '.join(candidates)} for the {what}: the columns are {', '.join(names)}")
    return found


def _column(data, name: str) -> list:
    return list(data[name])


def _undecoded(data):
    """The same dataset with its audio as bytes and paths: decoding by `datasets` requires torchcodec."""
    for name, feature in _features(data).items():
        if type(feature).__name__ == "Audio":
            data = data.cast_column(name, type(feature)(sampling_rate=feature.sampling_rate, decode=False))
    return data


def _features(data) -> Mapping:
    """The features of a `datasets.Dataset`; of a DataFrame none, also if it has a column of this name."""
    features = getattr(data, "features", None)
    return features if isinstance(features, Mapping) else {}


def _words(data, name: str) -> list[Any]:
    """A column of labels; numbers of a `ClassLabel` become its names."""
    feature = _features(data).get(name)
    values = _column(data, name)
    return [feature.int2str(value) for value in values] if hasattr(feature, "int2str") else values


def _is_missing(value) -> bool:
    try:
        return value is None or bool(value != value)  # NaN and NaT
    except TypeError:  # pandas.NA, which is neither true nor false
        return True
