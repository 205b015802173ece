"""The application: `POST /predict`, `POST /timeline`, `GET /health` and the pages on the interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError

from ..version import __version__
from .engine import Engine, ModelIdentity, Pipe
from .errors import ClientGone, ServiceError, add_error_handlers
from .limits import MAX_TEXT, MIN_UPLOAD_RATE, ServiceLimits
from .page import CONTENT_SECURITY_POLICY, render_page
from .schemas import (
    ErrorResponse,
    HealthResponse,
    Limits,
    PredictParameters,
    PredictResponse,
    Queue,
    TimelineParameters,
    TimelineResponse,
)
from .uploads import FORM, Upload, receive

DESCRIPTION = (
    "Speech emotion recognition. Send a recording as a multipart form with one file, or as the body of the request; "
    "options are fields of the form or parameters of the query. Recordings are deleted when the request ends."
)
REASONS = {
    400: "The request or its multipart form is malformed.",
    408: "The upload is too slow.",
    413: "The upload, the recording or the options are too large.",
    415: "The body is neither a form nor a recording.",
    422: "The options are invalid, or the recording cannot be used.",
    429: "Too many requests at the same time; Retry-After tells when to try again.",
    500: "An unexpected error; the log of the service has it under the id.",
    501: "A part that the request needs is not installed.",
    504: "The request took too long.",
}
Parameters = TypeVar("Parameters", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel)


def create_app(pipe: Pipe, identity: ModelIdentity, limits: ServiceLimits | None = None) -> FastAPI:
    """Create the application of the service.

    Args:
        pipe: The model, from `load_pipeline`.
        identity: Which model it is, from `identify`.
        limits: The limits; None: the defaults.

    Returns:
        An application of FastAPI, with the `Engine` as `state.engine`. It sends no CORS headers, so that pages of
        other origins cannot read its answers.
    """
    limits = limits or ServiceLimits()
    engine = Engine(pipe, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        try:
            yield
        finally:
            await engine.stop()

    app = FastAPI(
        title="GEmo-CLAP",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the client's Host
        lifespan=lifespan,
        responses={500: {"model": ErrorResponse, "description": REASONS[500]}},
    )
    app.state.engine = engine
    add_error_handlers(app)
    _add_recordings(app, engine)
    _add_health(app, engine, identity)
    return app


def _add_recordings(app: FastAPI, engine: Engine) -> None:
    limits = engine.limits
    responses = {code: {"model": ErrorResponse, "description": text} for code, text in REASONS.items()}

    @app.post("/predict", responses=responses, openapi_extra=_request_of(PredictParameters))
    async def predict(request: Request) -> PredictResponse:
        """Predict the emotion of a recording. Concurrent requests with equal options share batches."""
        return await _answer(engine, request, PredictParameters, engine.predict, limits.request_timeout)

    @app.post("/timeline", responses=responses, openapi_extra=_request_of(TimelineParameters))
    async def timeline(request: Request) -> TimelineResponse:
        """Find the speech in a recording, and the emotion of its segments."""
        return await _answer(engine, request, TimelineParameters, engine.timeline, limits.timeline_timeout)


def _add_health(app: FastAPI, engine: Engine, identity: ModelIdentity) -> None:
    @app.get("/health")
    async def health() -> HealthResponse:
        """Tell the model, the limits and the length of the queue."""
        batcher = engine.batcher
        return HealthResponse(
            status="ok",
            model=identity.name,
            revision=identity.revision,
            weights_sha256=identity.weights_sha256,
            version=__version__,
            device=str(engine.pipe.model.device),
            labels=engine.pipe.model.config.emotions,
            queue=Queue(
                requests=engine.requests, waiting=len(batcher), batches=batcher.batches, recordings=batcher.clips
            ),
            limits=_public(engine.limits),
        )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return HTMLResponse(render_page(app.openapi()), headers=headers)


def _public(limits: ServiceLimits) -> Limits:
    values = {name: getattr(limits, name) for name in Limits.model_fields if hasattr(limits, name)}
    return Limits(**values, max_text_characters=MAX_TEXT, min_upload_rate=MIN_UPLOAD_RATE)


async def _answer(
    engine: Engine,
    request: Request,
    kind: type[Parameters],
    compute: Callable[[Upload, Parameters], Awaitable[Answer]],
    timeout: float,
) -> Answer:
    """Receive a recording and compute its answer, as long as the client is there."""
    with engine.admit():
        async with receive(request, engine.limits, engine.folder) as upload:
            parameters = parse_options(kind, upload.options)
            return await _while_connected(request, compute(upload, parameters), timeout)


async def _while_connected(request: Request, work: Awaitable[Answer], timeout: float) -> Answer:
    """The result of some work, which is cancelled if the client goes away or the time is over.

    Raises:
        ServiceError: 504 if the work takes too long.
        ClientGone: If the client closes the connection.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnection(request))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if gone in done:
            raise ClientGone
        message = f"the request took more than {timeout:g} s: try again later, or send a shorter recording"
        raise ServiceError(504, "timeout", message, limit=timeout)
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def parse_options(kind: type[Parameters], options: list[tuple[str, str]]) -> Parameters:
    """Convert the options of a request.

    Args:
        kind: The model of the parameters.
        options: Names and values. `labels` may have several words, separated by commas.

    Raises:
        ServiceError: 422 if an option is unknown, given twice or invalid.
    """
    values: dict[str, str | list[str]] = {}
    for name, value in options:
        if name not in kind.model_fields:
            message = f"{name[:50]!r} is not an option: choose from {', '.join(kind.model_fields)}"
            raise ServiceError(422, "invalid_options", message)
        if name == "labels":
            values.setdefault(name, []).extend(word for word in value.split(",") if word.strip())
        elif name == "template":
            values.setdefault(name, []).append(value)
        elif name in values:
            raise ServiceError(422, "invalid_options", f"{name} is given twice: give it once")
        else:
            values[name] = value
    try:
        return kind(**values)
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ServiceError(422, "invalid_options", "; ".join(reasons)) from None


def _request_of(kind: type[BaseModel]) -> dict:
    """The OpenAPI schema of a request: options in the query, and a form or the file itself as the body."""
    fields = kind.model_json_schema()["properties"]
    query = [
        {"name": name, "in": "query", "schema": schema, "description": schema.get("description", "")}
        for name, schema in fields.items()
    ]
    file = {"type": "string", "format": "binary", "description": "The recording."}
    form = {"type": "object", "required": ["file"], "properties": {"file": file, **fields}}
    content = {FORM: {"schema": form}} | {kind: {"schema": file} for kind in ("audio/*", "application/octet-stream")}
    return {"parameters": query, "requestBody": {"required": True, "content": content}}
