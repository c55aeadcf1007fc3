"""The API process's side of the engine: starts the process, submits, hands out what comes back, replaces a dead one.

A trajectory is a pure function of (weights, puzzle, seed, index). So when the engine dies, the unfinished
trajectories are submitted to a new one, and the client gets the answer that it would have had. One that hangs is killed.
A model in whose steps engines die again and again is taken out of rotation.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from server.engine.messages import (
    Cancel,
    Failed,
    FromEngine,
    Ping,
    Pong,
    Ready,
    Stepping,
    StepReport,
    Submit,
    ToEngine,
    Trajectory,
    Unframer,
    frame,
)
from server.settings import EngineSettings, ServerSettings, model_name

log = logging.getLogger("gram")

MAX_DEATHS = 3
"""Engines that die in a row, until: a model in whose steps they die, and which brings no answer between, leaves the rotation;
a request in whose steps they die, and which comes no further between, ends; the service, without a sign of life between, gives
up.
"""

_START_SECONDS = 300
"""Time for an engine to load its models and, on a GPU, to compile kernels; until then its silence is no hang."""
_PING_SECONDS = 1
_OUT_OF_MEMORY = "the memory of the device did not hold a step of {}; send the request again, or serve with fewer --slots"
_DEADLY = f"{MAX_DEATHS} engines in a row died in the steps of this request; the server's log may say why"
_REAP_SECONDS = 5
"""Time for a killed engine to be gone. One that waits for a broken device may take longer, and is left behind."""


class EngineUnavailableError(Exception):
    """No engine is going to answer this; the message says why, and what to do."""

    cause: Literal["no_engine", "out_of_memory"] = "no_engine"


class SlowClientError(Exception):
    """The client of a stream lets too much wait for it."""


class OutOfMemoryError(EngineUnavailableError):
    """The device's memory did not hold a step with this."""

    cause = "out_of_memory"


@dataclass
class Job:
    """An unfinished request, as the API process keeps it."""

    submit: Submit
    submitted_at: float = field(default_factory=time.monotonic)
    results: asyncio.Queue[Trajectory | Exception] = field(default_factory=asyncio.Queue)
    max_results: float = math.inf
    """Trajectories that may wait for the reader. More end the job."""
    queue_seconds: float | None = None
    sent: Submit | None = None
    """What the present engine was told."""
    deaths: int = 0
    """Engines that died while they stepped it, or may have, since it last came further."""
    _finished: set[int] = field(default_factory=set)
    _next: int = 0

    @property
    def complete(self) -> bool:
        """Whether all its trajectories are here; its client may not have read them yet."""
        return self._next == self.submit.num_trajectories

    def accept(self, trajectory: Trajectory) -> None:
        """Hand a trajectory on, unless an engine that died has already reported it."""
        if trajectory.index < self._next or trajectory.index in self._finished:
            return
        self._finished.add(trajectory.index)
        while self._next in self._finished:
            self._finished.remove(self._next)
            self._next += 1
            self.deaths = 0
        self.results.put_nowait(trajectory)

    def end(self, error: Exception) -> None:
        """Nothing more comes: whoever reads the results gets this after those that are there."""
        self.results.put_nowait(error)

    def unfinished(self) -> Submit | None:
        """What to submit to a new engine, if anything; trajectories past the first gap are run again and not accepted twice.

        With pruning all are run again: who is pruned follows from the values of those before.
        """
        if self.complete:
            return None
        if self.submit.prune:
            return self.submit
        return msgspec.structs.replace(self.submit, first_trajectory=self._next)


