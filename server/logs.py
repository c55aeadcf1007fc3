"""The server's log: lines for people or JSON objects for machines, each with the request that it belongs to."""

import json
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gram.server.settings import LogFormat


@dataclass
class RequestLog:
    """What the log says of a request. The code that serves the request fills it in."""

    request_id: str
    trace_id: str | None = None
    key: str | None = None
    model: str | None = None
    num_trajectories: int | None = None
    queue_seconds: float | None = None
    compute_seconds: float | None = None
    error: str | None = None

    def fields(self) -> dict[str, Any]:
        """The fields that are known."""
        return {name: value for name, value in vars(self).items() if value is not None}


_current: ContextVar[RequestLog | None] = ContextVar("request", default=None)


def begin(request: RequestLog) -> None:
    """Mark the running task, and the tasks that it starts, as working for this request."""
    _current.set(request)


def current() -> RequestLog:
    """The request that the running task works for; there must be one."""
    request = _current.get()
    assert request, "only code that serves a request asks for it"
    return request


def request_id() -> str | None:
    """The id of the request that the running task works for, if there is one."""
    request = _current.get()
    return request.request_id if request else None


def configure(log_format: LogFormat) -> None:
    """Log to standard error, from every library, in this format."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record: those of its request, and its own (`extra={"fields": ...}`)."""
    request = _current.get()
    whose = {"request_id": request.request_id, "trace_id": request.trace_id} if request else {}
    return {name: value for name, value in whose.items() if value} | getattr(record, "fields", {})


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return super().formatMessage(record).rstrip() + "".join(f" {name}={value}" for name, value in _fields(record).items())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
