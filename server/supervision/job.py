"""A job is an unfinished request, as the API process keeps it until its client has the answer."""

import asyncio
import math
import time
from dataclasses import dataclass, field

import msgspec

from gram.server.engine.messages import Step, Submit, Trajectory

MAX_UNREAD_STEPS = 1000
"""Steps of trajectories on their way that wait for a slow client. Further ones are left out."""


@dataclass(eq=False)
class Job:
    """What a request has brought so far, and what it still needs. It outlives the engines that work on it."""

    submit: Submit
    submitted_at: float = field(default_factory=time.monotonic)
    """By time.monotonic()."""
    results: asyncio.Queue[Trajectory | Step | Exception] = field(default_factory=asyncio.Queue)
    max_results: float = math.inf
    """Trajectories that may wait for the reader. More end the job."""
    queue_seconds: float | None = None
    """Time until its first trajectory got a slot; None while it waits."""
    sent: Submit | None = None
    """The message that the present engine was sent."""
    deaths: int = 0
    """Engines that died in its steps, or may have, since its client last got something new."""
    _finished: set[int] = field(default_factory=set)
    _next: int = 0
    """The first gap: all trajectories before it are here."""
    _shown: dict[int, int] = field(default_factory=dict)
    """The index of a trajectory on its way -> its last step that was handed on."""
    _unread_steps: int = 0

    @property
    def complete(self) -> bool:
        """Whether all its trajectories are here. Its client may not have read them yet."""
        return self._next == self.submit.num_trajectories

    @property
    def remaining(self) -> int:
        """The number of trajectories from the first gap on."""
        return self.submit.num_trajectories - self._next

    @property
    def unread(self) -> int:
        """The number of trajectories that wait for the reader."""
        return self.results.qsize() - self._unread_steps

    async def read(self) -> Trajectory | Step:
        """Return what comes next, each thing once. Raises the error that the job was ended with."""
        result = await self.results.get()
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Step):
            self._unread_steps -= 1
        return result

    def show(self, step: Step) -> bool:
        """Hand on a step of a trajectory on its way, unless an earlier engine has shown it or the reader is slow.

        Returns whether it was handed on.
        """
        if self._has(step.index) or step.steps <= self._shown.get(step.index, 0) or self._unread_steps >= MAX_UNREAD_STEPS:
            return False
        self._shown[step.index] = step.steps
        self._unread_steps += 1
        self.deaths = 0
        self.results.put_nowait(step)
        return True

    def accept(self, trajectory: Trajectory) -> None:
        """Hand on a trajectory that ended, unless an earlier engine has reported it."""
        if self._has(trajectory.index):
            return
        self._shown.pop(trajectory.index, None)
        self._finished.add(trajectory.index)
        self.deaths = 0
        while self._next in self._finished:
            self._finished.remove(self._next)
            self._next += 1
        self.results.put_nowait(trajectory)

    def end(self, error: Exception) -> None:
        """End the job: its reader gets what is there, and then this error."""
        self.results.put_nowait(error)

    def unfinished(self) -> Submit | None:
        """What to submit to a new engine, if anything: all trajectories from the first gap on.

        Those of them that are here run again, and are not accepted twice. With pruning all trajectories run again, since who is
        pruned follows from the scores of those before.
        """
        if self.complete:
            return None
        if self.submit.prune:
            return self.submit
        return msgspec.structs.replace(self.submit, first_index=self._next)

    def _has(self, index: int) -> bool:
        return index < self._next or index in self._finished
