"""The API process's side of the engine: starts the process, submits, hands out what comes back, replaces a dead one.

A trajectory is a pure function of (weights, puzzle, seed, index). So when the engine dies, the unfinished
trajectories are submitted to a new one, and the client gets the answer that it would have had.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from server.engine.messages import Cancel, Failed, FromEngine, Ready, StepReport, Submit, Trajectory, Unframer, frame
from server.settings import EngineSettings

log = logging.getLogger("gram")

MAX_CRASHES = 3
"""Engine deaths in a row, without a step between them, after which the service gives up."""


class EngineUnavailableError(Exception):
    """No engine can answer, and none is going to."""


@dataclass
class Job:
    """An unfinished request, as the API process keeps it."""

    submit: Submit
    submitted_at: float = field(default_factory=time.monotonic)
    results: asyncio.Queue[Trajectory | None] = field(default_factory=asyncio.Queue)
    queue_seconds: float | None = None
    _finished: set[int] = field(default_factory=set)
    _next: int = 0

    def accept(self, trajectory: Trajectory) -> None:
        """Hand a trajectory on, unless an engine that died has already reported it."""
        if trajectory.index < self._next or trajectory.index in self._finished:
            return
        self._finished.add(trajectory.index)
        while self._next in self._finished:
            self._finished.remove(self._next)
            self._next += 1
        self.results.put_nowait(trajectory)

    def unfinished(self) -> Submit | None:
        """What to submit to a new engine, if anything; trajectories past the first gap are run again and not accepted twice.

        With pruning all are run again: who is pruned follows from the values of those before.
        """
        if self._next == self.submit.num_trajectories:
            return None  # all is here; its client has not read it yet
        if self.submit.prune:
            return self.submit
        return msgspec.structs.replace(self.submit, first_trajectory=self._next)


class Supervisor:
    """Owns the engine process. All methods run on the API process's event loop."""

    def __init__(
        self,
        settings: EngineSettings,
        on_report: Callable[[StepReport], None],
        on_ready: Callable[[int, str], None],
    ) -> None:
        """on_ready is told the number of slots and the device."""
        self._settings = settings.model_dump_json(include=set(EngineSettings.model_fields))
        self._on_report = on_report
        self._on_ready = on_ready
        self._jobs: dict[int, Job] = {}
        self._ids = itertools.count()
        self._writer: asyncio.StreamWriter | None = None
        self._failure: str | None = None
        self.ready = False
        self.restarts = 0

    async def run(self) -> None:
        """Keep an engine running until cancelled. Raises EngineUnavailableError when it gives up."""
        crashes = 0
        while True:
            stepped = await self._run_once()
            crashes = 1 if stepped else crashes + 1
            if self._failure is None and crashes >= MAX_CRASHES:
                self._failure = f"the engine died {crashes} times in a row"
            if self._failure is not None:
                for job in self._jobs.values():
                    job.results.put_nowait(None)
                raise EngineUnavailableError(self._failure)
            self.restarts += 1
            log.error("the engine died; starting another for %d unfinished requests", len(self._jobs))

    def open(self, submit: Callable[[int], Submit]) -> Job:
        """Submit a request under a number of its own. Raises EngineUnavailableError. `close` it, however it ends."""
        if self._failure:
            raise EngineUnavailableError(self._failure)
        request = next(self._ids)
        job = self._jobs[request] = Job(submit(request))
        if self.ready:
            self._send(job.submit)
        return job

    def close(self, job: Job) -> None:
        """Forget a request; what it still has in the engine is cancelled."""
        if self._jobs.pop(job.submit.request, None) and self.ready:
            self._send(Cancel(job.submit.request))

    async def trajectories(self, job: Job) -> AsyncGenerator[Trajectory]:
        """The request's trajectories as they finish, each once. Raises EngineUnavailableError if the service gives up."""
        for _ in range(job.submit.num_trajectories):
            trajectory = await job.results.get()
            if trajectory is None:
                raise EngineUnavailableError(self._failure)
            yield trajectory

    def _send(self, message: Submit | Cancel) -> None:
        assert self._writer
        self._writer.write(frame(message))

    async def _run_once(self) -> bool:
        """One life of the engine process, to its end; whether it made a step for a request."""
        ours, theirs = socket.socketpair()
        with theirs:
            fd = str(theirs.fileno())
            command = [sys.executable, "-P", "-m", "server.engine.loop", "--fd", fd, "--settings", self._settings]
            process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
        reader, self._writer = await asyncio.open_connection(sock=ours)
        unframer: Unframer[FromEngine] = Unframer(FromEngine)
        stepped = False
        try:
            while data := await reader.read(1 << 20):
                for message in unframer.feed(data):
                    stepped |= isinstance(message, StepReport)
                    self._receive(message)
        except ConnectionError:
            pass  # as good as the end of the stream
        finally:
            self.ready = False
            self._writer.close()
            # Without its socket the engine exits; one that does not is of no use to anybody.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
        return stepped

    def _receive(self, message: FromEngine) -> None:
        match message:
            case StepReport():
                for request, seconds in message.started.items():
                    if (job := self._jobs.get(request)) and job.queue_seconds is None:
                        job.queue_seconds = seconds
                for trajectory in message.finished:
                    if job := self._jobs.get(trajectory.request):
                        job.accept(trajectory)
                self._on_report(message)
            case Ready():
                self.ready = True
                for job in self._jobs.values():
                    if submit := job.unfinished():
                        self._send(submit)
                self._on_ready(message.slots, f"{message.device} in {message.dtype}")
            case Failed():
                self._failure = message.message
