"""What the tests of the HTTP surface share: a connection on which anything can be sent."""

import contextlib
import socket

import httpx

from benchmarks.servers import PATIENCE, RunningServer


def connect(server: RunningServer) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 80), timeout=PATIENCE)


def head(*headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST /v1/solve HTTP/{version}", "host: localhost", *headers, "", ""]).encode()


def post(body: bytes, *headers: str, length: int | None = None, version: str = "1.1") -> bytes:
    """A whole request. `length`: what it says of its body, if that is not true."""
    announced = f"content-length: {len(body) if length is None else length}"
    return head("content-type: application/json", announced, *headers, version=version) + body


def rest(connection: socket.socket) -> str:
    """What still comes, until the server closes the connection or cuts it off."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received += piece
    return received.decode()
