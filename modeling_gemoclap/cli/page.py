"""Command for the web page: page."""

from __future__ import annotations

from typing import Annotated

import typer

from ..command_line.failures import usage_errors
from .common import Device, Revision, command


@command
def page(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="base or compact (included), a folder, or a name on the Hub; default: GEMOCLAP_MODEL, else base.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: GRADIO_SERVER_NAME, else 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the first free port from 7860.")] = None,
    device: Device = None,
    kept_minutes: Annotated[float, typer.Option(help="Age at which recordings are deleted.")] = 10,
    index: Annotated[str | None, typer.Option(help="File of gemoclap index: a tab searches its recordings.")] = None,
    revision: Revision = None,
) -> None:
    """Serve a web page that analyses single recordings, with a timeline."""
    from ..page.app import PageOptions, serve_page

    with usage_errors({"kept_minutes": "--kept-minutes"}):
        serve_page(PageOptions(model, device, revision, host, port, kept_minutes, index))
