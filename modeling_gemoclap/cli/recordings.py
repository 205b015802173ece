"""Commands for recordings: predict, embed."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from typing import Annotated

import typer

from ..command_line.failures import usage_errors
from ..command_line.hints import hint, words_of_model
from ..command_line.terminal import printable_lines
from .common import (
    BatchSize,
    Device,
    Labels,
    Model,
    Quiet,
    Recording,
    RejectBelow,
    Revision,
    Template,
    command,
    show_no_loading,
)


class Format(str, Enum):
    """Formats of predictions."""

    table = "table"
    csv = "csv"
    jsonl = "jsonl"


@command
def predict(
    recordings: Recording,
    model: Model = "base",
    labels: Labels = None,
    template: Template = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Default: by the suffix of --output, otherwise a table."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File (.csv or .jsonl); run again, the command continues it."),
    ] = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    gender: Annotated[bool, typer.Option("--gender", help="Predict the gender of the speaker too.")] = False,
    reject_below: RejectBelow = None,
    report: Annotated[
        str | None,
        typer.Option(help="Page (.html) on what the recordings are, compared with the training clips."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Overwrite --output instead of continuing it.")] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the audio encoder first, for thousands of recordings.")
    ] = False,
    quiet: Quiet = False,
    revision: Revision = None,
) -> int:
    """Predict the emotion of recordings.

    Rows are written as they are made. Recordings that cannot be used are listed at the end; the exit status is then 1.
    """
    from ..inference.recordings import find_recordings

    with usage_errors():
        found = find_recordings(recordings)
    show_no_loading(quiet)
    from ..command_line.places import refuse_same_file
    from ..inference.files import FilePredictor, OutputOptions
    from ..inference.loading import load_pipeline
    from ..inference.predictions import PredictionOptions
    from ..inference.processes import SharedPredictor, launched_processes, refuse_unshared
    from ..inference.report import check_report, recording_report

    names = dict.fromkeys(("labels", "candidate_labels"), "--labels") | {"hypothesis_template": "--template"}
    names |= {"reject_below": "--reject-below", "compile needs": "--compile needs"}
    processes = launched_processes()
    quiet = quiet or not processes.is_main
    with usage_errors(names):
        refuse_unshared(processes, found, output, report)
        options = PredictionOptions(labels, template or None, gender, batch_size, reject_below)
        output_options = OutputOptions(output, format and format.value, restart, quiet)
        refuse_same_file({"--output": output, "--report": report}, dict(zip(found.names, found.names, strict=True)))
        if report:
            check_report(report)
        pipe = load_pipeline(model, processes.device(device), revision, compile)
        page = recording_report(report, pipe, options, model, revision) if report else None
        arguments = pipe, found, options, output_options
        shared = processes.count > 1
        predictor = SharedPredictor(processes, *arguments) if shared else FilePredictor(*arguments, page)
    with processes.connected():
        predictor.run()
    if not processes.is_main:
        return 0
    if not quiet or predictor.errors or predictor.rejected:
        print(printable_lines(predictor.summary()), file=sys.stderr)
    if page and not quiet:
        print(printable_lines(page.summary()), file=sys.stderr)
    hint(f"gemoclap info {words_of_model(model, revision)}  (what it was trained on, which words it knows)", quiet)
    return 1 if predictor.errors else 0


@command
def embed(
    recordings: Recording,
    output: Annotated[str, typer.Option("--output", "-o", help="File (.npz) for names and embeddings.")],
    model: Model = "base",
    text: Annotated[list[str] | None, typer.Option(help="Text to embed too; may be repeated.")] = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    quiet: Quiet = False,
    revision: Revision = None,
) -> int:
    """Write embeddings of recordings, and of texts, to a NumPy file.

    It has files, embeddings (recordings, dimensions), errors, and with --text also texts and text_embeddings.
    """
    from ..inference.recordings import find_recordings

    with usage_errors():
        found = find_recordings(recordings)
    show_no_loading(quiet)
    from ..command_line.places import refuse_same_file
    from ..inference.embeddings import check_output, embed_files
    from ..inference.loading import load_pipeline
    from ..inference.processes import launched_processes, refuse_unshared

    processes = launched_processes()
    quiet = quiet or not processes.is_main
    with usage_errors():
        refuse_unshared(processes, found, output, None)
        check_output(output)
        refuse_same_file({"--output": output}, dict(zip(found.names, found.names, strict=True)))
        pipe = load_pipeline(model, processes.device(device), revision)
    with processes.connected():
        summary, errors = embed_files(pipe, found, output, text or [], batch_size, processes)
    if not processes.is_main:
        return 0
    if not quiet or errors:
        print(printable_lines(summary), file=sys.stderr)
    code = f"import numpy; print(numpy.load({output!r})['embeddings'].shape)"
    hint(shlex.join(["python", "-c", code]), quiet)
    return 1 if errors else 0
