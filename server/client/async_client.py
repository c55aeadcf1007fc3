"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import TracebackType
from typing import Self, Unpack

import httpx

from gram.server.api.schemas import ModelInfo, TaskInfo
from gram.server.client import jobs
from gram.server.client.calls import MODELS, TASKS, Asking, Call, Seen, T, sampling
from gram.server.client.errors import GramError
from gram.server.client.options import GenerateOptions, SolveOptions
from gram.server.jobs.schemas import JobInfo, JobResult
from gram.server.sampling.answers import Event, SolveResponse


class AsyncClient(Asking[httpx.AsyncClient]):
    """The client for asyncio. All calls raise GramError. Cancelling a call ends its request on the server, too.

        async with AsyncClient() as client:
            answer = await client.solve("g7 a4", task="nqueens-8", num_trajectories=20)
            async with client.solve_stream("g7 a4", task="nqueens-8", stream_steps=True) as events:
                async for event in events:
                    ...  # leaving the `async with` ends the request on the server, too

    A request names a task, and a loaded model of it answers; or it names the model.
    """

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def solve(
        self, puzzle: object, *, task: str | None = None, model: str | None = None, **options: Unpack[SolveOptions]
    ) -> SolveResponse:
        """Solve a puzzle, in any spelling that `tasks` lists, and return its ranked answers."""
        return await self._ask(sampling("solve", puzzle=puzzle, task=task, model=model, **options))

    def solve_stream(
        self,
        puzzle: object,
        *,
        task: str | None = None,
        model: str | None = None,
        stream_steps: bool = False,
        **options: Unpack[SolveOptions],
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Stream the events of the request, the last of which is the SolveResponse. Leaving the context ends the request."""
        return self._stream(
            sampling("solve", puzzle=puzzle, task=task, model=model, stream=True, stream_steps=stream_steps, **options)
        )

    async def generate(
        self, *, task: str | None = None, model: str | None = None, **options: Unpack[GenerateOptions]
    ) -> SolveResponse:
        """Make new boards, and return them ranked."""
        return await self._ask(sampling("generate", task=task, model=model, **options))

    def generate_stream(
        self,
        *,
        task: str | None = None,
        model: str | None = None,
        stream_steps: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Stream the events of the request, the last of which is the SolveResponse. Leaving the context ends the request."""
        stream = {"stream": True, "stream_steps": stream_steps}
        return self._stream(sampling("generate", task=task, model=model, **stream, **options))

    async def submit(
        self,
        puzzles: bytes | Iterable[object],
        *,
        task: str | None = None,
        model: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> JobInfo:
        """Submit a job: the puzzles, or the content of a file of them. It is kept, and goes on without this client."""
        return await self._ask(jobs.submit(puzzles, {"task": task, "model": model, **options}))

    async def submit_generate(
        self, *, task: str | None = None, model: str | None = None, **options: Unpack[GenerateOptions]
    ) -> JobInfo:
        """Submit a job that makes new boards."""
        return await self._ask(jobs.submit_generate({"task": task, "model": model, **options}))

    async def jobs(self) -> list[JobInfo]:
        """List the jobs of this client's key, the newest first."""
        return await self._ask(jobs.LIST)

    async def job(self, job: str) -> JobInfo:
        """How far a job is."""
        return await self._ask(jobs.show(job))

    async def job_results(self, job: str, *, start: int = 0) -> AsyncIterator[JobResult]:
        """The results of a job in the order of its puzzles, from this index to the first puzzle that has none yet."""
        while page := await self._ask(jobs.results(job, start)):
            for result in page:
                yield result
            start = page[-1].index + 1

    async def delete_job(self, job: str) -> None:
        """Cancel a job, and delete its results."""
        await self._ask(jobs.delete(job))

    async def models(self) -> list[ModelInfo]:
        """List the loaded models."""
        return await self._ask(MODELS)

    async def tasks(self) -> list[TaskInfo]:
        """List the kinds of puzzles, and how to write them."""
        return await self._ask(TASKS)

    async def _ask(self, call: Call[T]) -> T:
        attempts = self._attempts()
        while True:
            try:
                with self._translated():
                    return self._read(call, await self._http.request(**call.request(attempts.seconds_left)))
            except GramError as error:
                await asyncio.sleep(attempts.pause(error))

    @asynccontextmanager
    async def _stream(self, call: Call[SolveResponse]) -> AsyncIterator[AsyncIterator[Event]]:
        async with aclosing(self._whole(call.seeded())) as events:
            yield _chain(await anext(events), events)

    async def _whole(self, call: Call[SolveResponse]) -> AsyncGenerator[Event]:
        """A stream's events, each once. If it breaks off, it is asked for again."""
        attempts, seen = self._attempts(), Seen()
        while True:
            try:
                async with aclosing(self._events(call, attempts.seconds_left)) as events:
                    async for event in events:
                        if seen.first(event):
                            attempts = self._attempts()
                            yield event
                return
            except GramError as error:
                await asyncio.sleep(attempts.pause(error))

    async def _events(self, call: Call[SolveResponse], seconds: float | None) -> AsyncGenerator[Event]:
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
