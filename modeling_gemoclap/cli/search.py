"""Commands for search: index, search."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from ..command_line.failures import UsageError, usage_errors
from ..command_line.hints import hint
from ..command_line.terminal import printable_lines
from .common import BatchSize, Device, Model, Quiet, Revision, command, show_no_loading
from .recordings import Format

DEFAULT_INDEX = "index.parquet"


@command
def index(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder with audio files, also below it.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="File of the index; run again, the command updates it.")
    ] = DEFAULT_INDEX,
    model: Model = "base",
    batch_size: BatchSize = 16,
    device: Device = None,
    restart: Annotated[bool, typer.Option("--restart", help="Overwrite --output instead of updating it.")] = False,
    quiet: Quiet = False,
    revision: Revision = None,
) -> int:
    """Embed the recordings of a folder into an index for search, or update it.

    Recordings that cannot be used are listed at the end; the exit status is then 1.
    """
    show_no_loading(quiet)
    from ..inference.indexing import IndexOptions, build_index
    from ..inference.loading import load_pipeline

    with usage_errors():
        pipe = load_pipeline(model, device, revision)
    report = build_index(pipe, folder, output, IndexOptions(batch_size, restart, quiet))
    if not quiet or report.errors:
        print(printable_lines(report.summary()), file=sys.stderr)
    has_texts = hasattr(pipe.model, "text_model")
    query = shlex.quote("a sad voice") if has_texts else "--like RECORDING"
    hint(f"gemoclap search {query} --index {shlex.quote(output)}", quiet)
    return 1 if report.errors else 0


@command
def search(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Words, for example 'a woman speaking angrily'.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="A recording to find similar ones of; with TEXT, the mean.")] = None,
    index: Annotated[str, typer.Option("--index", "-i", help="File from gemoclap index.")] = DEFAULT_INDEX,
    top: Annotated[int, typer.Option(min=1, help="Number of recordings to show.")] = 10,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model, if it has moved; default: the one of the index.")
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="Default: by the suffix of --output, otherwise a table.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="File (.csv or .jsonl), overwritten.")] = None,
    device: Device = None,
    quiet: Quiet = False,
    revision: Revision = None,
) -> None:
    """Find recordings of an index by text, by a recording, or by both."""
    if text is None and like is None:
        raise UsageError("no query: give TEXT, --like RECORDING, or both")
    show_no_loading(quiet)
    from ..command_line.places import refuse_missing_device, refuse_same_file
    from ..inference.index import Index
    from ..inference.loading import load_pipeline
    from ..inference.output import format_of
    from ..inference.search import search, write_hits

    with usage_errors():
        refuse_same_file({"--output": output}, {"--index": index, "--like": like})
        kind, indexed = format_of(output, format and format.value), Index(index)
        refuse_missing_device(device)
        header = indexed.header
        try:
            pipe = load_pipeline(model or header.model, device, revision or (None if model else header.revision))
        except ValueError as error:
            if model:
                raise
            problem = f"{index}: its model {header.describe()} cannot be loaded ({error})"
            raise UsageError(f"{problem}; give --model") from error
        write_hits(search(pipe, indexed, text, like, top), kind, output)
    words = shlex.join(["gemoclap", "predict", "RECORDING", "--model", model or header.model])
    hint(f"{words}  (the emotion of a recording)", quiet)
