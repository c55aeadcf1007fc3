"""A job is an unfinished request, as the API process keeps it until its client has the answer."""

import asyncio
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from gram.server.engine.messages import Step, Submit, Trajectory

MAX_UNREAD_STEPS = 1000
"""Steps of trajectories on their way that wait for a slow client. Further ones are left out."""


@dataclass(eq=False)
class Job:
    """What the engines bring for a request, in the order in which it comes."""

    submit: Submit
    """The whole request. Its shares have numbers of their own."""
    submitted_at: float = field(default_factory=time.monotonic)
    """By time.monotonic()."""
    results: asyncio.Queue[Trajectory | Step | Exception] = field(default_factory=asyncio.Queue)
    max_results: float = math.inf
    """Trajectories that may wait for the reader. More end the job."""
    queue_seconds: float | None = None
    """Time until its first trajectory got a slot; None while it waits."""
    shares: list["Share"] = field(default_factory=list)
    ended: bool = False
    """Whether it was ended with an error."""
    _unread_steps: int = 0

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
        """Hand on a step, unless the reader is slow. Returns whether it was handed on."""
        if self._unread_steps >= MAX_UNREAD_STEPS:
            return False
        self._unread_steps += 1
        self.results.put_nowait(step)
        return True

    def share(self, number: int, first: int, last: int) -> "Share":
        """A new share, under this number: the trajectories with index first .. last - 1."""
        submit = msgspec.structs.replace(self.submit, request=number, first_index=first, num_trajectories=last)
        self.shares.append(Share(self, submit))
        return self.shares[-1]

    def split(self, share: "Share", at: int, numbers: Iterator[int]) -> tuple["Share", "Share"]:
        """Replace a share by two, under these numbers: its trajectories before the index `at`, and the others."""
        self.shares.remove(share)
        before = self.share(next(numbers), share.submit.first_index, at)
        after = self.share(next(numbers), at, share.submit.num_trajectories)
        for part in (before, after):
            part.go_on_from(share)
        return before, after

    def end(self, error: Exception) -> None:
        """End the job: its reader gets what is there, and then this error."""
        self.ended = True
        self.results.put_nowait(error)


@dataclass(eq=False)
class Share:
    """A range of a job's trajectories, for one engine: what it has brought, and what it still needs. It outlives engines."""

    job: Job
    submit: Submit
    sent: Submit | None = None
    """The message that the present engine was sent."""
    deaths: int = 0
    """Engines that died in its steps, or may have, since it last brought something new."""
    _finished: set[int] = field(default_factory=set)
    _next: int = 0
    """The first gap: all its trajectories before that are here."""
    _shown: dict[int, int] = field(default_factory=dict)
    """The index of a trajectory on its way -> its last step that was handed on."""

    def __post_init__(self) -> None:
        self._next = self.submit.first_index

    @property
    def complete(self) -> bool:
        """Whether all its trajectories are here. The client may not have read them yet."""
        return self._next == self.submit.num_trajectories

    @property
    def remaining(self) -> int:
        """The number of trajectories from the first gap on."""
        return self.submit.num_trajectories - self._next

    def go_on_from(self, whole: "Share") -> None:
        """Know what the share has brought that this one is a part of."""
        own = range(self.submit.first_index, self.submit.num_trajectories)
        self.deaths = whole.deaths
        self._finished = {index for index in own if whole._has(index)}
        self._shown = {index: step for index, step in whole._shown.items() if index in own}
        self._advance()

    def show(self, step: Step) -> bool:
        """Hand on a step of a trajectory on its way, unless an earlier engine has shown it or the reader is slow.

        Returns whether it was handed on.
        """
        if self._has(step.index) or step.steps <= self._shown.get(step.index, 0) or not self.job.show(step):
            return False
        self._shown[step.index] = step.steps
        self.deaths = 0
        return True

    def accept(self, trajectory: Trajectory) -> None:
        """Hand on a trajectory that ended, unless an earlier engine has reported it."""
        if self._has(trajectory.index):
            return
        self._shown.pop(trajectory.index, None)
        self._finished.add(trajectory.index)
        self.deaths = 0
        self._advance()
        self.job.results.put_nowait(trajectory)

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

    def _advance(self) -> None:
        while self._next in self._finished:
            self._finished.remove(self._next)
            self._next += 1

    def _has(self, index: int) -> bool:
        return index < self._next or index in self._finished
