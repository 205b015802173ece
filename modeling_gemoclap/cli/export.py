"""The command export, which writes a model to an ONNX file."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ..command_line.failures import usage_errors
from ..command_line.hints import hint
from .common import Checkpoint, Labels, Quiet, Revision, Template, command, show_no_loading


class Precision(str, Enum):
    """Precisions of a quantised model."""

    int8 = "int8"


@command
def export(
    model: Checkpoint = "base",
    output: Annotated[
        str, typer.Option("--output", "-o", help="File (.onnx); a .json with the labels is written beside it.")
    ] = "emotions.onnx",
    labels: Labels = None,
    template: Template = None,
    quantize: Annotated[
        Precision | None,
        typer.Option(help="Linear layers in 8 bits: smaller, and faster for large models; default: float32."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Overwrite --output even if it is no earlier export.")
    ] = False,
    quiet: Quiet = False,
    revision: Revision = None,
) -> None:
    """Write a model to an ONNX file, from waveforms to scores, which runs without torch."""
    show_no_loading(quiet)
    from pathlib import Path

    from ..inference.export import ExportOptions, check_output, export_onnx, exported_name
    from ..inference.information import licence_of
    from ..inference.loading import load_pipeline

    names = dict.fromkeys(("labels", "candidate_labels"), "--labels") | {"hypothesis_template": "--template"}
    with usage_errors(names):
        path = Path(output).expanduser()
        check_output(path, restart)
        pipe = load_pipeline(model, "cpu", revision)
        origin = exported_name(model), licence_of(model, revision)
        options = ExportOptions(labels, template or None, quantize and quantize.value, restart, *origin)
        content = export_onnx(pipe, path, options)
    if not quiet:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {', '.join(content['labels'])}")
    hint(f"python web/build.py {output}  (a web page; docs/export.md has a program that runs the file)", quiet)
