"""What both clients share: the calls, the retries, and how answers and errors are read."""

import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from gram.models.config import Ability
from gram.server.api.schemas import ModelInfo, Problem, TaskInfo
from gram.server.client.errors import GramError
from gram.server.sampling.answers import EVENTS, Event, SolveResponse
from gram.server.sampling.options import chosen

URL = "http://127.0.0.1:8000"
TIMEOUT_SECONDS = 660.0
"""Longer than the server's own default limit for a request, at which it answers with what it has."""
MAX_RETRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
"""There was no server, or it went away. The request may be sent again: it changes nothing there."""
_OWN_MACHINE = ("localhost", "127.0.0.1", "[::1]")

H = TypeVar("H", httpx.Client, httpx.AsyncClient)
T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call of the API: what to send, and the type of the answer.

    `body`: sent as JSON; or `content`, of this type. `once`: the key by which the server knows a call that it has carried out.
    `lines`: the answer is NDJSON, the lines of which are the elements of a list.
    """

    answer: TypeAdapter[T]
    path: str
    body: dict[str, object] | None = None
    method: str | None = None
    query: Mapping[str, str] | None = None
    content: bytes | None = None
    content_type: str = "application/json"
    once: str | None = None
    lines: bool = False

    def request(self, seconds: float | None) -> dict[str, Any]:
        """The arguments of httpx's `request` and `stream`."""
        posts = self.body is not None or self.content is not None
        method = self.method or ("POST" if posts else "GET")
        request = {"method": method, "url": self.path, "params": self.query, "timeout": seconds}
        if not posts:
            return request
        try:
            content = to_json(self.body, fallback=as_lists) if self.content is None else self.content
        except (PydanticSerializationError, ValueError) as error:
            raise GramError(f"this request can't be sent: {error}") from error
        once = {"idempotency-key": self.once} if self.once else {}
        return request | {"content": content, "headers": {"content-type": self.content_type} | once}

    def read(self, content: bytes) -> T:
        """The answer. Raises ValidationError."""
        if self.lines:
            return self.answer.validate_json(b"[%b]" % b",".join(content.splitlines()))
        return self.answer.validate_json(content or b"null")

    def seeded(self) -> Self:
        """The same with a seed, if it has none, so that it can be asked again for the same answer."""
        body = self.body or {}
        return replace(self, body={**body, "seed": chosen(body.get("seed"))})  # type: ignore[arg-type]  # the server checks it


class Seen:
    """The events that a stream has brought. One that is asked for again brings the same, from the beginning."""

    def __init__(self) -> None:
        self._places: set[tuple[object, ...]] = set()

    def first(self, event: Event) -> bool:
        """Whether the event has not come before."""
        place = type(event), getattr(event, "trajectory", None), getattr(event, "steps", None)
        new = place not in self._places
        self._places.add(place)
        return new


def as_lists(value: Any) -> object:
    """An array or a tensor of any library as nested lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"no part of a request is of the type {type(value).__name__}")


MODELS = Call(TypeAdapter(list[ModelInfo]), "/v1/models")
TASKS = Call(TypeAdapter(list[TaskInfo]), "/v1/tasks")
_RESULT = TypeAdapter(SolveResponse)


def sampling(ability: Ability, **body: Any) -> Call[SolveResponse]:
    """The call that solves or generates, with this body."""
    return Call(_RESULT, f"/v1/{ability}", body)


class Attempts:
    """The attempts at one call: how many, how long they may take, and the pauses between them."""

    def __init__(self, timeout: float | None, max_retries: int) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._retries_left = max_retries
        self._pause = _FIRST_PAUSE

    @property
    def seconds_left(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def pause(self, error: GramError) -> float:
        """Return the seconds until the next attempt. Raises the error if there is none.

        The pauses double and have a random part, so that clients who were refused together do not come back together.
        """
        seconds = (error.retry_after or 0.0) + self._pause * random.uniform(0.5, 1.0)
        left = self.seconds_left
        if not error.passing or self._retries_left == 0 or (left is not None and left <= seconds):
            raise error
        self._retries_left -= 1
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return seconds


class Asking(Generic[H]):
    """What both clients share: everything but the waiting."""

    _kind: type[H]
    _url: str
    _timeout: float | None
    _max_retries: int

    def __init__(
        self,
        base_url: str = URL,
        *,
        api_key: str | None = None,
        timeout: float | None = TIMEOUT_SECONDS,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        """Connect to nothing yet.

        `api_key`: sent with each request; by default the environment variable GRAM_API_KEY, if it is set.
        `timeout`: seconds for an answer, retries included; in a stream, for the first event and then for each further one.
        `max_retries`: how often to ask again after a 429 or 503, or if there is no server or it breaks off. A stream that
        breaks off goes on where it was.
        """
        self._url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        headers = {"accept": "application/x-ndjson, application/json"}
        if key := api_key or os.environ.get("GRAM_API_KEY"):
            headers["authorization"] = f"Bearer {key}"
        with self._translated():
            # No limit on connections: the caller bounds the calls, and none times out in a queue for a connection.
            # A proxy that the environment names does not have this machine's own servers.
            limits, mounts = httpx.Limits(max_connections=None), {f"all://{host}": None for host in _OWN_MACHINE}
            self._http: H = self._kind(base_url=base_url, headers=headers, limits=limits, mounts=mounts)

    def _attempts(self) -> Attempts:
        return Attempts(self._timeout, self._max_retries)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what goes wrong on the way as a GramError."""
        try:
            yield
        except httpx.TimeoutException as error:
            message = f"{self._url} does not answer: nothing came within {self._timeout:g} s"
            raise GramError(message, lost=isinstance(error, _LOST)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"{self._url} does not answer{self._by_way_of()}: {error or type(error).__name__}"
            raise GramError(message, lost=isinstance(error, _LOST)) from error

    def _by_way_of(self) -> str:
        """Names the proxy between, if the environment has one for this server."""
        url = httpx.URL(self._url)
        proxies = getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        own = url.host in _OWN_MACHINE or f"[{url.host}]" in _OWN_MACHINE
        return f" through the proxy {proxy}" if proxy and not own and not proxy_bypass(url.host) else ""

    def _check(self, response: httpx.Response) -> None:
        """Raise GramError if the response, which has been read, is a refusal."""
        if response.is_success:
            return
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:  # it is not from the server, but from a proxy in front of it, say
            problem = None
        after = response.headers.get("retry-after", "")
        raise GramError(
            f"{self._url} answered {response.status_code}: {problem.detail if problem else response.text[:200]}",
            response.status_code,
            problem,
            float(after) if after.isdecimal() else None,
        )

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        self._check(response)
        try:
            return call.read(response.content)
        except ValidationError as error:
            raise self._not_understood(response.text) from error

    def _event(self, line: str) -> Event | None:
        """Read a line of a stream; None if this client does not know the event. Raises GramError if it is an error."""
        try:
            match from_json(line):
                case {"event": "error", "data": data}:
                    problem = Problem.model_validate(data)
                    raise GramError(f"{self._url} answered {problem.status}: {problem.detail}", problem.status, problem)
                case {"event": name, "data": data}:
                    return EVENTS[name].model_validate(data) if name in EVENTS else None
                case _:
                    raise self._not_understood(line)
        except ValueError as error:  # ValidationError is one
            raise self._not_understood(line) from error

    def _not_understood(self, text: str) -> GramError:
        return GramError(f"{self._url} gave an answer that this client does not understand: {text[:200]}")
