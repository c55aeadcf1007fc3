"""Request bodies: decompressed, and refused if they are too large."""

import zlib
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gram.server.api.problems import ProblemError, respond

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What zlib calls the codings that a body may have."""


class ReadBody:
    """Decompresses bodies, and refuses those over a limit: by their announced length, or while they arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int]) -> None:
        """`larger`: paths with a limit of their own."""
        self.app = app
        self._max_bytes = max_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        max_bytes = self._larger.get(scope["path"], self._max_bytes)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > max_bytes:
            problem = ProblemError(413, f"has {int(length)} bytes; send {max_bytes} at most", "body").problem
            await respond(scope, problem)(scope, receive, send)
            return
        body = _Body(",".join(headers.getlist("content-encoding")), max_bytes)

        async def read() -> Message:
            body.check_coding()
            message = await receive()
            if message["type"] == "http.request":
                plain = body.read(message.get("body", b""), last=not message.get("more_body", False))
                message = {**message, "body": plain}
            return message

        await self.app(scope, read, send)


class _Body:
    """A body as it arrives. Raises HTTPException if it can't be taken; FastAPI hides any other error of its reading."""

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        self._content_encoding = content_encoding
        self._coding = ",".join(
            c for part in content_encoding.split(",") if (c := part.strip().lower()) not in ("", "identity")
        )
        self._max_bytes = max_bytes
        self._arrived = self._length = 0
        self._stream: zlib._Decompress | None = None

    def check_coding(self) -> None:
        if self._coding and self._coding not in _WINDOW_BITS:
            accepted = "'content-encoding: gzip' or 'content-encoding: deflate', or uncompressed without such a header"
            detail = f"send the body with {accepted}; this one had: {self._content_encoding[:100]}"
            raise HTTPException(415, detail, {"accept-encoding": "gzip, deflate, identity"})

    def read(self, data: bytes, *, last: bool) -> bytes:
        """The next part, decompressed."""
        plain = self._decompressed(data) if self._coding else data
        self._arrived += len(data)
        self._length += len(plain)
        if max(self._arrived, self._length) > self._max_bytes:
            raise HTTPException(413, f"the body has more than {self._max_bytes} bytes; send a smaller one")
        if last and self._stream and not self._stream.eof:
            raise self._broken("it is cut short")
        return plain

    def _decompressed(self, data: bytes) -> bytes:
        """Decompress up to one byte more than the limit allows. As in a file, gzip may follow gzip."""
        plain = b""
        while data and (room := self._max_bytes + 1 - self._length - len(plain)) > 0:
            if self._stream is None or self._stream.eof:
                self._stream = zlib.decompressobj(_WINDOW_BITS[self._coding])
            try:
                plain += self._stream.decompress(data, room)
            except zlib.error as error:
                plainly = not self._arrived and data.lstrip().startswith(b"{")
                raise self._broken("it is not compressed; leave the header out" if plainly else str(error)) from error
            data = self._stream.unconsumed_tail or self._stream.unused_data
        return plain

    def _broken(self, reason: str) -> HTTPException:
        return HTTPException(400, f"the body is not the {self._coding} that its content-encoding names: {reason}")
