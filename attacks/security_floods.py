"""Requests of `security_service.py` that are well formed: floods, places that are not served, and wrong types."""

from __future__ import annotations

import gzip
import json
from urllib.parse import quote

from security_payloads import PAYLOADS
from security_requests import CLIP, HOST, Request, form, part, post, smuggling


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
    "a request that servers read differently": smuggling,
    "a flood of headers, parts or bytes": _floods,
    "a path, a method or an origin that is not served": _places,
    "an option, a type or a name that is wrong": _types,
}
