"""Raw requests of `security_service.py`, and those that a proxy and a server may read differently."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from service_process import synthetic

HOST = b"Host: service\r\n"
HEALTH = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
CLIP = synthetic(0)


@dataclass(frozen=True)
class Request:
    """What is sent, and what may come back.

    Args:
        content: The bytes.
        statuses: The statuses of the answers that are allowed, for example `("200", "400")`.
        answers: The largest number of answers.
    """

    content: bytes
    statuses: tuple[str, ...] = ("400",)
    answers: int = 1


def post(path: str, *headers: bytes, body: bytes = b"", length: bool = True) -> bytes:
    """A request with a body."""
    lines = [f"POST {path} HTTP/1.1".encode(), HOST[:-2], *headers]
    lines += [f"Content-Length: {len(body)}".encode()] if length else []
    return b"\r\n".join([*lines, b"", body])


def form(*parts: tuple[str, bytes], path: str = "/predict", end: bytes = b"--b--\r\n") -> bytes:
    """A multipart form of parts with their headers."""
    content = b"".join(b"--b\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts)
    return post(path, b"Content-Type: multipart/form-data; boundary=b", body=content + end)


def part(name: str, file: str | None = None) -> str:
    """The header of a part."""
    name, file = (each if each is None else each.replace("\r", " ").replace("\n", " ") for each in (name, file))
    return f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file is not None else "")


def smuggling() -> dict[str, Request]:
    """Requests whose end a proxy and a server may find at different places."""
    both = (b"Transfer-Encoding: chunked", b"Content-Length: %d")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CLIP), CLIP) + SMUGGLED
    chunk = b"0\r\n\r\n" + SMUGGLED
    found = {
        "a length and chunks": Request(post("/health", both[0], both[1] % 5, body=chunk, length=False)),
        "a length and chunks of a recording": Request(
            post("/predict", both[0], both[1] % 5, body=chunks, length=False)
        ),
        "two lengths": Request(post("/health", b"Content-Length: 0", body=SMUGGLED)),
        "two lengths in a list": Request(post("/health", b"Content-Length: 0, 5", body=b"abcde", length=False)),
        "chunks twice": Request(post("/health", both[0], b"Transfer-Encoding: identity", body=chunk, length=False)),
        "an obscured encoding": Request(
            post("/health", b"Transfer-Encoding: xchunked", body=chunk, length=False), ("400", "501")
        ),
        "a space before the colon": Request(post("/health", b"Transfer-Encoding : chunked", body=chunk)),
        "a folded header": Request(post("/health", b"X: a\r\n b: c"), ("400", "405")),
        "a bare line feed": Request(b"GET /health HTTP/1.1\nHost: service\n\n", ("200", "400")),
        "a carriage return in a value": Request(post("/health", b"X: a\rContent-Length: 9")),
        "a zero byte": Request(post("/health", b"X: a\0b")),
        "a wrong size of a chunk": Request(post("/predict", both[0], body=b"xyz\r\nabc\r\n", length=False)),
        "an endless size": Request(post("/predict", both[0], body=b"F" * 40 + b"\r\n", length=False)),
        "a negative size": Request(post("/predict", both[0], body=b"-1\r\n", length=False)),
        "version 9.9": Request(b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n", ("200", "400", "505")),
        "two hosts": Request(b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
        "no host": Request(b"GET /health HTTP/1.1\r\n\r\n"),
        "two requests": Request(HEALTH + HEALTH, ("200",), 2),
    }
    for length in (b"-1", b"+5", b"1_0", b"0x5", b"5 5", b"9" * 40, b"", b"\xb2"):
        found[f"the length {length[:5]!r}"] = Request(
            post("/predict", b"Content-Length: " + length, length=False), ("400", "413")
        )
    return found


def send(address: tuple[str, int], content: bytes) -> bytes:
    """Send bytes and read what comes back until the connection ends, or for three seconds of silence."""
    received = b""
    with socket.create_connection(address, timeout=20) as connection:
        try:
            connection.sendall(content)
            connection.settimeout(20)
            while block := connection.recv(2**16):
                received += block
                connection.settimeout(0.15)
        except (TimeoutError, ConnectionError):
            pass
    return received
