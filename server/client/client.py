"""Clients of a server: `Client` blocks, `AsyncClient` awaits. Without torch and without the server's app.

    with Client() as client:
        answer = client.solve("g7 a4", task="nqueens-8", num_trajectories=20)
        with client.solve_stream("g7 a4", task="nqueens-8", stream_steps=True) as events:
            for event in events:
                ...  # leaving the `with` ends the request on the server too

Options are those of POST /v1/solve and /v1/generate; the server says which are wrong.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from gram.models.config import Ability
from gram.server.api.schemas import ModelInfo, Problem, TaskInfo
from gram.server.sampling.answers import EVENTS, Event, SolveResponse

URL = "http://127.0.0.1:8000"
TIMEOUT_SECONDS = 660.0
"""Longer than the limit that a server sets itself by default, and at which it answers with what it has."""
MAX_RETRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_NOT_NOW = (429, 503)
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
"""There was no server, or it went away. What was asked may be asked again: it changes nothing there."""

H = TypeVar("H", httpx.Client, httpx.AsyncClient)
T = TypeVar("T")


class GramError(Exception):
    """There is no answer. `problem` is the server's word for why; where it said nothing, that and `status` are None.

    `retry_after`: seconds for which the server asks to be left alone.
    """

    def __init__(
        self, message: str, status: int | None = None, problem: Problem | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered later."""
        return self.status in _NOT_NOW or isinstance(self.__cause__, _LOST)


@dataclass(frozen=True)
class _Call(Generic[T]):
    """What to ask, and what is answered."""

    answer: TypeAdapter[T]
    path: str
    body: dict[str, object] | None = None

    def request(self, seconds: float | None) -> dict[str, Any]:
        """As httpx takes it."""
        request = {"method": "POST" if self.body else "GET", "url": self.path, "timeout": seconds}
        return (
            request | {"content": to_json(self.body), "headers": {"content-type": "application/json"}} if self.body else request
        )


_MODELS = _Call(TypeAdapter(list[ModelInfo]), "/v1/models")
_TASKS = _Call(TypeAdapter(list[TaskInfo]), "/v1/tasks")
_RESULT = TypeAdapter(SolveResponse)


def _sampling(ability: Ability, **body: Any) -> _Call[SolveResponse]:
    return _Call(_RESULT, f"/v1/{ability}", body)


