"""The scheduler decides which trajectory gets a slot and which one gives its slot up. No torch, no HTTP, no clock."""

from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from operator import attrgetter

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
    """A trajectory in a slot. `steps` and `ending` are set when it ends, and its slot is then free.

    `begun`: the number of steps that its part of the slots had made when it got the slot.
    """

    slot: int
    request: int
    index: int
    steps: int = 0
    ending: Ending | None = None
    begun: int = field(default=0, compare=False)


class Scheduler:
    """Gives free slots to waiting trajectories. The requests take turns, one trajectory a turn, those in the background last.

    So a request for one trajectory waits for one round of turns, however many trajectories the other requests have. The waiting
    trajectories of a request are two numbers. (With pruning, it also keeps the scores at the checkpoint steps.)

    The slots may have several parts, which step in turns: part 0, part 1, part 0 ..., but for those without trajectories. The
    slots of a part are a range of numbers, and those of part 0 come first.
    """

    def __init__(self, *sizes: int) -> None:
        """`sizes`: the number of slots in each part."""
        bounds = [*accumulate(sizes)]
        self._bounds = bounds
        self._free = [list(range(*pair)) for pair in pairwise([0, *bounds])]
        self._running: list[dict[int, Running]] = [{} for _ in sizes]
        self._steps = [0 for _ in sizes]
        self._requests: dict[int, Request] = {}
        self._turns: deque[Request] = deque()
        self._pruned = 0  # requests that are pruned
        self._background: deque[Request] = deque()
        self._passed = 0  # the slots in a row that went past a waiting request in the background
        self.waiting = 0

    @property
    def live(self) -> int:
        """The number of slots that are taken."""
        return sum(map(len, self._running))

    @property
    def idle(self) -> bool:
        """Whether no request has trajectories, running or waiting."""
        return not self._requests

    @property
    def prunes(self) -> bool:
        """Whether it has a request with pruning."""
        return self._pruned > 0

    def part(self, slot: int) -> int:
        """The part that a slot belongs to."""
        return bisect_right(self._bounds, slot)

    def running_requests(self, part: int = 0) -> set[int]:
        """The requests whose trajectories have slots of a part."""
        return set(map(attrgetter("request"), self._running[part].values()))

    def running(self, requests: Container[int], part: int = 0) -> list[Running]:
        """What runs of these requests in a part, with the steps that each trajectory has made, in the order of their starts."""
        running = [running for running in self._running[part].values() if running.request in requests]
        return [replace(each, steps=self._steps[part] - each.begun) for each in running]

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
        self._pruned += prune is not None
        self.waiting += stop - first

    def cancel(self, request: int) -> list[int]:
        """Forget a request, and return the slots that its trajectories held. An unknown request held none."""
        entry = self._requests.pop(request, None)
        if entry is None:
            return []
        self._pruned -= entry.rungs is not None
        if entry.next < entry.stop:
            entry.turns.remove(entry)
            self.waiting -= entry.stop - entry.next
        slots = sorted(entry.slots)
        for slot in slots:
            part = self.part(slot)
            del self._running[part][slot]
            self._free[part].append(slot)
        return slots

    def admit(self, part: int = 0, *, evenly: bool = False) -> Iterator[Running]:
        """Give the free slots of a part to waiting trajectories, and yield each one that starts now.

        `evenly`: no more than the part's share of all that run and wait.

        Invariants: once all are taken from this iterator, no slot of the part is free while a trajectory waits, unless it has
        its share. A request's trajectories start in the order of their index, and `_running` keeps the order of the starts.
        """
        free, running = self._free[part], self._running[part]
        most = -(-(self.live + self.waiting) // len(self._running)) if evenly else self.live + self.waiting
        while free and len(running) < most and (turns := self._next_turns()):
            request = turns.popleft()
            started = Running(free.pop(), request.id, request.next, begun=self._steps[part])
            request.next += 1
            self.waiting -= 1
            request.slots.add(started.slot)
            running[started.slot] = started
            if request.next < request.stop:
                turns.append(request)
            yield started

    def _next_turns(self) -> "deque[Request]":
        """Whose turn it is: that of the requests in the background, or of the others; empty if nobody waits."""
        if self._turns and self._background and self._passed < BACKGROUND_SHARE - 1:
            self._passed += 1
            return self._turns
        self._passed = 0
        return self._background or self._turns

    def step(self, shown: Mapping[int, tuple[float, Ending | None]], part: int = 0) -> list[Running]:
        """Count a step of every trajectory in a part, and return those that end with it, whose slots are then free.

        `shown`, by slot: the LPRM's score, and how the trajectory would end by itself now (None: it goes on). Those that go on
        may be left out if no request is pruned.
        """
        self._steps[part] += 1
        every = self._running[part]
        ended = []
        # A request's trajectories start in the order of their index, and the parts take turns. So when one comes to a rung,
        # those with a lower index have come there before or have ended: pruning does not depend on slots, load or time.
        for running in [running for slot, running in every.items() if slot in shown]:
            slot, steps = running.slot, self._steps[part] - running.begun
            score, ending = shown[slot]
            request = self._requests[running.request]
            if ending is not Ending.NOT_FINITE and steps < request.min_steps:
                ending = None
            if ending is None and request.rungs is not None and not request.rungs.passes(steps, score):
                ending = Ending.PRUNED
            if ending is None:
                continue
            running.steps, running.ending = steps, ending
            del every[slot]
            self._free[part].append(slot)
            request.slots.remove(slot)
            if not request.slots and request.next == request.stop:
                del self._requests[request.id]
                self._pruned -= request.rungs is not None
            ended.append(running)
        return ended
