"""The API process's side of the engine: starts the process, submits, hands out what comes back, replaces a dead one.

A trajectory is a pure function of (weights, puzzle, seed, index). So when the engine dies, the unfinished
trajectories are submitted to a new one, and the client gets the answer that it would have had. One that hangs is killed.
A model in whose steps engines die again and again is taken out of rotation.
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gram.models.config import CheckpointError
from gram.server.engine.messages import (
    Cancel,
    Failed,
    FromEngine,
    Load,
    Loaded,
    NotLoaded,
    Ping,
    Pong,
    Ready,
    Stepping,
    StepReport,
    ToEngine,
    Unframer,
    Unload,
    frame,
)
from gram.server.settings import EngineSettings, ServerSettings
from gram.server.supervision.job import EngineUnavailableError, Job, OutOfMemoryError, SlowClientError
from gram.server.supervision.rotation import Rotation

log = logging.getLogger("gram")

MAX_DEATHS = 3
"""Engines that die in a row, until: a model in whose steps they die, and which brings nothing between, leaves the rotation; a
request in whose steps they die, and which brings its client nothing new between, ends; the service, without a sign of life
between, gives up.
"""

_START_SECONDS = 300
"""Time for an engine to load models and, on a GPU, to compile kernels; until then its silence is no hang."""
_PING_SECONDS = 1
_OUT_OF_MEMORY = "the memory of the device did not hold a step of {}; send the request again, or serve with fewer --slots"
_DEADLY = f"{MAX_DEATHS} engines in a row died in the steps of this request; the server's log may say why"
_REAP_SECONDS = 5
"""Time for a killed engine to be gone. One that waits for a broken device may take longer, and is left behind."""


@dataclass
class Listener:
    """Who is told what an engine, by its number, says."""

    on_report: Callable[[int, StepReport], None]
    on_pong: Callable[[int, Pong], None]
    on_ready: Callable[[int, Ready], None]
    on_restart: Callable[[], None]


class Supervisor:
    """Owns the engine process of a device. All methods run on the API process's event loop."""

    def __init__(self, settings: ServerSettings, rotation: Rotation, number: int, listener: Listener) -> None:
        """`number`: the engine's, and the device's where there are several."""
        self._settings = settings
        self._rotation = rotation
        self._number = number
        self._listener = listener
        self.jobs: dict[int, Job] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._failure: str | None = None
        self._stepping: Stepping | None = None
        self._deaths: Counter[str] = Counter()
        self._silent_seconds = 0
        self._loading: dict[str, asyncio.Future[None]] = {}
        self.loaded: set[str] = set()
        """The models that the present engine has."""
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
                raise EngineUnavailableError(self._failure)
            self._listener.on_restart()
            log.error("the engine died; starting another for %d unfinished requests", len(self.jobs))

    @property
    def remaining(self) -> int:
        """Trajectories that it has yet to bring."""
        return sum(job.remaining for job in self.jobs.values())

    def take(self, job: Job) -> None:
        """Submit what is unfinished of a request. `close` it, however it ends."""
        job.supervisor, job.sent = self, None
        self.jobs[job.submit.request] = job
        if self.ready:
            self._submit(job)

    def close(self, job: Job) -> None:
        """Forget a request; what it still has in the engine is cancelled."""
        if self.jobs.pop(job.submit.request, None) and self.ready:
            self._send(Cancel(job.submit.request))

    def end(self, job: Job, error: Exception) -> None:
        """Free what a request holds; nothing more comes of it but, after what is there, this error."""
        job.end(error)
        self.close(job)

    async def load(self, model: str, folder: Path) -> None:
        """Have the engine load a model. Raises CheckpointError where it can't, EngineUnavailableError where it is not there."""
        if not self.ready:
            raise EngineUnavailableError("an engine is starting; try again in a few seconds")
        loaded = self._loading[model] = asyncio.get_running_loop().create_future()
        self._send(Load(str(folder)))
        try:
            await loaded
        finally:
            del self._loading[model]

    def unload(self, model: str) -> None:
        """Have the engine free a model that has no requests."""
        if model in self.loaded:
            self.loaded.remove(model)
            self._send(Unload(model))

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
        for job in self.jobs.values():
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
            self.loaded.clear()
            for loading in self._loading.values():
                loading.set_exception(EngineUnavailableError("the engine died while it loaded the model"))
            watch.cancel()
            self._writer.close()
            # Without its socket the engine exits; one that does not is of no use to anybody.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait({asyncio.create_task(process.wait())}, timeout=_REAP_SECONDS)
        return lived

    def _command(self, fd: int) -> list[str]:
        """What starts an engine with the models in rotation."""
        folders = [folder for model, folder in self._rotation.folders.items() if model not in self._rotation.out]
        settings = self._settings.model_copy(update={"model": folders})
        command = [sys.executable, "-P", "-m", "gram.server.engine.process", "--fd", str(fd), "--number", str(self._number)]
        command += ["--settings", settings.model_dump_json(include=set(EngineSettings.model_fields))]
        command += ["--log-format", self._settings.log_format]
        return [*command, "--known", json.dumps(self._rotation.fingerprints)]

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        """Ask the engine for signs of life, and break with it when none has come for too long.

        The seconds are counted, not read off the clock: while this process itself is stopped, the engine's silence is no fault.
        """
        while self._silent_seconds < (
            self._settings.engine_timeout_seconds if self.ready and not self._loading else _START_SECONDS
        ):
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
                    if (job := self.jobs.get(request)) and job.queue_seconds is None:
                        job.queue_seconds = seconds
                shown = [job.show(step) for step in message.steps if (job := self.jobs.get(step.request))]
                for trajectory in message.finished:
                    if job := self.jobs.get(trajectory.request):
                        job.accept(trajectory)
                        if job.unread > job.max_results:
                            self.end(job, SlowClientError())
                if message.finished or any(shown):
                    del self._deaths[message.model]
                for request in message.out_of_memory:
                    if job := self.jobs.get(request):
                        self.end(job, OutOfMemoryError(_OUT_OF_MEMORY.format(message.model)))
                self._listener.on_report(self._number, message)
            case Pong():
                self._listener.on_pong(self._number, message)
            case Loaded():
                self._rotation.fingerprints[message.model] = message.fingerprint
                self.loaded.add(message.model)
                self._loading[message.model].set_result(None)
            case NotLoaded():
                self._loading[message.model].set_exception(CheckpointError(message.reason))
            case Ready():
                self.loaded = set(message.models)
                for model, reason in message.missing.items():
                    log.error("%s can't be loaded again: %s", model, reason)
                    if model in self._rotation.folders:
                        self._retire(model, "its files have changed since they were loaded first, or can't be read any more")
                if message.threads:  # the next engine takes what this one has measured
                    fixed = {"threads": message.threads, "slots": message.slots}
                    self._settings = self._settings.model_copy(update=fixed)
                if self._failure is None:
                    self.ready = True
                    for model, fingerprint in message.models.items():
                        if model in self._rotation.folders:
                            self._rotation.fingerprints[model] = fingerprint
                        else:  # removed while this engine started
                            self.unload(model)
                    for job in self.jobs.values():
                        self._submit(job)
                    self._listener.on_ready(self._number, message)
            case Failed():
                self._failure = f"no engine can answer: {message.message}"

    def _blame(self) -> bool:
        """Count the engine's death against what it was stepping; whether that was enough to end something.

        The first death counts against all that was open, for the steps of several models overlap. They are then submitted as
        suspects, with which an engine tells what it steps: the next death counts against one model and the requests in its
        slots.
        """
        told = [job for job in self.jobs.values() if job.sent and not job.complete]
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
        self._rotation.out[model] = detail
        for job in [*self.jobs.values()]:
            if job.submit.model == model:
                self.end(job, EngineUnavailableError(detail))
        if self._rotation.over:
            self._failure = f"no engine can answer, for no model is left: {detail}"