class _Attempts:
    """Of one call: how many, how long they may take, and the pauses between them."""

    def __init__(self, timeout: float | None, max_retries: int) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._retries_left = max_retries
        self._pause = _FIRST_PAUSE

    @property
    def seconds_left(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def pause(self, error: GramError) -> float:
        """Seconds until the next attempt. Raises the error where there is none.

        They double, and are random, so that those who were refused together do not come back together.
        """
        seconds = (error.retry_after or 0.0) + self._pause * random.uniform(0.5, 1.0)
        left = self.seconds_left
        if not error.passing or self._retries_left == 0 or (left is not None and left <= seconds):
            raise error
        self._retries_left -= 1
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return seconds


class _Asking(Generic[H]):
    """What both kinds share: all but the waiting."""

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
        """Without `api_key` GRAM_API_KEY is sent, where there is one.

        `timeout`: seconds for an answer, retries included; in a stream for the first event, and then for each further one.
        `max_retries`: how often to ask again where the answer is 429 or 503, or there is no server.
        """
        self._url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        headers = {"accept": "application/x-ndjson, application/json"}
        if key := api_key or os.environ.get("GRAM_API_KEY"):
            headers["authorization"] = f"Bearer {key}"
        with self._translated():
            # As many connections as calls: who makes them bounds them, and none runs out of time in a queue for one.
            self._http: H = self._kind(base_url=base_url, headers=headers, limits=httpx.Limits(max_connections=None))

    def _attempts(self) -> _Attempts:
        return _Attempts(self._timeout, self._max_retries)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What goes wrong on the way, as a GramError."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise GramError(f"{self._url} does not answer: nothing came within {self._timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GramError(f"{self._url} does not answer: {error or type(error).__name__}") from error

    def _check(self, response: httpx.Response) -> None:
        """Raises GramError for an answer, read, that is a refusal."""
        if response.is_success:
            return
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:  # not from the server: from a proxy before it, say
            problem = None
        after = response.headers.get("retry-after", "")
        raise GramError(
            f"{self._url} answered {response.status_code}: {problem.detail if problem else response.text[:200]}",
            response.status_code,
            problem,
            float(after) if after.isdecimal() else None,
        )

    def _read(self, call: _Call[T], response: httpx.Response) -> T:
        self._check(response)
        try:
            return call.answer.validate_json(response.content)
        except ValidationError as error:
            raise self._not_understood(response.text) from error

    def _event(self, line: str) -> Event | None:
        """A stream's line; None where this client does not know the event. Raises GramError where it is one."""
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
        return GramError(f"{self._url} answered what this client does not understand: {text[:200]}")


class Client(_Asking[httpx.Client]):
    """Asks a server and waits for its answers; threads may share it. All calls raise GramError."""

    _kind = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def solve(self, puzzle: object, *, task: str | None = None, model: str | None = None, **options: Any) -> SolveResponse:
        """The ranked answers to a puzzle, in any spelling that `tasks` lists."""
        return self._ask(_sampling("solve", puzzle=puzzle, task=task, model=model, **options))

    def solve_stream(
        self, puzzle: object, *, task: str | None = None, model: str | None = None, **options: Any
    ) -> AbstractContextManager[Iterator[Event]]:
        """What happens as it happens, until the SolveResponse. Leaving the context cancels the request."""
        return self._stream(_sampling("solve", puzzle=puzzle, task=task, model=model, stream=True, **options))

    def generate(self, *, task: str | None = None, model: str | None = None, **options: Any) -> SolveResponse:
        """New boards, ranked."""
        return self._ask(_sampling("generate", task=task, model=model, **options))

    def generate_stream(
        self, *, task: str | None = None, model: str | None = None, **options: Any
    ) -> AbstractContextManager[Iterator[Event]]:
        """What happens as it happens, until the SolveResponse. Leaving the context cancels the request."""
        return self._stream(_sampling("generate", task=task, model=model, stream=True, **options))

    def models(self) -> list[ModelInfo]:
        """What is loaded."""
        return self._ask(_MODELS)

    def tasks(self) -> list[TaskInfo]:
        """The kinds of puzzles and how to write them."""
        return self._ask(_TASKS)

    def _ask(self, call: _Call[T]) -> T:
        attempts = self._attempts()
        while True:
            try:
                with self._translated():
                    return self._read(call, self._http.request(**call.request(attempts.seconds_left)))
            except GramError as error:
                time.sleep(attempts.pause(error))

    @contextmanager
    def _stream(self, call: _Call[SolveResponse]) -> Iterator[Iterator[Event]]:
        attempts = self._attempts()
        while True:
            with closing(self._events(call, attempts.seconds_left)) as events:
                try:
                    first = next(events)
                except GramError as error:
                    pause = attempts.pause(error)
                else:
                    yield chain([first], events)
                    return
            time.sleep(pause)

    def _events(self, call: _Call[SolveResponse], seconds: float | None) -> Generator[Event]:
        with self._translated(), self._http.stream(**call.request(seconds)) as response:
            if not response.is_success:
                response.read()
            self._check(response)
            for line in response.iter_lines():
                if event := self._event(line):
                    yield event
                    if isinstance(event, SolveResponse):
                        return
        raise self._not_understood("a stream without a result")


class AsyncClient(_Asking[httpx.AsyncClient]):
    """The same for asyncio. Cancelling a call cancels its request, or the pause before it is made again."""

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def solve(
        self, puzzle: object, *, task: str | None = None, model: str | None = None, **options: Any
    ) -> SolveResponse:
        """The ranked answers to a puzzle, in any spelling that `tasks` lists."""
        return await self._ask(_sampling("solve", puzzle=puzzle, task=task, model=model, **options))

    def solve_stream(
        self, puzzle: object, *, task: str | None = None, model: str | None = None, **options: Any
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """What happens as it happens, until the SolveResponse. Leaving the context cancels the request."""
        return self._stream(_sampling("solve", puzzle=puzzle, task=task, model=model, stream=True, **options))

    async def generate(self, *, task: str | None = None, model: str | None = None, **options: Any) -> SolveResponse:
        """New boards, ranked."""
        return await self._ask(_sampling("generate", task=task, model=model, **options))

    def generate_stream(
        self, *, task: str | None = None, model: str | None = None, **options: Any
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """What happens as it happens, until the SolveResponse. Leaving the context cancels the request."""
        return self._stream(_sampling("generate", task=task, model=model, stream=True, **options))

    async def models(self) -> list[ModelInfo]:
        """What is loaded."""
        return await self._ask(_MODELS)

    async def tasks(self) -> list[TaskInfo]:
        """The kinds of puzzles and how to write them."""
        return await self._ask(_TASKS)

    async def _ask(self, call: _Call[T]) -> T:
        attempts = self._attempts()
        while True:
            try:
                with self._translated():
                    return self._read(call, await self._http.request(**call.request(attempts.seconds_left)))
            except GramError as error:
                await asyncio.sleep(attempts.pause(error))

    @asynccontextmanager
    async def _stream(self, call: _Call[SolveResponse]) -> AsyncIterator[AsyncIterator[Event]]:
        attempts = self._attempts()
        while True:
            async with aclosing(self._events(call, attempts.seconds_left)) as events:
                try:
                    first = await anext(events)
                except GramError as error:
                    pause = attempts.pause(error)
                else:
                    yield _chain(first, events)
                    return
            await asyncio.sleep(pause)

    async def _events(self, call: _Call[SolveResponse], seconds: float | None) -> AsyncGenerator[Event]:
        with self._translated():
            async with self._http.stream(**call.request(seconds)) as response:
                if not response.is_success:
                    await response.aread()
                self._check(response)
                async for line in response.aiter_lines():
                    if event := self._event(line):
                        yield event
                        if isinstance(event, SolveResponse):
                            return
        raise self._not_understood("a stream without a result")


async def _chain(first: Event, following: AsyncIterator[Event]) -> AsyncIterator[Event]:
    yield first
    async for event in following:
        yield event
