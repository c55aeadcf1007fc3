"""The scheduler decides which trajectory gets a slot and which one gives its slot up. No torch, no HTTP, no clock."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gram.server.engine.messages import Ending
from gram.server.engine.pruning import Prune, Rungs

BACKGROUND_SHARE = 16
"""Of so many slots that are wanted by both, one goes to a request in the background."""


@dataclass
class Request:
    """The trajectories of a request: those with index `next` .. `stop - 1` wait, those in `slots` run."""

    id: int
    next: int
    stop: int
    rungs: Rungs | None = None
    min_steps: int = 1
    slots: set[int] = field(default_factory=set)
    turns: "deque[Request]" = field(default_factory=deque, repr=False, compare=False)
    """The queue that it waits in."""


@dataclass
class Running:
    """A trajectory in a slot. `ending` is set when it ends, and its slot is then free."""

    slot: int
    request: int
    index: int
    steps: int = 0
    ending: Ending | None = None


class Scheduler:
    """Gives free slots to waiting trajectories. The requests take turns, one trajectory a turn, those in the background last.

    So a request for one trajectory waits for one round of turns, however many trajectories the other requests have. The waiting
    trajectories of a request are two numbers. (With pruning, it also keeps the scores at the checkpoint steps.)
    """

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots))
        self._running: dict[int, Running] = {}
        self._requests: dict[int, Request] = {}
        self._turns: deque[Request] = deque()
        self._background: deque[Request] = deque()
        self._passed = 0  # the slots in a row that went past a waiting request in the background
        self.waiting = 0

    @property
    def live(self) -> int:
        """The number of slots that are taken."""
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Whether no request has trajectories, running or waiting."""
        return not self._requests

    @property
    def running(self) -> list[Running]:
        """The trajectories that have slots, in the order of their starts."""
        return [*self._running.values()]

    @property
    def running_requests(self) -> set[int]:
        """The requests whose trajectories have slots."""
        return {running.request for running in self._running.values()}

    def holds(self, request: int) -> bool:
        """Whether the request has trajectories, running or waiting."""
        return request in self._requests

    def submit(
        self,
        request: int,
        first: int,
        stop: int,
        prune: Prune | None = None,
        min_steps: int = 1,
        *,
        background: bool = False,
    ) -> None:
        """Queue trajectories first .. stop - 1 of a new request; with `prune`, first is 0.

        No trajectory halts before it has made `min_steps` supervision steps. In the background a request gets the slots that no
        other request waits for, and one of BACKGROUND_SHARE of those that they do, so that it ends some day.
        """
        if request in self._requests:
            raise ValueError(f"request {request} is already here")
        if not first < stop:
            raise ValueError(f"request {request} has no trajectory to run")
        if prune and first:
            raise ValueError(f"request {request} is pruned, which needs the scores of all its trajectories")
        entry = self._requests[request] = Request(request, first, stop, Rungs(prune) if prune else None, min_steps)
        entry.turns = self._background if background else self._turns
        entry.turns.append(entry)
        self.waiting += stop - first

    def cancel(self, request: int) -> list[int]:
        """Forget a request, and return the slots that its trajectories held. An unknown request held none."""
        entry = self._requests.pop(request, None)
        if entry is None:
            return []
        if entry.next < entry.stop:
            entry.turns.remove(entry)
            self.waiting -= entry.stop - entry.next
        slots = sorted(entry.slots)
        for slot in slots:
            del self._running[slot]
        self._free += slots
        return slots

    def admit(self) -> Iterator[Running]:
        """Give the free slots to waiting trajectories, and yield each one that starts now.

        Invariants: once all are taken from this iterator, no slot is free while a trajectory waits. The trajectories of a
        request start in the order of their index, and `_running` keeps the order of the starts.
        """
        while self._free and (turns := self._next_turns()):
            request = turns.popleft()
            running = Running(self._free.pop(), request.id, request.next)
            request.next += 1
            self.waiting -= 1
            request.slots.add(running.slot)
            self._running[running.slot] = running
            if request.next < request.stop:
                turns.append(request)
            yield running

    def _next_turns(self) -> "deque[Request]":
        """Whose turn it is: that of the requests in the background, or of the others; empty if nobody waits."""
        if self._turns and self._background and self._passed < BACKGROUND_SHARE - 1:
            self._passed += 1
            return self._turns
        self._passed = 0
        return self._background or self._turns

    def step(self, shown: Mapping[int, tuple[float, Ending | None]]) -> list[Running]:
        """Count a step of every running trajectory, and return those that end with it, whose slots are then free.

        `shown`, by slot: the LPRM's score, and how the trajectory would end by itself now (None: it goes on).
        """
        ended = []
        # A request's trajectories are in the order of their index, and all rows step together. So when one comes to a rung,
        # those with a lower index have come there before or have ended: pruning does not depend on slots, load or time.
        for slot, running in list(self._running.items()):
            score, ending = shown[slot]
            running.steps += 1
            request = self._requests[running.request]
            if ending is not Ending.NOT_FINITE and running.steps < request.min_steps:
                ending = None
            if ending is None and request.rungs is not None and not request.rungs.passes(running.steps, score):
                ending = Ending.PRUNED
            if ending is None:
                continue
            running.ending = ending
            del self._running[slot]
            self._free.append(slot)
            request.slots.remove(slot)
            if not request.slots and request.next == request.stop:
                del self._requests[request.id]
            ended.append(running)
        return ended
