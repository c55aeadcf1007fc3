"""HTTP/1.1 connections: uvicorn's, with limits on slow or endless requests, large heads and slow readers.

Also answered are HTTP/1.0 clients, clients that send something wrong after a request, and those that close their own side
of the connection as soon as they have sent it.
"""

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gram.server.api.headers import SECURITY
from gram.server.api.problems import MEDIA_TYPE, ProblemError

MAX_HEAD_BYTES = 16_384
"""The largest head of a request. A head of up to twice this size may pass: it is judged when this much has arrived."""

IDLE_SECONDS = 75
"""How long a connection may stay idle between two requests: longer than the 60 s of most proxies, which must close it first."""

_LEAST_READ = 32_768
"""Bytes of a waiting answer that a client must read within its time limit."""

_SEND_BUFFER = 131_072
"""Bytes that the kernel buffers for a client (it counts them double). By default it buffers megabytes."""

_LAST_CHANCE_SECONDS = 0.1
"""After a time limit, what has arrived by then is still read: this process may have been too busy to look."""

_CUT_SHORT = "the connection was closed before the request was whole; send all of it"
_HUNG_UP = (
    "the client's side of the connection was closed before the answer, so the request was cancelled as one whose client has "
    "left; keep both sides open until the answer has come, or use HTTP/1.1"
)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""An interim answer, which every HTTP/1.1 client skips: whoever has closed both sides refuses it, so the connection breaks."""

_PROBE_SECONDS, _LAST_PROBE_SECONDS = 0.05, 5.0
"""Between two interim answers to a client that sends no more: at first, and after pauses that double."""


class Protocol(HttpToolsProtocol):
    """A connection whose client has `client_seconds` to send a whole request, and to read each part of the answer.

    Between two requests it may stay idle for IDLE_SECONDS.

    uvicorn closes idle connections, but waits without limit for the rest of a request, or for a reader. Of several requests
    that were sent ahead, it tells only the last one that the client has left.
    """

    def __init__(
        self, *args: Any, client_seconds: float, max_request_bytes: int, larger: Mapping[str, int], **kwargs: Any
    ) -> None:
        """`larger`: paths with a limit of their own to the bytes of a request."""
        super().__init__(*args, **kwargs)
        self._client_seconds = client_seconds
        self._max_request_bytes = max_request_bytes
        self._larger = larger
        self._arrival: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._in_head = True
        self._begun = self._idle = self._half_closed = False
        self._request_bytes = 0
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._refusal: tuple[int, str] | None = None
        self._app, self.app = self.app, self._serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._await_request(self._client_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._arrival, self._reading):
            if timer:
                timer.cancel()
        self._cancel_requests()
        super().connection_lost(exc)
        self.app = self._app  # not a method of this object, which would keep itself alive

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio allows
        """The client sends no more. Whether it has left, or still listens, TCP tells only by what happens to an answer.

        What is answered without waiting is answered first.
        """
        if self.transport.get_extra_info("sslcontext"):
            return False  # TLS closes both sides
        self.loop.call_soon(self._judge_half_closed, _PROBE_SECONDS)
        return True

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._await_request(self._client_seconds)
        # In pieces, so that a head is judged by its length, however the network cut it.
        for start in range(0, len(data), MAX_HEAD_BYTES):
            piece = data[start : start + MAX_HEAD_BYTES]
            self._request_bytes += len(piece)
            if not self._refusal:
                super().data_received(piece)
            if self._in_head and self._request_bytes > MAX_HEAD_BYTES and not self._refusal:
                self._refuse(
                    431, f"the head of the request has more than {MAX_HEAD_BYTES} bytes; send fewer or shorter headers"
                )
            elif self._request_bytes > self._most_bytes():
                self.transport.abort()  # it has been answered already, with 413 or without reading the body
            if self.transport.is_closing():
                return

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        self._begun, self._in_head, self._request_bytes = False, True, 0
        if self._arrival and not self.cycle.response_complete:
            self._arrival.cancel()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        if self._refusal and not self._unanswered:
            self._send_refusal(*self._refusal)
        elif self._half_closed and not self._unanswered:
            self.transport.close()
        elif self.cycle.response_complete or self.cycle.more_body:  # otherwise the next request has already arrived
            self._idle = not self._begun
            self._await_request(IDLE_SECONDS if self._idle else self._client_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        if self._reading:
            self._reading.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, f"not HTTP/1.1: {msg}")

    def _most_bytes(self) -> int:
        """The limit of the request that arrives."""
        return self._max_request_bytes if self._in_head else self._larger.get(self.scope["path"], self._max_request_bytes)

    def _await_request(self, seconds: float) -> None:
        if self._arrival:
            self._arrival.cancel()
        self._arrival = self.loop.call_later(seconds, self._last_chance)

    def _last_chance(self) -> None:
        self._arrival = self.loop.call_later(_LAST_CHANCE_SECONDS, self._give_up_request)

    def _give_up_request(self) -> None:
        if self._begun or self._request_bytes:
            self._refuse(408, f"the request did not arrive whole within {self._client_seconds:g} s; send it faster")
        else:
            self.transport.abort()

    def _await_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self._client_seconds, self._last_look, waiting)

    def _last_look(self, waiting: int) -> None:
        self._reading = self.loop.call_later(_LAST_CHANCE_SECONDS, self._judge_reader, waiting)

    def _judge_reader(self, waiting: int) -> None:
        if waiting - self.transport.get_write_buffer_size() < _LEAST_READ:
            self.transport.abort()  # to the request, this is a client that left
        else:
            self._await_reader()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. An HTTP/1.0 client knows no chunks: to it, an answer of unknown length ends with the connection."""
        cycle = self._unanswered[0]
        if scope["http_version"] != "1.0":
            await self._app(scope, receive, send)
            return
        cycle.waiting_for_100_continue = False  # nor does it know this

        async def unchunked(message: Message) -> None:
            if message["type"] == "http.response.body":
                cycle.expected_content_length = sys.maxsize if message.get("more_body") else len(message.get("body", b""))
            elif not any(name == b"content-length" for name, _ in message["headers"]):
                cycle.chunked_encoding = False
            await send(message)

        await self._app(scope, receive, unchunked)

    def _cancel_requests(self) -> None:
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _judge_half_closed(self, pause: float) -> None:
        """Keep the connection of a client that sends no more while it may wait for an answer, and find out whether it does.

        An interim answer finds out, where HTTP allows one. A stream finds out by its own events. Who sends no more in the
        middle of an answer has left.
        """
        if self.transport.is_closing():
            return
        first = self._unanswered[0] if self._unanswered else None
        whole = first is not None and not first.more_body and first.scope["http_version"] != "1.0"
        if first is None or not whole or (first.response_started and not self._half_closed):
            self._hang_up()
            return
        self._half_closed = True
        if not first.response_started:
            self.transport.write(_CONTINUE)
        self.loop.call_later(pause, self._judge_half_closed, min(2 * pause, _LAST_PROBE_SECONDS))

    def _hang_up(self) -> None:
        self._cancel_requests()
        if self._unanswered:
            first = self._unanswered[0]
            if not first.response_started:
                self._send_refusal(400, _CUT_SHORT if first.more_body else _HUNG_UP)
        elif self._begun and self._in_head:
            self._send_refusal(400, _CUT_SHORT)
        self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Refuse what is arriving, and close the connection, after the answers to earlier requests.

        If its own answer has begun, just cut it off.
        """
        own = None if self._in_head else self.cycle
        if own and own.response_started:
            self.transport.abort()
        elif self._unanswered and self._unanswered[0] is not own:
            self._refusal = status, detail
            if own:
                self.pipeline.popleft()
                self._unanswered.pop()
        else:
            self._send_refusal(status, detail)

    def _send_refusal(self, status: int, detail: str) -> None:
        if self.transport.is_closing():
            return
        problem = ProblemError(status, detail).problem.model_copy(update={"request_id": None})  # it has no line in the log
        body = problem.model_dump_json().encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *SECURITY,
        ]
        self.transport.write(b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers), b"\r\n", body]))
        self.transport.close()
