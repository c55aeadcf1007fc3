"""An unfinished request, as the API process keeps it."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from gram.server.engine.messages import Step, Submit, Trajectory

if TYPE_CHECKING:
    from gram.server.supervision.supervisor import Supervisor

MAX_UNREAD_STEPS = 1000
"""Of a request whose client reads slowly: what its trajectories show beyond that on their way is left out."""


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
    """An unfinished request, as the API process keeps it. `supervisor` is the one that took it last."""

    submit: Submit
    supervisor: "Supervisor" = field(init=False)
    submitted_at: float = field(default_factory=time.monotonic)
    results: asyncio.Queue[Trajectory | Step | Exception] = field(default_factory=asyncio.Queue)
    max_results: float = math.inf
    """Trajectories that may wait for the reader. More end the job."""
    queue_seconds: float | None = None
    sent: Submit | None = None
    """What the present engine was told."""
    deaths: int = 0
    """Engines that died while they stepped it, or may have, since its client last got something new."""
    _finished: set[int] = field(default_factory=set)
    _next: int = 0
    _shown: dict[int, int] = field(default_factory=dict)
    """Trajectories on their way -> the last step of them that was handed on."""
    _unread_steps: int = 0

    @property
    def complete(self) -> bool:
        """Whether all its trajectories are here; its client may not have read them yet."""
        return self._next == self.submit.num_trajectories

    @property
    def remaining(self) -> int:
        """Trajectories that are not here, past the first gap."""
        return self.submit.num_trajectories - self._next

    @property
    def unread(self) -> int:
        """Trajectories that wait for the reader."""
        return self.results.qsize() - self._unread_steps

    async def read(self) -> Trajectory | Step:
        """What comes next, each thing once. Raises what the job is ended with."""
        result = await self.results.get()
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Step):
            self._unread_steps -= 1
        return result

    def show(self, step: Step) -> bool:
        """Hand on what a trajectory shows on its way, unless an engine that died has already, or the reader is slow.

        Returns whether it did.
        """
        if self._has(step.index) or step.steps <= self._shown.get(step.index, 0) or self._unread_steps >= MAX_UNREAD_STEPS:
            return False
        self._shown[step.index] = step.steps
        self._unread_steps += 1
        self.deaths = 0
        self.results.put_nowait(step)
        return True

    def accept(self, trajectory: Trajectory) -> None:
        """Hand a trajectory on, unless an engine that died has already reported it."""
        if self._has(trajectory.index):
            return
        self._shown.pop(trajectory.index, None)
        self._finished.add(trajectory.index)
        self.deaths = 0
        while self._next in self._finished:
            self._finished.remove(self._next)
            self._next += 1
        self.results.put_nowait(trajectory)

    def _has(self, index: int) -> bool:
        """Whether this trajectory is here."""
        return index < self._next or index in self._finished

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
