"""Command for the HTTP service: serve."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from ..command_line.failures import usage_errors
from .common import BatchSize, Device, Model, Revision, command, show_no_loading


@command
def serve(
    model: Model = "base",
    revision: Revision = None,
    device: Device = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: a free one.")] = 8000,
    batch_size: BatchSize = 16,
    max_batch_delay_ms: Annotated[float, typer.Option(help="Wait of a recording for others, milliseconds.")] = 5.0,
    max_upload_mb: Annotated[float, typer.Option(help="Size of an upload, MB.")] = 128.0,
    max_audio_seconds: Annotated[float, typer.Option(help="Length of a recording of /predict, seconds.")] = 120.0,
    max_timeline_seconds: Annotated[float, typer.Option(help="Length of a recording of /timeline, seconds.")] = 3600.0,
    max_concurrent_requests: Annotated[int, typer.Option(help="Requests with a recording at the same time.")] = 128,
    max_labels: Annotated[int, typer.Option(help="Labels in a request.")] = 50,
    max_templates: Annotated[int, typer.Option(help="Templates in a request.")] = 5,
    upload_timeout: Annotated[float, typer.Option(help="Seconds for an upload, plus 1 for every 16 KiB.")] = 20.0,
    request_timeout: Annotated[float, typer.Option(help="Seconds for a prediction.")] = 60.0,
    timeline_timeout: Annotated[float, typer.Option(help="Seconds for a timeline.")] = 600.0,
    shutdown_timeout: Annotated[float, typer.Option(help="Seconds to finish requests after SIGTERM.")] = 30.0,
) -> None:
    """Serve predictions and timelines over HTTP.

    There is no authentication: keep the address of this machine, or put a proxy in front. /docs has the interface.
    """
    show_no_loading(False)
    from ..service.limits import ServiceLimits

    names = [field.name for field in fields(ServiceLimits)]
    with usage_errors({name: f"--{name.replace('_', '-')}" for name in names}):
        limits = ServiceLimits(
            batch_size=batch_size,
            max_batch_delay_ms=max_batch_delay_ms,
            max_upload_mb=max_upload_mb,
            max_audio_seconds=max_audio_seconds,
            max_timeline_seconds=max_timeline_seconds,
            max_concurrent_requests=max_concurrent_requests,
            max_labels=max_labels,
            max_templates=max_templates,
            upload_timeout=upload_timeout,
            request_timeout=request_timeout,
            timeline_timeout=timeline_timeout,
            shutdown_timeout=shutdown_timeout,
        )
    from ..service.server import address_of, listen, run

    with usage_errors({"port": "--port", "host": "--host"}):
        listener = listen(host, port)
    from ..inference.loading import load_pipeline
    from ..service.app import create_app
    from ..service.engine import identify

    with usage_errors():
        pipe = load_pipeline(model, device, revision)
    app = create_app(pipe, identify(pipe, model, revision), limits)
    print(f"Serving {model} at {address_of(listener)} (/docs: the interface). Stop with Ctrl-C.", flush=True)
    run(app, listener, limits.shutdown_timeout)
