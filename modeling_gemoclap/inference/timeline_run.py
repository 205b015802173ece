"""The timeline of one recording, on the terminal and in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..audio_headers_gemoclap import AudioError
from ..command_line.places import refuse_unwritable
from ..command_line.terminal import printable
from .output import prepare_stdout
from .predictions import NONE_OF_THESE, extractor_of
from .recordings import read_input
from .segments import Segment, TimelineOptions
from .streaming.files import Blocks
from .timeline import timeline
from .timeline_files import TimelineFacts, format_of_timeline, render_timeline, write_timeline
from .timeline_picture import Envelope, check_picture, draw_timeline
from .turns import Turn

TABLE = "table"


@dataclass(frozen=True)
class TimelineOutputs:
    """Where a timeline is written, and how.

    Args:
        paths: Files, with a format by their suffix. Without any, the standard output.
        kind: Format of the standard output; None: a table.
        picture: A picture of the segments over the waveform; see `draw_timeline`.
        quiet: Whether to show no progress.

    Raises:
        ValueError: If a format is unknown, or a folder cannot be written.
    """

    paths: Sequence[str] = ()
    kind: str | None = None
    picture: str | None = None
    quiet: bool = False

    def __post_init__(self):
        if self.paths and self.kind is not None:
            raise ValueError("--format is of the standard output: the suffix of --output selects its format")
        for path in self.paths:
            format_of_timeline(path)
            refuse_unwritable({"--output": Path(path).expanduser().parent})
        if self.picture:
            check_picture(self.picture)
            import matplotlib.figure  # noqa: F401  a missing package is reported before the work

            refuse_unwritable({"--picture": Path(self.picture).expanduser().parent})

    @property
    def as_table(self) -> bool:
        """Whether segments are printed as they are found."""
        return not self.paths and self.kind in (None, TABLE)


@dataclass
class TimelineRun:
    """Makes the timeline of a recording.

    Args:
        pipe: The model, from `load_pipeline`.
        model: Its name.
        recording: A path, or `-` for the standard input.
        options: How the timeline is made.
        outputs: Where it is written.

    Attributes:
        segments: The segments.
        seconds: The duration of what was read.
        error: Why the recording was not read to its end; None if it was.
        status: The exit status of the command.
    """

    pipe: object
    model: str
    recording: str
    options: TimelineOptions
    outputs: TimelineOutputs
    segments: list[Segment] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None
    status: int = 0

    def run(self, turns: list[Turn] | None = None) -> None:
        """Make the timeline, and write what was found, also if the recording cannot be read to its end.

        Args:
            turns: Turns of speakers, from `read_rttm`.

        Raises:
            ValueError: If options are invalid.
            OSError: If a file cannot be written.
        """
        rate = extractor_of(self.pipe).sampling_rate
        envelope = Envelope(rate)
        hidden = self.outputs.quiet or not sys.stderr.isatty() or (self.outputs.as_table and sys.stdout.isatty())
        bar = tqdm(unit="s", disable=hidden, dynamic_ncols=True, bar_format="{l_bar}{bar}| {n:.0f} of {total} s")

        def hook(wave: np.ndarray, recording: Blocks) -> None:
            bar.total = recording.seconds and round(recording.seconds)
            self.seconds += len(wave) / rate
            bar.update(len(wave) / rate)
            if self.outputs.picture:
                envelope.add(wave)

        prepare_stdout(self.outputs.kind or TABLE)
        if self.outputs.as_table:
            print(TABLE_HEADER, flush=True)
        found = timeline(self.pipe, read_input(self.recording), self.options, turns, hook)
        try:
            for segment in found:
                self._add(segment)
        except AudioError as error:
            self.error, self.status = str(error), 1
        except KeyboardInterrupt:
            self.error, self.status = f"interrupted at {clock(self.seconds)}: the timeline ends there", 130
        finally:
            bar.close()
        self._write(envelope)

    def _add(self, segment: Segment) -> None:
        self.segments.append(segment)
        if self.outputs.as_table:
            print(table_line(segment), flush=True)

    def _write(self, envelope: Envelope) -> None:
        labels = self.options.of_prediction().labels_of(self.pipe)
        facts = TimelineFacts(self.recording, self.seconds, labels, self.model)
        for path in self.outputs.paths:
            write_timeline(self.segments, Path(path).expanduser(), facts)
        if not self.outputs.paths and not self.outputs.as_table:
            sys.stdout.write(render_timeline(self.segments, facts, self.outputs.kind))
            sys.stdout.flush()
        if self.outputs.picture:
            path = Path(self.outputs.picture).expanduser()
            draw_timeline(self.segments, envelope, path, labels, Path(self.recording).name)

    def summary(self) -> str:
        """What was found, and the error."""
        name, seconds = self.recording, f"{self.seconds:.1f} s"
        if self.segments:
            speech = sum(segment.duration for segment in self.segments)
            count = f"{len(self.segments)} segment{'' if len(self.segments) == 1 else 's'}"
            lines = [f"{count}, {speech:.1f} s of speech in {seconds}"]
            if threshold := self.options.reject_below:
                rejected = sum(segment.rejected for segment in self.segments)
                lines.append(f"{rejected} of them have a score below {threshold:g}: {NONE_OF_THESE}")
        else:
            lines = [] if self.error else [f"{name}: no speech found in {seconds}"]
        written = [*self.outputs.paths, *filter(None, [self.outputs.picture])]
        lines += [f"written: {', '.join(written)}"] if written else []
        return "\n".join([*lines, *filter(None, [self.error])])


TABLE_HEADER = f"{'start':>10}  {'end':>10}  {'label':<12}  score  speaker"


def table_line(segment: Segment) -> str:
    """A segment as a line of a table: start, end, label, score, speaker."""
    times = f"{clock(segment.start):>10}  {clock(segment.end):>10}"
    return (
        f"{times}  {printable(segment.label):<12}  {segment.score:>5.2f}  {printable(segment.speaker or '')}".rstrip()
    )


def live_line(segment: Segment, kind: str) -> str:
    """A segment of live audio as a line: of a table, or JSON for `"jsonl"`."""
    return json.dumps(segment.as_dict()) if kind == "jsonl" else table_line(segment)


def clock(seconds: float) -> str:
    """A time as `h:mm:ss.s`, without hours in the first hour."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{rest}" if hours else rest
