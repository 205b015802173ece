"""Timelines in the formats of other programs: tables, subtitles, diarisation, Praat."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..command_line.terminal import without_control
from ..corpora.files import write_atomically
from .segments import Segment

COLUMNS = ("start", "end", "label", "best_label", "score", "speaker")
NO_SPEAKER = "speaker"  # in RTTM, which requires one


@dataclass(frozen=True)
class TimelineFacts:
    """What a file holds beside the segments.

    Args:
        recording: Name of the recording.
        seconds: Its duration.
        labels: The labels, in the order of columns.
        model: Name of the model.
    """

    recording: str
    seconds: float
    labels: Sequence[str]
    model: str = ""


def as_dicts(segments: Iterable[Segment]) -> list[dict]:
    """Segments as dicts with the fields of `Segment`."""
    return [segment.as_dict() for segment in segments]


def as_dataframe(segments: Iterable[Segment]):
    """Segments as a pandas DataFrame: the fields of `Segment`, and `score_LABEL` of each label instead of `scores`.

    Raises:
        ImportError: If pandas is not installed.
    """
    import pandas

    rows = [_row(segment) for segment in segments]
    return pandas.DataFrame(rows, columns=None if rows else COLUMNS)


def _row(segment: Segment) -> dict:
    row = {name: getattr(segment, name) for name in COLUMNS}
    return row | {f"score_{label}": score for label, score in segment.scores.items()}


def _csv(segments: list[Segment], facts: TimelineFacts) -> str:
    columns = [*COLUMNS, *(f"score_{label}" for label in facts.labels)]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns)
    writer.writeheader()
    for segment in segments:
        times = {"start": f"{segment.start:.3f}", "end": f"{segment.end:.3f}"}
        writer.writerow(_row(segment) | times | {"speaker": segment.speaker or ""})
    return buffer.getvalue()


def _jsonl(segments: list[Segment], facts: TimelineFacts) -> str:
    return "".join(json.dumps({"file": facts.recording, **segment.as_dict()}) + "\n" for segment in segments)


def _json(segments: list[Segment], facts: TimelineFacts) -> str:
    values = {"file": facts.recording, "seconds": facts.seconds, "model": facts.model, "labels": list(facts.labels)}
    return json.dumps(values | {"segments": as_dicts(segments)}, indent=2) + "\n"


def _clock(seconds: float, mark: str) -> str:
    total = round(seconds * 1000)
    minutes, milliseconds = divmod(total, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _on_one_line(text: str) -> str:
    """A label or name without line breaks and control characters, which would begin another cue or row."""
    return without_control(" ".join(text.split()))


def _words(text: str) -> str:
    """A label or name on one line, with markup escaped: players of WebVTT interpret it."""
    return escape(_on_one_line(text), quote=False)


def _plain(text: str) -> str:
    """A label or name on one line, without markup, for which SRT has no escape."""
    return _on_one_line(text).translate(str.maketrans("<>{}", "‹›()"))


def _vtt(segments: list[Segment], facts: TimelineFacts) -> str:
    parts = ["WEBVTT\n"]
    for segment in segments:
        # "--" before the end of the tag would be an arrow, which makes a line one of times.
        speaker = re.sub("-{2,}$", lambda end: "\N{HYPHEN}" * len(end[0]), _words(segment.speaker or ""))
        voice = f"<v {speaker}>" if speaker else ""
        parts.append(f"{_cue(segment, '.')}\n{voice}{_words(segment.label)} ({segment.score:.2f})\n")
    return "\n".join(parts)


def _srt(segments: list[Segment], facts: TimelineFacts) -> str:
    parts = []
    for number, segment in enumerate(segments, start=1):
        speaker = f"{_plain(segment.speaker)}: " if segment.speaker else ""
        parts.append(f"{number}\n{_cue(segment, ',')}\n{speaker}{_plain(segment.label)} ({segment.score:.2f})\n")
    return "\n".join(parts)


def _cue(segment: Segment, mark: str) -> str:
    return f"{_clock(segment.start, mark)} --> {_clock(segment.end, mark)}"


def _rttm(segments: list[Segment], facts: TimelineFacts) -> str:
    """One line for each segment. The name is the emotion; with speakers, `SPEAKER/EMOTION`."""
    file = _one_word(Path(facts.recording).stem)
    lines = []
    for segment in segments:
        name = _one_word("/".join(filter(None, [segment.speaker, segment.label])))
        times = f"{segment.start:.3f} {segment.duration:.3f}"
        lines.append(f"SPEAKER {file} 1 {times} <NA> <NA> {name} {segment.score:.4f} <NA>\n")
    return "".join(lines)


def _one_word(text: str) -> str:
    return without_control("_".join(text.split())) or NO_SPEAKER


def _textgrid(segments: list[Segment], facts: TimelineFacts) -> str:
    """Praat's long text format: one tier, with speakers one for each."""
    tiers: dict[str, list[Segment]] = {} if segments else {"emotion": []}
    for segment in segments:
        tiers.setdefault(segment.speaker or "emotion", []).append(segment)
    end = max([facts.seconds, *(segment.end for segment in segments)])
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.6f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, of_tier) in enumerate(tiers.items(), start=1):
        intervals = _intervals(of_tier, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end:.6f}", f"        intervals: size = {len(intervals)}"]
        for index, (start, stop, text) in enumerate(intervals, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {start:.6f}"]
            lines += [f"            xmax = {stop:.6f}", f"            text = {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def _intervals(segments: list[Segment], end: float) -> list[tuple[float, float, str]]:
    """Intervals that fill the time from 0 to the end, as Praat requires; of overlapping turns, the first counts."""
    intervals, position = [], 0.0
    for segment in segments:
        start, stop = max(segment.start, position), min(segment.end, end)
        if stop <= start:
            continue
        if start > position:
            intervals.append((position, start, ""))
        intervals.append((start, stop, segment.label))
        position = stop
    if position < end or not intervals:
        intervals.append((position, end, ""))
    return intervals


def _quoted(text: str) -> str:
    return '"' + _on_one_line(text).replace('"', '""') + '"'


WRITERS: dict[str, Callable[[list[Segment], TimelineFacts], str]] = {
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "rttm": _rttm,
    "srt": _srt,
    "textgrid": _textgrid,
    "vtt": _vtt,
}
SUFFIXES = {f".{name}": name for name in WRITERS} | {".ndjson": "jsonl"}


def format_of_timeline(path: str | Path, kind: str | None = None) -> str:
    """The format of a file: the given one, or by its suffix.

    Raises:
        ValueError: If the suffix is unknown and no format is given.
    """
    kind = kind or SUFFIXES.get(Path(path).suffix.lower())
    if kind not in WRITERS:
        names = ", ".join(f".{name}" for name in WRITERS).replace("textgrid", "TextGrid")
        raise ValueError(f"{path}: give a name that ends in one of {names}")
    return kind


def render_timeline(segments: Iterable[Segment], facts: TimelineFacts, kind: str) -> str:
    """A timeline as text.

    Args:
        segments: The segments.
        facts: What the file holds beside them.
        kind: `"csv"`, `"json"`, `"jsonl"`, `"rttm"`, `"srt"`, `"textgrid"` (Praat) or `"vtt"` (WebVTT).
    """
    return WRITERS[kind](list(segments), facts)


def write_timeline(
    segments: Iterable[Segment], path: str | Path, facts: TimelineFacts, kind: str | None = None
) -> None:
    """Write a timeline to a file.

    Args:
        segments: The segments.
        path: The file.
        facts: What the file holds beside them.
        kind: The format, see `render_timeline`; None: by the suffix of the file.

    Raises:
        ValueError: If the format is unknown.
        OSError: If the file cannot be written.
    """
    text = render_timeline(segments, facts, format_of_timeline(path, kind))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(Path(path)) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))
