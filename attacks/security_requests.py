"""Raw requests of `security_service.py`: what a proxy and a server may read differently, floods, and wrong types."""

from __future__ import annotations

import gzip
import json
import socket
from dataclasses import dataclass
from urllib.parse import quote

from security_payloads import PAYLOADS
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


def _smuggling() -> dict[str, Request]:
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


def _floods() -> dict[str, Request]:
    many = b"".join(b"X-%d: a\r\n" % number for number in range(10_000))
    parts = [(part(f"labels{number}"), b"x") for number in range(5_000)]
    heads = "\r\n".join(f"X-{number}: a" for number in range(5_000))
    return {
        "10,000 headers": Request(b"GET /health HTTP/1.1\r\n" + HOST + many + b"\r\n", ("200", "400", "431")),
        "a header of 1 MB": Request(post("/health", b"X: " + b"a" * 2**20), ("400", "431")),
        "an address of 1 MB": Request(b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n" + HOST + b"\r\n", ("400", "414")),
        "an address of 40 kB": Request(b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", ("404",)),
        "5,000 parts": Request(form(*parts), ("413", "422")),
        "5,000 headers of a part": Request(form((part("file", "a") + "\r\n" + heads, CLIP)), ("400", "413")),
        "a name of 100 kB": Request(form((part("x" * 100_000, "a"), CLIP)), ("400", "413")),
        "an option of 1 MB": Request(form((part("labels"), b"x" * 2**20)), ("413",)),
        "500 parameters": Request(
            post("/predict?" + "labels=x&" * 500, b"Content-Type: audio/wav", body=CLIP), ("413", "422")
        ),
        "two files": Request(form((part("file", "a"), CLIP), (part("file", "b"), CLIP)), ("422",)),
        "a form without an end": Request(form((part("file", "a"), CLIP), end=b""), ("400",)),
        "a form without a boundary": Request(post("/predict", b"Content-Type: multipart/form-data", body=CLIP)),
        "a long boundary": Request(post("/predict", b"Content-Type: multipart/form-data; boundary=" + b"b" * 9000)),
        "a form in a form": Request(
            form((part("file", "a") + "\r\nContent-Type: multipart/mixed; boundary=c", b"--c")), ("422",)
        ),
        "a compressed recording": Request(
            post("/predict", b"Content-Type: audio/wav", b"Content-Encoding: gzip", body=gzip.compress(CLIP)), ("422",)
        ),
        "a body of zeros": Request(post("/predict", b"Content-Type: audio/wav", body=bytes(10**6)), ("422",)),
    }


def _places() -> dict[str, Request]:
    found = {}
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/docs/..%2f..",
        "/openapi.json%00",
        "/\\x",
        "/static/../app.py",
        "/file=/etc/passwd",
        "/health/",
        "/predict/",
        "//host.example/%2f..",
    ):
        found[f"GET {path}"] = Request(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode(), ("404", "400"))
    for method in ("PUT", "DELETE", "TRACE", "PATCH", "HEAD", "X" * 1000):
        found[f"{method:.10} /predict"] = Request(
            f"{method} /predict HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode(), ("405", "400")
        )
    asks = b"Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    found["a question of another origin"] = Request(b"OPTIONS /predict HTTP/1.1\r\n" + HOST + asks, ("405",))
    found["an answer to another origin"] = Request(b"GET /health HTTP/1.1\r\n" + HOST + asks, ("200",))
    return found


def _types() -> dict[str, Request]:
    values = {
        "top_k": ("abc", "-1", "0", "9" * 5000, "1e3", "NaN"),
        "gender": ("maybe", "2"),
        "reject_below": ("nan", "inf", "-1"),
    }
    values |= {"labels": ("x", "a,a", "{},x", "x" * 201 + ",y", ",".join(map(str, range(60)))), "nothing": ("1",)}
    values |= {"template": ("none", "{}{}{x}" + "y" * 300), "threshold": ("1",)}
    found = {
        f"{name}={value:.12}": Request(
            post(f"/predict?{name}={quote(value)}", b"Content-Type: audio/wav", body=CLIP), ("422",)
        )
        for name, texts in values.items()
        for value in texts
    }
    for value in ("nan", "inf", "-inf", "1e308", "-1", "x", "0"):
        found[f"window={value}"] = Request(
            post(f"/timeline?window={value}", b"Content-Type: audio/wav", body=CLIP), ("422",)
        )
    for kind in (b"application/json", b"application/x-www-form-urlencoded", b"text/html; charset=\xff"):
        found[f"a body of {kind[:20]!r}"] = Request(
            post("/predict", b"Content-Type: " + kind, body=json.dumps({"a": 1}).encode()), ("415", "422", "400")
        )
    for text in PAYLOADS:
        found[f"a file called {text!r}"] = Request(
            form((part("file", text.replace('"', "%22")), b"no audio")), ("422",)
        )
        found[f"a label {text!r}"] = Request(
            form((part("labels"), f"{text},y".encode()), (part("file", "a"), CLIP)), ("200", "422")
        )
    return found


KINDS = {
    "a request that servers read differently": _smuggling,
    "a flood of headers, parts or bytes": _floods,
    "a path, a method or an origin that is not served": _places,
    "an option, a type or a name that is wrong": _types,
}


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
