"""Requests that a proxy and the service could read differently, and what answers repeat of a request."""

import asyncio

import pytest
from service_requests import WAV, Client, recording, running

from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.service import errors, server
from modeling_gemoclap.service.app import create_app
from modeling_gemoclap.service.engine import identify

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def app():
    pipe = load_pipeline("compact", "cpu")
    return create_app(pipe, identify(pipe, "compact"))


def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(app, monkeypatch):
    monkeypatch.setattr(errors, "LINGER_SECONDS", 0.05)
    headers = WAV | {"content-length": "5", "transfer-encoding": "chunked"}

    async def ask():
        async with running(app):
            refused = Client(app, [recording()], headers)
            return await refused.post(), refused.sent[0]["headers"]

    (status, answer), sent = asyncio.run(ask())
    assert (status, answer["error"]["code"]) == (400, "malformed_request")
    assert (b"connection", b"close") in sent


def test_idle_connections_are_kept_longer_than_clients_keep_them(app, monkeypatch):
    """A client that sends while its idle connection is being closed has no answer; httpx keeps them for 5 s."""
    seen = []

    class Server:
        def __init__(self, config):
            seen.append(config)

        def run(self, sockets):
            assert sockets == [None]

    monkeypatch.setattr(server.uvicorn, "Server", Server)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    monkeypatch.setattr(server, "_log_errors_only", lambda: None)
    server.run(app, None, 1.0)
    assert seen[0].timeout_keep_alive >= 60 and seen[0].http == "h11"


def test_no_answer_repeats_the_host_of_a_request(app):
    async def ask():
        async with running(app) as client:
            host = {"host": "evil.example"}
            return [await client.get(path, headers=host) for path in ("/health/", "//evil.example/%2f..", "/docs/")]

    for answer in asyncio.run(ask()):
        assert answer.status_code == 404 and "evil.example" not in answer.text + str(answer.headers)


def test_no_path_of_the_server_is_in_an_answer(app):
    async def ask():
        async with running(app) as client:
            bodies = (b"no audio", recording()[:60], b"RIFF\xff\xff\xff\x7fWAVEfmt ")
            return [await client.post("/predict", content=body, headers=WAV) for body in bodies]

    for answer in asyncio.run(ask()):
        assert answer.status_code == 422 and "/" not in answer.json()["error"]["message"].replace("and/or", "")
