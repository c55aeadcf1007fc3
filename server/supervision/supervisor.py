"""The supervisor keeps one engine running: it submits what jobs need, hands out what comes, and replaces an engine that dies.

A trajectory is a pure function of (weights, puzzle, seed, index). So when an engine dies, the unfinished trajectories are
submitted to a new one, and clients get the answers that they would have had. An engine that hangs is killed. A model in whose
steps engine after engine dies is taken out of rotation.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from gram.models.config import CheckpointError
from gram.server.engine.messages import (
    Cancel,
    Failed,
    FromEngine,
    Load,
    Loaded,
    NotLoaded,
    Pong,
    Ready,
    Stepping,
    StepReport,
    Submit,
    Unload,
)
from gram.server.settings import ServerSettings
from gram.server.supervision.balance import Backlog
from gram.server.supervision.blame import MAX_DEATHS, Blame
from gram.server.supervision.errors import EngineUnavailableError, OutOfMemoryError, SlowClientError
from gram.server.supervision.job import Share
from gram.server.supervision.process import Connection, EngineProcess, command
from gram.server.supervision.rotation import Rotation
from gram.server.supervision.workload import Workload

log = logging.getLogger("gram")

_START_SECONDS = 300
"""Time for an engine to load models and, on a GPU, to compile kernels. Its silence is no hang until then."""


@dataclass
class Listener:
    """Callbacks for what an engine, by its number, reports."""

    on_report: Callable[[int, StepReport], None]
    on_pong: Callable[[int, Pong], None]
    on_ready: Callable[[int, Ready], None]
    on_restart: Callable[[], None]


class _Loading(NamedTuple):
    """A load that the engine has not answered yet. Its future is cancelled if nobody waits for the answer any more."""

    model: str
    loaded: asyncio.Future[None]


class Supervisor:
    """Owns the engine process of one device. All methods run on the API process's event loop."""

    def __init__(self, settings: ServerSettings, rotation: Rotation, number: int, listener: Listener) -> None:
        """`number`: the engine's, and its device's if there are several."""
        self._settings = settings
        self._rotation = rotation
        self._number = number
        self._listener = listener
        self._blame = Blame()
        self._engine: Connection | None = None
        self._failure: str | None = None
        self._loading: deque[_Loading] = deque()
        self.workload = Workload()
        self.shares: dict[int, Share] = {}
        """What it has to bring, by the numbers of their messages."""
        self.loaded: set[str] = set()
        """The models that the present engine has loaded."""
        self.slots = 1
        """Of each model in its present or last engine."""
        self.ready = False

    @property
    def out_of_rotation(self) -> dict[str, str]:
        """Models out of rotation -> the error message that their requests get."""
        return self._rotation.out

    @property
    def backlog(self) -> Backlog:
        """What it has to do, and how fast it is."""
        return self.workload.backlog(self.shares.values())

    def serves(self, model: str) -> bool:
        """Whether its engine has the model, or will have it when it is ready."""
        return model in self._rotation.folders

    async def run(self) -> None:
        """Keep an engine running until cancelled. Raises EngineUnavailableError when it gives up."""
        deaths = 0
        while True:
            lived = await self._run_once()
            deaths = 1 if lived else deaths + 1
            if self._judge():
                deaths = 0
            if self._failure is None and deaths >= MAX_DEATHS:
                self._failure = f"no engine can answer: it died {deaths} times in a row"
            if self._failure is not None:
                raise EngineUnavailableError(self._failure)
            self._listener.on_restart()
            log.error("the engine died; starting another for %d unfinished requests", len(self.shares))

    def take(self, share: Share) -> None:
        """Submit what is unfinished of a share. Call `close` however its job ends."""
        share.sent = None
        self.shares[share.submit.request] = share
        if self.ready:
            self._submit(share)

    def close(self, share: Share) -> None:
        """Forget a share, if it is here, and cancel what it still has in the engine."""
        if self.shares.pop(share.submit.request, None) and self.ready:
            self._send(Cancel(share.submit.request))
        if not self.shares:
            self.workload.pause()

    async def load(self, model: str, folder: Path) -> None:
        """Have the engine load a model. If this is cancelled, the engine frees the model again.

        Raises CheckpointError if the model can't be loaded, EngineUnavailableError if no engine is ready.
        """
        if not self.ready:
            raise EngineUnavailableError("an engine is starting; try again in a few seconds")
        loading = _Loading(model, asyncio.get_running_loop().create_future())
        self._loading.append(loading)
        self._send(Load(str(folder)))
        await loading.loaded

    def unload(self, model: str) -> None:
        """Have the engine free a model, if it has it. The model must have no requests."""
        if model in self.loaded:
            self.loaded.remove(model)
            self._send(Unload(model))

    def _submit(self, share: Share) -> None:
        """Tell the engine what is unfinished of a share."""
        if submit := share.unfinished():
            share.sent = msgspec.structs.replace(submit, suspect=self._blame.is_suspect(share))
            self._send(share.sent)

    def _send(self, message: Submit | Cancel | Load | Unload) -> None:
        assert self._engine, "nothing is sent before an engine is ready"
        self._engine.send(message)

    async def _run_once(self) -> bool:
        """One life of an engine, to its end. Returns whether it made a step for a request or answered a ping."""
        self._blame.stepping = None
        for share in self.shares.values():
            share.sent = None
        engine = self._engine = await self._start()
        watch = asyncio.create_task(engine.watch(lambda: self.ready, self._patience))
        lived = False
        try:
            async with aclosing(engine.messages()) as messages:
                async for message in messages:
                    lived |= isinstance(message, StepReport | Pong)
                    self._receive(message)
                    if self._failure is not None:
                        break
        finally:
            self.ready = False
            self.loaded.clear()
            self.workload.clear()
            while self._loading:
                if not (loaded := self._loading.popleft().loaded).done():
                    loaded.set_exception(EngineUnavailableError("the engine died while it loaded the model; try again"))
            watch.cancel()
            await engine.end()
        return lived

    def _patience(self) -> int:
        """How many seconds of the engine's silence are no hang."""
        return self._settings.engine_timeout_seconds if self.ready and not self._loading else _START_SECONDS

    async def _start(self) -> Connection:
        """Start an engine with the models in rotation."""
        settings = self._settings.model_copy(update={"model": self._rotation.served})
        return await EngineProcess.start(
            command(settings, self._settings.log_format, self._number, known=self._rotation.fingerprints)
        )

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Stepping():
                self._blame.stepping = message
            case StepReport():
                self._on_report(message)
            case Pong():
                self.workload.on_pong(message)
                self._listener.on_pong(self._number, message)
            case Loaded() | NotLoaded():
                self._on_loaded(message)
            case Ready():
                self._on_ready(message)
            case Failed():
                self._failure = f"no engine can answer: {message.message}"

    def _on_report(self, report: StepReport) -> None:
        """Hand what a step brought to its shares."""
        self._blame.stepping = None
        self.workload.on_report(report)
        for request, seconds in report.started.items():
            if (share := self.shares.get(request)) and share.job.queue_seconds is None:
                share.job.queue_seconds = seconds
        shown = [share.show(step) for step in report.steps if (share := self.shares.get(step.request))]
        for trajectory in report.finished:
            if share := self.shares.get(trajectory.request):
                if share.job.ended:  # it has shares in other engines, and one of those ended it
                    self.close(share)
                    continue
                share.accept(trajectory)
                if share.job.unread > share.job.max_results:
                    self._end(share, SlowClientError())
        if report.finished or any(shown):
            self._blame.clear(report.model)
        for request in report.out_of_memory:
            if share := self.shares.get(request):
                self._end(share, OutOfMemoryError(report.model))
        self._listener.on_report(self._number, report)

    def _on_loaded(self, answer: Loaded | NotLoaded) -> None:
        """The engine answers the oldest load. If nobody waits for it any more, the model is freed again."""
        loading = self._loading.popleft()
        abandoned = loading.loaded.done()
        match answer:
            case Loaded() if abandoned:
                # A later load of the same model frees it itself, and decides whether the engine has the model.
                if all(later.model != answer.model for later in self._loading):
                    self._send(Unload(answer.model))
            case Loaded():
                self._rotation.fingerprints[answer.model] = answer.fingerprint
                self._check_kernels(answer.model, answer.kernels)
                self.loaded.add(answer.model)
                loading.loaded.set_result(None)
            case NotLoaded() if not abandoned:
                loading.loaded.set_exception(CheckpointError(answer.reason))

    def _on_ready(self, ready: Ready) -> None:
        """The engine can answer: submit all that waits."""
        self.loaded = set(ready.models)
        self.slots = ready.slots
        for model, reason in ready.missing.items():
            log.error("%s can't be loaded again: %s", model, reason)
            if model in self._rotation.folders:
                self._retire(model, "its files have changed since they were first loaded, or can't be read any more")
        if ready.threads:  # the next engine takes what this one has measured
            fixed = {"threads": ready.threads, "slots": ready.slots}
            self._settings = self._settings.model_copy(update=fixed)
        if self._failure is not None:
            return
        self.ready = True
        for model, fingerprint in ready.models.items():
            if model in self._rotation.folders:
                self._rotation.fingerprints[model] = fingerprint
                self._check_kernels(model, ready.kernels[model])
            else:  # it was removed while this engine started
                self.unload(model)
        for share in self.shares.values():
            self._submit(share)
        self._listener.on_ready(self._number, ready)

    def _check_kernels(self, model: str, kernels: str) -> None:
        """Retire a model whose steps would be made otherwise than before: its requests were promised the same answers."""
        if (before := self._rotation.kernels.setdefault(model, kernels)) != kernels:
            self._retire(model, f"its steps were made by {before} before, and now by {kernels}; restart the server")

    def _judge(self) -> bool:
        """Count the engine's death, and end what has killed too many engines. Returns whether anything was ended."""
        models, shares = self._blame.judge(self.shares.values())
        for model in models:
            self._retire(model, f"{MAX_DEATHS} engines in a row died in its steps")
        for share in shares:
            detail = f"{MAX_DEATHS} engines in a row died in the steps of this request; the server's log may say why"
            self._end(share, EngineUnavailableError(detail))
        return bool(models or shares)

    def _retire(self, model: str, reason: str) -> None:
        """Take a model out of rotation, and end its requests."""
        detail = f"{model} is out of rotation: {reason}; ask another model, or fix it and restart the server"
        log.error("%s", detail)
        self._rotation.out[model] = detail
        for share in [*self.shares.values()]:
            if share.submit.model == model:
                self._end(share, EngineUnavailableError(detail))
        if self._rotation.over:
            self._failure = f"no engine can answer, for no model is left: {detail}"

    def _end(self, share: Share, error: Exception) -> None:
        share.job.end(error)
        self.close(share)
