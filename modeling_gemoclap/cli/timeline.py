"""Commands for long and live audio: timeline, listen."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..command_line.failures import UsageError, usage_errors
from ..command_line.hints import hint, words_of_model
from ..command_line.terminal import printable_lines
from .common import (
    BatchSize,
    Device,
    Labels,
    Model,
    Quiet,
    RejectBelow,
    Revision,
    Template,
    command,
    show_no_loading,
)

DETECTION = "Speech detection"
OPTIONS = ("threshold", "neg_threshold", "min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms")
OPTIONS += ("window", "step", "hysteresis", "vad", "batch_size", "labels", "reject_below")
NAMES = {name: f"--{name.replace('_', '-')}" for name in OPTIONS}
NAMES |= {"candidate_labels": "--labels", "hypothesis_template": "--template"}


class TimelineFormat(str, Enum):
    """Formats of timelines."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"
    rttm = "rttm"
    srt = "srt"
    textgrid = "textgrid"
    vtt = "vtt"


class LiveFormat(str, Enum):
    """Formats of segments in live audio."""

    table = "table"
    jsonl = "jsonl"


class Detector(str, Enum):
    """What finds speech."""

    auto = "auto"
    silero = "silero"
    level = "level"


Vad = Annotated[Detector, typer.Option(help="Find speech by silero, by level, or by silero where it is installed.")]
Threshold = Annotated[float, typer.Option(help="Probability from which on a frame begins speech.")]
NegThreshold = Annotated[
    float | None, typer.Option(help="Probability below which a frame may end speech; default: --threshold - 0.15.")
]
MinSpeech = Annotated[float, typer.Option(help="Shorter speech is left out, in milliseconds.")]
MinSilence = Annotated[float, typer.Option(help="Silence that ends speech, in milliseconds.")]
Pad = Annotated[float, typer.Option(help="Extension of speech on both sides, in milliseconds.")]
WindowSeconds = Annotated[
    float | None, typer.Option(help="Length of the windows, in seconds; default: that of the training clips.")
]
Step = Annotated[float | None, typer.Option(help="Time between windows, in seconds; default: a quarter of them.")]
Hysteresis = Annotated[float, typer.Option(help="Lead in score that another emotion needs to take over.")]


@command
def timeline(
    recording: Annotated[str, typer.Argument(metavar="FILE", help="A recording, or - for stdin.")],
    model: Model = "base",
    labels: Labels = None,
    template: Template = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output", "-o", help="File (.csv, .json, .jsonl, .rttm, .srt, .TextGrid, .vtt); may be repeated."
        ),
    ] = None,
    format: Annotated[TimelineFormat | None, typer.Option(help="Of the standard output; default: a table.")] = None,
    picture: Annotated[
        str | None, typer.Option(help="Picture of the segments over the waveform (.png, .svg, .pdf).")
    ] = None,
    segments: Annotated[
        str | None, typer.Option(metavar="RTTM", help="Turns of speakers: each becomes one segment.")
    ] = None,
    vad: Vad = Detector.auto,
    threshold: Threshold = 0.5,
    neg_threshold: NegThreshold = None,
    min_speech_duration_ms: MinSpeech = 250,
    min_silence_duration_ms: MinSilence = 500,
    speech_pad_ms: Pad = 100,
    window: WindowSeconds = None,
    step: Step = None,
    hysteresis: Hysteresis = 0.1,
    reject_below: RejectBelow = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    quiet: Quiet = False,
    revision: Revision = None,
) -> int:
    """Find the speech in a long recording, and the emotions in it.

    Segments are printed as they are found. A recording without speech has none; the exit status is then 0.
    """
    given = {name: value for name, value in locals().items() if name in OPTIONS}
    with usage_errors():
        name = _recording(recording, segments, output or [], picture)
    show_no_loading(quiet)
    from ..inference.loading import load_pipeline
    from ..inference.segments import TimelineOptions
    from ..inference.timeline_run import TimelineOutputs, TimelineRun

    with usage_errors(NAMES):
        options = TimelineOptions(templates=template or None, **given | {"vad": vad.value})
        turns = None if segments is None else _turns(segments, name)
        outputs = TimelineOutputs(output or (), format and format.value, picture, quiet)
        run = TimelineRun(load_pipeline(model, device, revision), model, name, options, outputs)
        run.run(turns)
    if not quiet or run.error:
        print(printable_lines(run.summary()), file=sys.stderr)
    again = f"gemoclap timeline {shlex.quote(recording)} --model {words_of_model(model, revision)}"
    next_step = "--output timeline.vtt  (subtitles; .TextGrid for Praat)" if run.segments else "--threshold 0.3"
    hint(f"{again} {next_step}", bool(quiet or output or run.error))
    return run.status


