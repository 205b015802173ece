"""The process of the service: its socket, its signals, its end."""

from __future__ import annotations

import errno
import logging
import signal
import socket

import uvicorn
from fastapi import FastAPI

BACKLOG = 2048  # connections that wait to be accepted
KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that none sends while its own is being closed
WARNING_OF_REQUESTS = ("transformers", "python_multipart")  # loggers whose warnings have bytes of clients


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the service, so that a port in use is noticed before the model is loaded.

    Args:
        host: Address or name of an interface of this machine.
        port: The port; 0 selects a free one.

    Raises:
        ValueError: If the port is in use or not allowed, or if the address is not one of this machine.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port {port}: give a number from 0 to {2**16 - 1}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"host {host}: no such address ({error.strerror}); give 127.0.0.1 or 0.0.0.0") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port {port}: in use on {host}; give another one, or 0 for a free one") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"host {host}: not an address of this machine; give 127.0.0.1 or 0.0.0.0") from None
        raise ValueError(f"port {port}: cannot be opened on {host} ({error.strerror}); give another one") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a service for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, listener: socket.socket, shutdown_timeout: float) -> None:
    """Serve until SIGTERM or SIGINT, and then finish the requests that run.

    Args:
        app: The application.
        listener: Its socket, from `listen`.
        shutdown_timeout: Seconds after which the requests that still run are cancelled.
    """
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # uvicorn raises them again at its end, which would kill the process
        signal.signal(number, lambda *_: None)
    _log_errors_only()
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(shutdown_timeout)),
    )
    uvicorn.Server(config).run(sockets=[listener])


def _log_errors_only() -> None:
    """Log no warnings, which have words of clients. The package still emits its own, which are sent to the clients."""
    for name in WARNING_OF_REQUESTS:
        logging.getLogger(name).setLevel(logging.ERROR)
    package, handler = logging.getLogger("modeling_gemoclap"), logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    package.addHandler(handler)
    package.propagate = False
