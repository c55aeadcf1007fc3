"""The fleet of engines, one for each device, and how they share the work. A model is loaded on all of them.

A request goes to the engine that will finish it first. One for more trajectories than an engine has slots is divided over those
that are free sooner than one engine alone would be done: a trajectory is a pure function of (weights, puzzle, seed, index), so
its answer does not tell which engine made which. An engine that comes later takes over part of what the others have not begun.
"""

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from gram.server.catalog import model_name
from gram.server.engine.messages import Ready, Step, Submit, Trajectory
from gram.server.settings import ServerSettings
from gram.server.supervision.balance import divide, loads
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.job import Job, Share
from gram.server.supervision.rotation import Rotation
from gram.server.supervision.supervisor import Listener, Supervisor

log = logging.getLogger("gram")


class Fleet:
    """Owns the supervisors. All methods run on the API process's event loop."""

    fixed = False
    """Whether models neither come nor go while it runs, since others decide what the engines have."""

    def __init__(self, settings: ServerSettings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._rotation = Rotation({model_name(folder): folder for folder in settings.model})
        self._supervisors: list[Supervisor] = []
        self._tasks = asyncio.TaskGroup()
        self._failure: str | None = None
        self._ids = itertools.count()
        self._closed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether an engine can answer."""
        return any(supervisor.ready for supervisor in self._supervisors)

    @property
    def kernels(self) -> dict[str, str]:
        """Who makes the steps of each model that an engine has loaded."""
        return self._rotation.kernels

    @property
    def out_of_rotation(self) -> dict[str, str]:
        """Models out of rotation -> the error message that their requests get."""
        return self._rotation.out

    async def run(self) -> None:
        """Keep the engines running until cancelled. Raises EngineUnavailableError when the last one gives up."""
        try:
            async with self._tasks:
                self._start(self._settings.engines or 1)
        except* EngineUnavailableError as errors:
            raise errors.exceptions[0] from None

    def open(self, submit: Callable[[int], Submit]) -> Job:
        """Submit a request under a number of its own. Call `close` however it ends. Raises EngineUnavailableError."""
        job = Job(submit(next(self._ids)))
        if reason := self._failure or self._rotation.out.get(job.submit.model):
            raise EngineUnavailableError(reason)
        self._share_out(job)
        return job

    def close(self, job: Job) -> None:
        """Forget a job, and cancel what it still has in the engines."""
        for share in job.shares:
            for supervisor in self._supervisors:
                supervisor.close(share)
        self._closed.set()

    def end(self, job: Job, error: Exception) -> None:
        """Free what a job holds. Its reader gets what is there, and then this error."""
        job.end(error)
        self.close(job)

    def end_all(self, error: Exception) -> None:
        """End all open jobs with this error."""
        for job in {share.job for share in self._shares}:
            self.end(job, error)

    async def trajectories(self, job: Job) -> AsyncGenerator[Trajectory | Step]:
        """Yield a job's trajectories as they end, each once, and between them the steps that it watches.

        Raises the error that the job was ended with.
        """
        missing = job.submit.num_trajectories
        while missing:
            result = await job.read()
            missing -= isinstance(result, Trajectory)
            yield result

    async def load(self, folder: Path) -> None:
        """Load one more model, on all engines. Nothing of it stays behind if this fails or is cancelled.

        Raises CheckpointError if it can't be loaded, EngineUnavailableError if an engine is not ready.
        """
        name = model_name(folder)
        try:
            for supervisor in [*self._supervisors]:
                await supervisor.load(name, folder)
            if not all(name in supervisor.loaded for supervisor in self._supervisors):
                raise EngineUnavailableError("an engine died while the model was loaded; try again")
        except BaseException:
            self._remove(name)
            raise
        self._rotation.folders[name] = folder

    async def unload(self, name: str) -> None:
        """Free a model when the last of its requests has ended. The caller admits no new ones."""
        while any(share.submit.model == name for share in self._shares):
            self._closed.clear()
            await self._closed.wait()
        self._remove(name)

    @property
    def _shares(self) -> list[Share]:
        return [share for supervisor in self._supervisors for share in supervisor.shares.values()]

    def _remove(self, name: str) -> None:
        self._rotation.remove(name)
        for supervisor in self._supervisors:
            supervisor.unload(name)

    def _start(self, count: int) -> None:
        """Start supervisors until there are `count`."""
        listener = dataclasses.replace(self._listener, on_ready=self._on_ready)
        for number in range(len(self._supervisors), count):
            supervisor = Supervisor(self._settings, self._rotation, number, listener)
            self._supervisors.append(supervisor)
            self._tasks.create_task(self._run(supervisor))

    async def _run(self, supervisor: Supervisor) -> None:
        """Run a supervisor. When it gives up, its shares go to the others."""
        try:
            await supervisor.run()
        except EngineUnavailableError as error:
            if len(self._supervisors) == 1 or self._rotation.over:
                self._failure = str(error)
                self.end_all(error)
                raise
            log.error("%s; the other engines go on", error)
            self._supervisors.remove(supervisor)
            for share in supervisor.shares.values():
                self._place(share)

    def _on_ready(self, number: int, ready: Ready) -> None:
        """The first engine to start tells how many devices there are."""
        if number == 0 and self._settings.engines is None:
            self._start(ready.devices)
        self._listener.on_ready(number, ready)
        self._relieve()

    def _share_out(self, job: Job) -> None:
        """Divide a job over the engines. With pruning one gets all: who is pruned follows from the scores of those before."""
        submit, count = job.submit, job.submit.num_trajectories
        able = [supervisor for supervisor in self._supervisors if supervisor.ready and supervisor.serves(submit.model)]
        if len(able) < 2 or submit.prune:
            self._place(job.share(submit.request, 0, count))
            return
        first, least = 0, max(supervisor.slots for supervisor in able)
        for supervisor, size in zip(
            able, divide(count, loads([each.backlog for each in able], submit.model), least), strict=True
        ):
            if size:
                supervisor.take(job.share(next(self._ids), first, first := first + size))

    def _relieve(self) -> None:
        """Give engines that have nothing to do the last part of the large shares of others.

        What an engine has begun of a share that is divided, at most a trajectory for each slot, begins again.
        """
        for idle in [each for each in self._supervisors if each.ready and not each.shares]:
            for busy in [each for each in self._supervisors if each.ready and each is not idle]:
                for share in [*busy.shares.values()]:
                    self._move_part(share, busy, idle)

    def _move_part(self, share: Share, busy: Supervisor, idle: Supervisor) -> None:
        """Give the idle engine the last part of a busy one's share, if both parts together end sooner and it may be divided."""
        if not idle.serves(share.submit.model) or share.submit.prune or share.deaths or share.job.ended:
            return
        theirs, own = loads([busy.backlog, idle.backlog], share.submit.model)
        others = theirs._replace(seconds=max(theirs.seconds - share.remaining / theirs.rate, 0.0))
        keep, give = divide(share.remaining, [others, own], max(busy.slots, idle.slots))
        if keep and give:
            busy.close(share)
            rest, moved = share.job.split(share, share.submit.num_trajectories - give, self._ids)
            busy.take(rest)
            idle.take(moved)

    def _place(self, share: Share) -> None:
        """Give a share to the engine that will finish it first."""
        able = [supervisor for supervisor in self._supervisors if supervisor.serves(share.submit.model)]
        able = [supervisor for supervisor in able if supervisor.ready] or able
        sizes = divide(share.remaining, loads([each.backlog for each in able], share.submit.model), share.remaining)
        able[sizes.index(share.remaining)].take(share)