def _recording(recording: str, segments: str | None, outputs: list[str], picture: str | None) -> str:
    """The name of the recording, after a check that it is one and that no output overwrites an input.

    Raises:
        ValueError: If that is not so.
    """
    from ..command_line.places import refuse_same_file
    from ..inference.recordings import find_recordings

    if Path(recording).expanduser().is_dir():
        raise ValueError(f"{recording}: a folder; give one recording, or use gemoclap predict")
    [name] = find_recordings([recording]).names
    files = {f"--output ({number})": path for number, path in enumerate(outputs, start=1)}
    refuse_same_file(files | {"--picture": picture}, {"FILE": name, "--segments": segments})
    return name


def _announced(chunks):
    """The same chunks; a line says when the first has arrived."""
    for number, chunk in enumerate(chunks):
        if number == 0:
            print("Listening; Ctrl-C ends.", file=sys.stderr)
        yield chunk


def _turns(path: str, recording: str):
    """The turns of a diarisation.

    Raises:
        ValueError: If it cannot be read.
    """
    from ..inference.turns import read_rttm

    try:
        return read_rttm(path, None if recording == "-" else recording)
    except OSError as error:
        raise ValueError(f"--segments {path}: {error.strerror}") from None


@command
def listen(
    model: Model = "base",
    labels: Labels = None,
    template: Template = None,
    microphone: Annotated[
        str | None, typer.Option(help="Number or name of an input device; default: that of the system.")
    ] = None,
    raw: Annotated[
        int | None, typer.Option(metavar="RATE", help="Read 16-bit samples of one channel from stdin instead.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this much audio.")] = None,
    list_microphones: Annotated[bool, typer.Option("--list", help="List the input devices.")] = False,
    format: Annotated[LiveFormat, typer.Option(help="Lines of a table, or JSON.")] = LiveFormat.table,
    vad: Vad = Detector.auto,
    threshold: Threshold = 0.5,
    neg_threshold: NegThreshold = None,
    min_speech_duration_ms: MinSpeech = 250,
    min_silence_duration_ms: MinSilence = 500,
    speech_pad_ms: Pad = 100,
    window: WindowSeconds = None,
    step: Step = None,
    hysteresis: Hysteresis = 0.1,
    reject_below: RejectBelow = None,
    device: Device = None,
    quiet: Quiet = False,
    revision: Revision = None,
) -> None:
    """Find emotions in live audio from a microphone, until Ctrl-C. Nothing is recorded.

    A segment is printed when it is certain: after half a second of silence (--min-silence-duration-ms), or about one
    window and one step after the emotion changed.
    """
    given = {name: value for name, value in locals().items() if name in OPTIONS}
    from ..inference.listening import microphones

    if raw is not None and (microphone or list_microphones):
        raise UsageError("--raw reads from stdin: leave out --microphone and --list")
    if list_microphones:
        found = [f"{number}  {name}" for number, name in enumerate(microphones()) if name]
        print("\n".join(found) or "no input devices found: see the sound settings of the system, or use --raw")
        return
    show_no_loading(quiet)
    from ..inference.listening import listen as segments_of
    from ..inference.listening import microphone_chunks, pipe_chunks, until_interrupted
    from ..inference.loading import load_pipeline
    from ..inference.segments import TimelineOptions
    from ..inference.stream import EmotionStream
    from ..inference.timeline_run import live_line

    with usage_errors(NAMES), until_interrupted() as stop:
        options = TimelineOptions(templates=template or None, **given | {"vad": vad.value})
        stream = EmotionStream(load_pipeline(model, device, revision), options)
        if raw is None:
            chunks = microphone_chunks(stop, microphone, seconds)
        else:
            chunks = pipe_chunks(sys.stdin.buffer, raw, stop, seconds)
        if not quiet and raw is None:
            chunks = _announced(chunks)
        for segment in segments_of(stream, chunks):
            print(live_line(segment, format.value), flush=True)
    if not quiet:
        print(f"{stream.position:.1f} s heard, speech found by {stream.detector}", file=sys.stderr)
