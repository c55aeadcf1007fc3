"""The blocking client."""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import chain
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


class Client(Asking[httpx.Client]):
    """Asks a server, and waits for its answers. Threads may share it. All calls raise GramError.

        with Client() as client:
            answer = client.solve("g7 a4", task="nqueens-8", num_trajectories=20)
            with client.solve_stream("g7 a4", task="nqueens-8", stream_steps=True) as events:
                for event in events:
                    ...  # leaving the `with` ends the request on the server, too

    A request names a task, and a loaded model of it answers; or it names the model.
    """

    _kind = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def solve(
        self, puzzle: object, *, task: str | None = None, model: str | None = None, **options: Unpack[SolveOptions]
    ) -> SolveResponse:
        """Solve a puzzle, in any spelling that `tasks` lists, and return its ranked answers."""
        return self._ask(sampling("solve", puzzle=puzzle, task=task, model=model, **options))

    def solve_stream(
        self,
        puzzle: object,
        *,
        task: str | None = None,
        model: str | None = None,
        stream_steps: bool = False,
        **options: Unpack[SolveOptions],
    ) -> AbstractContextManager[Iterator[Event]]:
        """Stream the events of the request, the last of which is the SolveResponse. Leaving the context ends the request."""
        return self._stream(
            sampling("solve", puzzle=puzzle, task=task, model=model, stream=True, stream_steps=stream_steps, **options)
        )

    def generate(
        self, *, task: str | None = None, model: str | None = None, **options: Unpack[GenerateOptions]
    ) -> SolveResponse:
        """Make new boards, and return them ranked."""
        return self._ask(sampling("generate", task=task, model=model, **options))

    def generate_stream(
        self,
        *,
        task: str | None = None,
        model: str | None = None,
        stream_steps: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> AbstractContextManager[Iterator[Event]]:
        """Stream the events of the request, the last of which is the SolveResponse. Leaving the context ends the request."""
        stream = {"stream": True, "stream_steps": stream_steps}
        return self._stream(sampling("generate", task=task, model=model, **stream, **options))

    def submit(
        self,
        puzzles: bytes | Iterable[object],
        *,
        task: str | None = None,
        model: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> JobInfo:
        """Submit a job: the puzzles, or the content of a file of them. It is kept, and goes on without this client."""
        return self._ask(jobs.submit(puzzles, {"task": task, "model": model, **options}))

    def submit_generate(
        self, *, task: str | None = None, model: str | None = None, **options: Unpack[GenerateOptions]
    ) -> JobInfo:
        """Submit a job that makes new boards."""
        return self._ask(jobs.submit_generate({"task": task, "model": model, **options}))

    def jobs(self) -> list[JobInfo]:
        """List the jobs of this client's key, the newest first."""
        return self._ask(jobs.LIST)

    def job(self, job: str) -> JobInfo:
        """How far a job is."""
        return self._ask(jobs.show(job))

    def job_results(self, job: str, *, start: int = 0) -> Iterator[JobResult]:
        """The results of a job in the order of its puzzles, from this index to the first puzzle that has none yet."""
        while page := self._ask(jobs.results(job, start)):
            yield from page
            start = page[-1].index + 1

    def delete_job(self, job: str) -> None:
        """Cancel a job, and delete its results."""
        self._ask(jobs.delete(job))

    def models(self) -> list[ModelInfo]:
        """List the loaded models."""
        return self._ask(MODELS)

    def tasks(self) -> list[TaskInfo]:
        """List the kinds of puzzles, and how to write them."""
        return self._ask(TASKS)

    def _ask(self, call: Call[T]) -> T:
        attempts = self._attempts()
        while True:
            try:
                with self._translated():
                    return self._read(call, self._http.request(**call.request(attempts.seconds_left)))
            except GramError as error:
                time.sleep(attempts.pause(error))

    @contextmanager
    def _stream(self, call: Call[SolveResponse]) -> Iterator[Iterator[Event]]:
        with closing(self._whole(call.seeded())) as events:
            yield chain([next(events)], events)

    def _whole(self, call: Call[SolveResponse]) -> Generator[Event]:
        """A stream's events, each once. If it breaks off, it is asked for again."""
        attempts, seen = self._attempts(), Seen()
        while True:
            try:
                with closing(self._events(call, attempts.seconds_left)) as events:
                    for event in events:
                        if seen.first(event):
                            attempts = self._attempts()
                            yield event
                return
            except GramError as error:
                time.sleep(attempts.pause(error))

    def _events(self, call: Call[SolveResponse], seconds: float | None) -> Generator[Event]:
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
