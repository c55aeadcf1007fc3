"""What surrounds every request: its id, its log line, its metrics and its trace."""

import logging
import re
import secrets
import time

from opentelemetry import context, propagate, trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gram.server import logs
from gram.server.metrics import Metrics

REQUEST_ID = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
QUIET = frozenset({"/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Paths that machines poll every few seconds. They are left out of the log, the traces and the error count."""

log = logging.getLogger("gram")
_tracer = trace.get_tracer("gram")


class Observe:
    """Middleware outside of the application, so that it sees every answer, also those of internal errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.monotonic()
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request = logs.RequestLog(given if _SANE_ID.fullmatch(given) else secrets.token_hex(16))
        logs.begin(request)
        # The caller's trace, in an empty context: the connection's previous request must not leak into this one.
        context.attach(propagate.extract(headers, context.Context()))
        request.trace_id = _trace_id()
        status = 499  # until there is an answer: the client left

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request.request_id
                request.trace_id = _trace_id()  # of the span that FastAPI has opened, if traces are on
            await send(message)

        try:
            await self.app(scope, receive, answered)
        finally:
            self._record(request, scope, status, time.monotonic() - begin)

    def _record(self, request: logs.RequestLog, scope: Scope, status: int, seconds: float) -> None:
        # The route's template, not the requested path, so that the labels stay few.
        path = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(path, status).inc()
        self.metrics.latency.labels(path).observe(seconds)
        if path in QUIET:
            return
        if request.error:
            self.metrics.errors.labels(request.error).inc()
        method = scope["method"]
        fields = {"method": method, "path": path, "status": status, "seconds": round(seconds, 6), **request.fields()}
        level = logging.INFO if status < 500 else logging.WARNING
        log.log(level, "%s %s %d", method, path, status, extra={"fields": fields})


def phases(begin: float, queue_seconds: float | None) -> None:
    """Record the phases of the running request, for its log line and, if traces are on, as spans.

    begin: when it was submitted, by time.monotonic(). queue_seconds: how long it waited for a slot; None: until now. It was
    computed from then until now.
    """
    request, elapsed = logs.current(), time.monotonic() - begin
    request.queue_seconds = round(elapsed if queue_seconds is None else queue_seconds, 6)
    request.compute_seconds = round(elapsed - request.queue_seconds, 6)
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attributes({f"gram.{name}": value for name, value in request.fields().items()})
    now = time.time_ns()
    start, computing = (now - int(seconds * 1e9) for seconds in (elapsed, request.compute_seconds))
    for name, first, last in (("queue", start, computing), ("compute", computing, now)):
        _tracer.start_span(name, start_time=first).end(last)


def _trace_id() -> str | None:
    """The trace id of the running span, or of the caller's."""
    span = trace.get_current_span().get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else None
