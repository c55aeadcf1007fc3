"""Who runs next: requests, trajectories and slots. Plain Python: no torch, no HTTP, no clock."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

HALT_THRESHOLD = 0.5
"""A trajectory halts when its halt probability exceeds this (App. A.1)."""


@dataclass
class Request:
    """A request's trajectories: those from `next` to `stop - 1` wait, those in `slots` run."""

    id: int
    next: int
    stop: int
    max_steps: int
    slots: set[int] = field(default_factory=set)


@dataclass
class Running:
    """A trajectory in a slot, after `steps` supervision steps."""

    request: Request
    index: int
    steps: int = 0


class Scheduler:
    """Gives free slots to waiting trajectories, the requests taking turns, one trajectory a turn.

    So a request of one trajectory waits for one round of the others' turns, however many trajectories those have, and
    a request holds memory for its slots alone: its waiting trajectories are two numbers.
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

    def holds(self, request: int) -> bool:
        """Whether the request has trajectories running or waiting."""
        return request in self._requests

    def submit(self, request: int, first: int, stop: int, max_steps: int) -> None:
        """Queue trajectories first .. stop - 1 of a new request."""
        if request in self._requests:
            raise ValueError(f"request {request} is already here")
        if not first < stop:
            raise ValueError(f"request {request} has no trajectory to run")
        entry = self._requests[request] = Request(request, first, stop, max_steps)
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

    def step(self, slot: int, halt_probability: float, *, finite: bool) -> tuple[int, int, int] | None:
        """The trajectory in this slot has made a step. If it ends with it, its slot is freed.

        Returns (request, trajectory, steps) of a trajectory that ended: it halted, reached max_steps or lost its state.
        """
        running = self._running[slot]
        running.steps += 1
        request = running.request
        if finite and halt_probability <= HALT_THRESHOLD and running.steps < request.max_steps:
            return None
        del self._running[slot]
        self._free.append(slot)
        request.slots.remove(slot)
        if not request.slots and request.next == request.stop:
            del self._requests[request.id]
        return request.id, running.index, running.steps
