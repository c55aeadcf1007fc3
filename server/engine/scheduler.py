"""Who runs next: requests, trajectories and slots. Plain Python: no torch, no HTTP, no clock."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gram.server.engine.pruning import Prune, Rungs


@dataclass
class Request:
    """A request's trajectories: those from `next` to `stop - 1` wait, those in `slots` run."""

    id: int
    next: int
    stop: int
    rungs: Rungs | None = None
    min_steps: int = 1
    slots: set[int] = field(default_factory=set)


@dataclass
class Running:
    """A trajectory in a slot, after `steps` supervision steps."""

    request: Request
    index: int
    steps: int = 0


class Observation(NamedTuple):
    """What a step showed of a trajectory: the LPRM's value, whether it would end (see kernels.readout), and a sound state."""

    value: float
    retires: bool
    finite: bool = True


class Ended(NamedTuple):
    """A trajectory that ended: it retired by itself or was pruned."""

    slot: int
    request: int
    trajectory: int
    steps: int
    pruned: bool


class Scheduler:
    """Gives free slots to waiting trajectories, the requests taking turns, one trajectory a turn.

    So a request of one trajectory waits for one round of the others' turns, however many trajectories those have, and
    a request holds memory for its slots alone: its waiting trajectories are two numbers. (With pruning it also holds a
    number for each trajectory and checkpoint step.)
    """

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots))
        self._running: dict[int, Running] = {}
        self._requests: dict[int, Request] = {}
        self._turns: deque[Request] = deque()
        self.waiting = 0

    @property
    def live(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        return not self._requests

    @property
    def running(self) -> set[int]:
        """The requests with trajectories in slots."""
        return {running.request.id for running in self._running.values()}

    @property
    def trajectories(self) -> Iterator[tuple[int, int, int, int]]:
        """(slot, request, trajectory, steps made) of each that runs."""
        return ((slot, running.request.id, running.index, running.steps) for slot, running in self._running.items())

    def holds(self, request: int) -> bool:
        """Whether the request has trajectories running or waiting."""
        return request in self._requests

    def submit(self, request: int, first: int, stop: int, prune: Prune | None = None, min_steps: int = 1) -> None:
        """Queue trajectories first .. stop - 1 of a new request. One that is pruned starts with its trajectory 0.

        None that is finite ends by itself before it has made `min_steps`.
        """
        if request in self._requests:
            raise ValueError(f"request {request} is already here")
        if not first < stop:
            raise ValueError(f"request {request} has no trajectory to run")
        if prune and first:
            raise ValueError(f"request {request} is pruned, which takes the values of all its trajectories")
        entry = self._requests[request] = Request(request, first, stop, Rungs(prune) if prune else None, min_steps)
        self._turns.append(entry)
        self.waiting += stop - first

    def cancel(self, request: int) -> list[int]:
        """Forget the request; returns the slots that its trajectories held. Unknown requests hold none."""
        entry = self._requests.pop(request, None)
        if entry is None:
            return []
        if entry.next < entry.stop:
            self._turns.remove(entry)
            self.waiting -= entry.stop - entry.next
        slots = sorted(entry.slots)
        for slot in slots:
            del self._running[slot]
        self._free += slots
        return slots

    def admit(self) -> Iterator[tuple[int, int, int]]:
        """Fill the free slots: yields (slot, request, trajectory) for each trajectory that starts now."""
        while self._free and self._turns:
            request = self._turns.popleft()
            slot, index = self._free.pop(), request.next
            request.next += 1
            self.waiting -= 1
            request.slots.add(slot)
            self._running[slot] = Running(request, index)
            if request.next < request.stop:
                self._turns.append(request)
            yield slot, request.id, index

    def step(self, observed: Mapping[int, Observation]) -> list[Ended]:
        """Every running trajectory has made a step; what it showed, by slot. Frees the slots of those that end with it."""
        ended = []
        # `_running` is in the order of the starts, which within a request is that of the index. And all rows step together.
        # So when a trajectory comes to a rung, each of a lower index has come to it before or has ended: what is pruned does
        # not depend on slots, load or time.
        for slot, running in list(self._running.items()):
            value, retires, finite = observed[slot]
            running.steps += 1
            request = running.request
            retires &= running.steps >= request.min_steps or not finite
            pruned = not retires and request.rungs is not None and not request.rungs.passes(running.steps, value)
            if not retires and not pruned:
                continue
            del self._running[slot]
            self._free.append(slot)
            request.slots.remove(slot)
            if not request.slots and request.next == request.stop:
                del self._requests[request.id]
            ended.append(Ended(slot, request.id, running.index, running.steps, pruned))
        return ended
