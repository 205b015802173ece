"""Errors of the service: JSON of one form, also for a body that is not read to its end."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from http import HTTPStatus

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import LINGER_SECONDS

logger = logging.getLogger(__name__)

CODES = {404: "not_found", 405: "method_not_allowed"}
CLIENT_CLOSED = 499  # the status that nginx gives to a request whose client went away


class ServiceError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        code: Name of the error for programs.
        message: What is wrong and what to do.
        **details: Further fields of the error, such as the limit that was exceeded.
    """

    def __init__(self, status: int, code: str, message: str, **details):
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details
        self.headers = {"Retry-After": "1"} if status == 429 else {}


class ClientGone(Exception):
    """The client closed the connection before it had an answer."""


class _LingeringResponse(JSONResponse):
    """An answer to a request whose body is not read to its end.

    The connection is closed after it. The rest of the body is discarded for a moment before: a connection that is
    closed with unread data is reset, and the client might lose the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    """Discard the rest of a body, for `LINGER_SECONDS` at most."""
    end = time.monotonic() + LINGER_SECONDS
    more = True
    while more and (left := end - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:
            return
        more = message["type"] == "http.request" and message.get("more_body", False)


def _has_unread_body(request: Request) -> bool:
    if getattr(request.state, "body_is_read", False):
        return False
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def error_response(request: Request, error: ServiceError) -> Response:
    """The response for an error.

    Args:
        request: The request. `request.state.body_is_read` tells whether its body was read to the end.
        error: The error.

    Returns:
        `{"error": {"code", "message", ...}}` with the status of the error.
    """
    content = {"error": {"code": error.code, "message": error.message, **error.details}}
    kind = _LingeringResponse if _has_unread_body(request) else JSONResponse
    return kind(content, error.status, error.headers)


class UnexpectedErrors:
    """Middleware that answers an unexpected error with an id, and logs its traceback with this id.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            number = uuid.uuid4().hex
            logger.error("unexpected error %s", number, exc_info=error)
            message = "an unexpected error; the log of the service has it under this id"
            failure = ServiceError(500, "internal_error", message, id=number)
            await error_response(Request(scope), failure)(scope, receive, send)


class OneLength:
    """Middleware that refuses a request with two lengths, of which a proxy in front may use the other.

    Its body would end at another place for the proxy, and the rest would be taken for a request of another client.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or refuse the request and close its connection."""
        names = {name for name, _ in scope["headers"]} if scope["type"] == "http" else set()
        if not {b"content-length", b"transfer-encoding"} <= names:
            return await self.app(scope, receive, send)
        message = "the request has both Content-Length and Transfer-Encoding: send one of them"
        error = ServiceError(400, "malformed_request", message)
        await error_response(Request(scope), error)(scope, receive, send)


def _message_of(request: Request, error: HTTPException) -> str:
    """The message of an error that the framework raises, with what to do."""
    text, allowed = str(error.detail), (error.headers or {}).get("Allow")
    if text != HTTPStatus(error.status_code).phrase:
        return text
    if error.status_code == 405 and allowed:
        return f"{request.method} is not possible here: use {allowed}; GET /docs lists the endpoints"
    if error.status_code == 404:
        return "there is no such endpoint: GET /docs lists the endpoints"
    return text


def add_error_handlers(app: FastAPI) -> None:
    """Answer all errors of an application in one form."""

    async def refused(request: Request, error: ServiceError) -> Response:
        return error_response(request, error)

    async def of_http(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "http_error")
        failure = ServiceError(error.status_code, code, _message_of(request, error))
        failure.headers = dict(error.headers or {})
        return error_response(request, failure)

    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=CLIENT_CLOSED)

    app.add_exception_handler(ServiceError, refused)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(ClientGone, gone)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(OneLength)