class Supervisor:
    """Owns the engine process. All methods run on the API process's event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        on_report: Callable[[StepReport], None],
        on_pong: Callable[[Pong], None],
        on_ready: Callable[[int, str], None],
        on_restart: Callable[[], None],
    ) -> None:
        """on_ready is told the number of slots and the device."""
        self._settings = settings
        self._on_report = on_report
        self._on_pong = on_pong
        self._on_ready = on_ready
        self._on_restart = on_restart
        self._jobs: dict[int, Job] = {}
        self._ids = itertools.count()
        self._writer: asyncio.StreamWriter | None = None
        self._failure: str | None = None
        self._fingerprints: dict[str, str] = {}
        self._stepping: Stepping | None = None
        self._deaths: Counter[str] = Counter()
        self._silent_seconds = 0
        self.out_of_rotation: dict[str, str] = {}
        """Models that are asked no more -> what is answered in their place."""
        self.ready = False

    async def run(self) -> None:
        """Keep an engine running until cancelled. Raises EngineUnavailableError when it gives up."""
        deaths = 0
        while True:
            lived = await self._run_once()
            deaths = 1 if lived else deaths + 1
            if self._blame():
                deaths = 0
            if self._failure is None and deaths >= MAX_DEATHS:
                self._failure = f"no engine can answer: it died {deaths} times in a row"
            if self._failure is not None:
                self.end_all(EngineUnavailableError(self._failure))
                raise EngineUnavailableError(self._failure)
            self._on_restart()
            log.error("the engine died; starting another for %d unfinished requests", len(self._jobs))

    def open(self, submit: Callable[[int], Submit]) -> Job:
        """Submit a request under a number of its own. Raises EngineUnavailableError. `close` it, however it ends."""
        request = next(self._ids)
        job = Job(submit(request))
        if reason := self._failure or self.out_of_rotation.get(job.submit.model):
            raise EngineUnavailableError(reason)
        self._jobs[request] = job
        if self.ready:
            self._submit(job)
        return job

    def close(self, job: Job) -> None:
        """Forget a request; what it still has in the engine is cancelled."""
        if self._jobs.pop(job.submit.request, None) and self.ready:
            self._send(Cancel(job.submit.request))

    def end(self, job: Job, error: Exception) -> None:
        """Free what a request holds; nothing more comes of it but, after what is there, this error."""
        job.end(error)
        self.close(job)

    def end_all(self, error: Exception) -> None:
        """End all open requests with this error."""
        for job in [*self._jobs.values()]:
            self.end(job, error)

    async def trajectories(self, job: Job) -> AsyncGenerator[Trajectory]:
        """The request's trajectories as they finish, each once. Raises what the job is ended with."""
        for _ in range(job.submit.num_trajectories):
            result = await job.results.get()
            if isinstance(result, Exception):
                raise result
            yield result

    def _submit(self, job: Job) -> None:
        """Tell the engine what is unfinished of a request."""
        if submit := job.unfinished():
            suspect = bool(job.deaths or self._deaths[submit.model])
            job.sent = msgspec.structs.replace(submit, suspect=suspect)
            self._send(job.sent)

    def _send(self, message: ToEngine) -> None:
        assert self._writer
        self._writer.write(frame(message))

    async def _run_once(self) -> bool:
        """One life of the engine process, to its end; whether it made a step for a request, or answered a ping."""
        self._stepping = None
        self._silent_seconds = 0
        for job in self._jobs.values():
            job.sent = None
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(*self._command(theirs.fileno()), pass_fds=[theirs.fileno()])
        reader, self._writer = await asyncio.open_connection(sock=ours)
        unframer: Unframer[FromEngine] = Unframer(FromEngine)
        watch = asyncio.create_task(self._watch(self._writer))
        lived = False
        try:
            while self._failure is None and (data := await reader.read(1 << 20)):
                self._silent_seconds = 0
                for message in unframer.feed(data):
                    lived |= isinstance(message, StepReport | Pong)
                    self._receive(message)
        except ConnectionError:
            pass  # as good as the end of the stream
        finally:
            self.ready = False
            watch.cancel()
            self._writer.close()
            # Without its socket the engine exits; one that does not is of no use to anybody.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait({asyncio.create_task(process.wait())}, timeout=_REAP_SECONDS)
        return lived

    def _command(self, fd: int) -> list[str]:
        """What starts an engine with the models in rotation."""
        folders = [folder for folder in self._settings.model if model_name(folder) not in self.out_of_rotation]
        settings = self._settings.model_copy(update={"model": folders})
        command = [sys.executable, "-P", "-m", "server.engine.loop", "--fd", str(fd)]
        command += ["--settings", settings.model_dump_json(include=set(EngineSettings.model_fields))]
        command += ["--log-format", self._settings.log_format]
        return [*command, "--known", json.dumps(self._fingerprints)]

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        """Ask the engine for signs of life, and break with it when none has come for too long.

        The seconds are counted, not read off the clock: while this process itself is stopped, the engine's silence is no fault.
        """
        while self._silent_seconds < (self._settings.engine_timeout_seconds if self.ready else _START_SECONDS):
            if self.ready:
                writer.write(frame(Ping()))
            await asyncio.sleep(_PING_SECONDS)
            self._silent_seconds += _PING_SECONDS
        log.error("the engine hangs: no sign of life for %d s", self._silent_seconds)
        writer.transport.abort()

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Stepping():
                self._stepping = message
            case StepReport():
                self._stepping = None
                for request, seconds in message.started.items():
                    if (job := self._jobs.get(request)) and job.queue_seconds is None:
                        job.queue_seconds = seconds
                for trajectory in message.finished:
                    if job := self._jobs.get(trajectory.request):
                        job.accept(trajectory)
                        if job.results.qsize() > job.max_results:
                            self.end(job, SlowClientError())
                if message.finished:
                    del self._deaths[message.model]
                for request in message.out_of_memory:
                    if job := self._jobs.get(request):
                        self.end(job, OutOfMemoryError(_OUT_OF_MEMORY.format(message.model)))
                self._on_report(message)
            case Pong():
                self._on_pong(message)
            case Ready():
                self._fingerprints |= message.models
                for model, reason in message.missing.items():
                    log.error("%s can't be loaded again: %s", model, reason)
                    self._retire(model, "its files have changed since the server started, or can't be read any more")
                if self._failure is None:
                    self.ready = True
                    for job in self._jobs.values():
                        self._submit(job)
                    self._on_ready(message.slots, f"{message.device} in {message.dtype}")
            case Failed():
                self._failure = f"no engine can answer: {message.message}"

    def _blame(self) -> bool:
        """Count the engine's death against what it was stepping; whether that was enough to end something.

        The first death counts against all that was open, for the steps of several models overlap. They are then submitted as
        suspects, with which an engine tells what it steps: the next death counts against one model and the requests in its
        slots.
        """
        told = [job for job in self._jobs.values() if job.sent and not job.complete]
        if self._stepping:
            models = {self._stepping.model}
            jobs = [job for job in told if job.submit.request in self._stepping.requests]
        elif any(job.sent and job.sent.suspect for job in told):
            return False  # it was between two steps
        else:
            models = {job.submit.model for job in told}
            jobs = told
        self._deaths.update(models)
        for job in jobs:
            job.deaths += 1
        deadly_models = [model for model in models if self._deaths[model] >= MAX_DEATHS]
        for model in deadly_models:
            self._retire(model, f"{MAX_DEATHS} engines in a row died in its steps")
        deadly_jobs = [job for job in jobs if job.deaths >= MAX_DEATHS and job.submit.model not in deadly_models]
        for job in deadly_jobs:
            self.end(job, EngineUnavailableError(_DEADLY))
        return bool(deadly_models or deadly_jobs)

    def _retire(self, model: str, reason: str) -> None:
        """Take a model out of rotation, and end its requests."""
        detail = f"{model} is out of rotation: {reason}; ask another model, or mend it and restart the server"
        log.error("%s", detail)
        self.out_of_rotation[model] = detail
        for job in [*self._jobs.values()]:
            if job.submit.model == model:
                self.end(job, EngineUnavailableError(detail))
        if len(self.out_of_rotation) == len(self._settings.model):
            self._failure = f"no engine can answer, for no model is left: {detail}"
