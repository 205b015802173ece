"""Uploads: the file of a request, streamed to a temporary file, and its options."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from ..prompts_gemoclap import CONTROL
from .errors import ClientGone, ServiceError
from .limits import MAX_FIELD_BYTES, MAX_FIELDS, MIN_UPLOAD_RATE, ServiceLimits

NAMELESS = "recording"
MAX_NAME = 120  # characters of a file name in answers
BUFFER_BYTES = 2**20  # written to the disk at a time
FORM = "multipart/form-data"
NOT_AUDIO = ("application/x-www-form-urlencoded", "application/json")
HOW_TO_SEND = "send a multipart form with one file, or the file itself with 'Content-Type: audio/wav' or similar"


@dataclass
class Upload:
    """A request whose body has arrived.

    Args:
        path: The temporary file. Its name has nothing of the client's.
        name: The client's name of the file, for answers only.
        options: Names and values of the options, from the query and the form.
    """

    path: Path
    name: str = NAMELESS
    options: list[tuple[str, str]] = field(default_factory=list)


def display_name(name: str) -> str:
    """The client's name of a file without folders and control characters, and not too long."""
    name = re.split(r"[/\\]", name)[-1]
    name = CONTROL.sub("", name).strip()
    return name[-MAX_NAME:] or NAMELESS


async def _body(request: Request, limits: ServiceLimits) -> AsyncIterator[bytes]:
    """The chunks of a body, within its limits of size and time.

    Raises:
        ServiceError: 413 for a body that is too large, 408 for one that is too slow.
        ClientGone: If the client closes the connection.
    """
    largest = limits.max_upload_bytes
    too_large = ServiceError(
        413, "upload_too_large", f"the upload is larger than {largest:,} bytes: send a shorter file", limit=largest
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > largest:
        raise too_large
    received, start, chunks = 0, time.monotonic(), request.stream()
    while True:
        left = start + limits.upload_timeout + received / MIN_UPLOAD_RATE - time.monotonic()
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), max(left, 0))
        except asyncio.TimeoutError:
            message = f"the upload is slower than {MIN_UPLOAD_RATE:,} bytes per second: send it faster"
            raise ServiceError(408, "upload_too_slow", message, limit=limits.upload_timeout) from None
        except ClientDisconnect:
            raise ClientGone from None
        if chunk is None:
            break
        received += len(chunk)
        if received > largest:
            raise too_large
        yield chunk
    request.state.body_is_read = True


class _File:
    """A file that is written in large pieces, in another thread than that of the requests."""

    def __init__(self, file: BinaryIO):
        self.file, self.buffer, self.size = file, bytearray(), 0

    async def flush(self, at_least: int = 0) -> None:
        """Write the buffer if it has so many bytes."""
        if len(self.buffer) > at_least:
            data, self.buffer = self.buffer, bytearray()
            self.size += len(data)
            await asyncio.to_thread(self.file.write, data)


class _Form:
    """The parts of a multipart form: one file, which goes to a buffer, and options."""

    def __init__(self, boundary: bytes, file: _File):
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
        names += ("headers_finished", "end")
        self.parser = MultipartParser(boundary, {f"on_{name}": getattr(self, f"_{name}") for name in names})
        self.file, self.options, self.file_name, self.complete = file, [], None, False
        self.size = 0

    def write(self, data: bytes) -> None:
        self.parser.write(data)

    def _part_begin(self) -> None:
        self.header, self.value, self.headers = b"", b"", {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.value += data[start:end]

    def _header_end(self) -> None:
        self.headers[self.header.lower()] = self.value
        self.header, self.value = b"", b""

    def _headers_finished(self) -> None:
        _, values = parse_options_header(self.headers.get(b"content-disposition"))
        if b"name" not in values:
            raise FormParserError("a part has no name")
        kind = self.headers.get(b"content-type", b"text/plain")
        self.is_file, self.content = b"filename" in values or not kind.startswith(b"text/plain"), bytearray()
        self.name = _text(values[b"name"], "the name of a field")
        if self.is_file:
            if self.file_name is not None:
                raise ServiceError(422, "several_files", "the form has several files: send one file in a request")
            self.file_name = display_name(values.get(b"filename", b"").decode(errors="replace"))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file:
            self.file.buffer += memoryview(data)[start:end]
        else:
            self._count(end - start)
            self.content += data[start:end]

    def _part_end(self) -> None:
        if not self.is_file:
            self.options.append((self.name, _text(self.content, self.name)))

    def _end(self) -> None:
        self.complete = True

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > MAX_FIELD_BYTES or len(self.options) > MAX_FIELDS:
            message = (
                f"the options and the headers of the form have more than {MAX_FIELD_BYTES:,} bytes, or there are "
            )
            message += f"more than {MAX_FIELDS} options: shorten them"
            raise ServiceError(413, "options_too_large", message)


def _text(data: bytes, name: str) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise ServiceError(422, "invalid_options", f"{name}: not UTF-8: send text in UTF-8") from None


def _form_of(request: Request, file: _File) -> _Form | None:
    """The form of a request; None for a body that is the file itself.

    Raises:
        ServiceError: 415 for a body of another type, 400 for a form without a boundary.
    """
    kind, values = parse_options_header(request.headers.get("content-type"))
    kind = kind.decode("latin-1").lower()
    if kind in NOT_AUDIO:
        raise ServiceError(415, "unsupported_media_type", f"{kind} is not a recording: {HOW_TO_SEND}")
    if kind != FORM:
        return None
    try:
        return _Form(values[b"boundary"], file)
    except (KeyError, FormParserError):
        raise _malformed("it has no valid boundary") from None


def _malformed(reason: str) -> ServiceError:
    return ServiceError(400, "malformed_form", f"the multipart form cannot be read ({reason}): send it again")


async def _receive(request: Request, limits: ServiceLimits, file: _File, upload: Upload) -> None:
    form = _form_of(request, file)
    try:
        async for chunk in _body(request, limits):
            if form:
                form.write(chunk)
            else:
                file.buffer += chunk
            await file.flush(BUFFER_BYTES)
    except FormParserError as error:
        raise _malformed(str(error)[:200]) from None
    await file.flush()
    if form is None and not file.size:
        raise ServiceError(422, "no_file", f"the request has no body, or an empty one: {HOW_TO_SEND}")
    if form:
        if not form.complete:
            raise _malformed("it ends early")
        if form.file_name is None:
            raise ServiceError(422, "no_file", f"the form has no file: {HOW_TO_SEND}")
        upload.name = form.file_name
        upload.options += form.options


@asynccontextmanager
async def receive(request: Request, limits: ServiceLimits, folder: Path) -> AsyncIterator[Upload]:
    """Receive the body of a request into a file, which is deleted at the end.

    Args:
        request: The request. Its body is a multipart form with one file and options, or the file itself.
        limits: Limits of size and time.
        folder: Folder for the file.

    Yields:
        The upload.

    Raises:
        ServiceError: If the body is too large (413), too slow (408), of another type (415), malformed (400), or has
            no file or several (422).
        ClientGone: If the client closes the connection.
    """
    upload = Upload(folder / uuid.uuid4().hex, options=list(request.query_params.multi_items()))
    try:
        with open(upload.path, "xb") as file:
            await _receive(request, limits, _File(file), upload)
        yield upload
    finally:
        upload.path.unlink(missing_ok=True)
