"""Admission: what may be open at a time is bounded, and no deadline is promised that the measured rate can't keep.

This is decided before a request is submitted, so a refused request has cost no step.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from gram.server.api.problems import ProblemError
from gram.server.engine.messages import StepReport
from gram.server.settings import ServerSettings
from gram.server.supervision.rate import Rate

_MARGIN = 1.5
"""The safety factor of a promise: the rate is an estimate, and trajectories differ in depth."""
_ENDLESS_SECONDS = 365 * 86_400.0
"""The time limit of what has none, since its answer must not depend on the load."""
_REVIEW_SECONDS = 0.1
"""The interval at which the promises are searched for the one that needs most."""


@dataclass(eq=False)
class Ticket:
    """An admitted request, as a context manager: its claim ends with the `with` block.

    `remaining`: trajectories that its client has not been sent. `deadline`: by time.monotonic(). `promised`: the request named
    the deadline itself, and was admitted because it can be kept.
    """

    queue: "Queue"
    remaining: int
    deadline: float
    stream: bool
    promised: bool
    background: bool = False
    """It is a batch request or belongs to a job: other requests go first, and are admitted as if it were not there."""

    def __enter__(self) -> "Ticket":
        self.queue.enter(self)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.queue.leave(self)

    def sent(self) -> None:
        """Count a trajectory as sent to the client."""
        self.remaining -= 1
        self.queue.remaining -= 1

    def need(self, now: float) -> float:
        """The rate, in trajectories per second, that would just keep the deadline."""
        return self.remaining / max(self.deadline - now, 1e-3)


@dataclass
class Queue:
    """The open requests of a model. They take turns, so each gets an equal share of the rate."""

    rate: Rate = field(default_factory=Rate)
    tickets: set[Ticket] = field(default_factory=set)
    remaining: int = 0
    streams: int = 0
    _need: float = 0.0
    _reviewed_at: float = -math.inf

    def enter(self, ticket: Ticket) -> None:
        self.tickets.add(ticket)
        self.remaining += ticket.remaining
        self.streams += ticket.stream

    def leave(self, ticket: Ticket) -> None:
        self.tickets.remove(ticket)
        self.remaining -= ticket.remaining
        self.streams -= ticket.stream
        if not self.tickets:
            self.rate.pause()

    def on_report(self, report: StepReport, now: float) -> None:
        self.rate.on_report(report, now)
        if not self.tickets:  # what the report says is waiting has been cancelled
            self.rate.pause()

    def need(self, rate: float, now: float) -> float:
        """The largest rate that a promise needs which can still be kept."""
        if now - self._reviewed_at > _REVIEW_SECONDS:
            needs = (ticket.need(now) for ticket in self.tickets if ticket.promised)
            self._need = max((need for need in needs if need * _MARGIN <= rate), default=0.0)
            self._reviewed_at = now
        return self._need

    def promise(self, need: float) -> None:
        """Take note of a new promise, which needs this rate."""
        self._need = max(self._need, need)

    def seconds_until(self, requests: int, now: float) -> float:
        """The seconds until this many of the open requests have ended, by the rate; 0 if the rate is not known."""
        rate = self.rate.at(now)
        return requests * self.remaining / len(self.tickets) / rate if rate and self.tickets else 0.0


class Admission:
    """Admits requests, or refuses them for the moment."""

    def __init__(self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = settings
        self._clock = clock
        self._queues: defaultdict[str, Queue] = defaultdict(Queue)
        self._batches: defaultdict[str, Queue] = defaultdict(Queue)
        self._jobs = Queue()

    def admit_job(self, num_trajectories: int) -> Ticket:
        """Admit a request of a job, which stands in nobody's way and has no deadline."""
        deadline = self._clock() + _ENDLESS_SECONDS
        return Ticket(self._jobs, num_trajectories, deadline, stream=False, promised=False, background=True)

    def admit_batch(self, model: str, num_trajectories: int, timeout: float | None, *, stream: bool) -> Ticket:
        """Admit a batch request, whose deadline is no promise. Raises ProblemError if it must come later."""
        queue, deadline = self._batches[model], self._clock() + (timeout or self._limits.max_timeout_seconds)
        self._check_streams(stream, queue)
        self._check_length(model, queue, num_trajectories, self._queues[model].rate.at(self._clock()))
        return Ticket(queue, num_trajectories, deadline, stream, promised=False, background=True)

    def on_report(self, report: StepReport) -> None:
        """Measure a supervision step."""
        self._queues[report.model].on_report(report, self._clock())

    def admit(self, model: str, num_trajectories: int, timeout: float | None, *, stream: bool) -> Ticket:
        """Admit a request, with its own timeout in seconds or the server's. Raises ProblemError if it must come later.

        A request that is alone is always admitted, whatever its size, and ends at its deadline with what it has then. But its
        deadline is no promise if it needs more than half of the rate.
        """
        (ticket,) = self.admit_together(1, model, num_trajectories, timeout, stream=stream)
        return ticket

    def admit_together(
        self, count: int, model: str, num_trajectories: int, timeout: float | None, *, stream: bool
    ) -> list[Ticket]:
        """Admit so many equal requests, or none of them, as `admit` does one. They count as alone if there are no others."""
        limits, now = self._limits, self._clock()
        queue = self._queues[model]
        deadline = now + (timeout or limits.max_timeout_seconds)
        tickets = [Ticket(queue, num_trajectories, deadline, stream, timeout is not None) for _ in range(count)]
        ticket = tickets[0]
        self._check_streams(count * stream, queue)
        rate, others = queue.rate.at(now), len(queue.tickets)
        self._check_length(model, queue, count * num_trajectories, rate)
        if rate:
            own = ticket.need(now) if ticket.promised else 0.0
            need = max(own, queue.need(rate, now)) * _MARGIN
            if others and rate < need * (others + count):
                message = f"beside {others} other requests of {model}, this one or one of them would exceed its timeout_seconds"
                raise _overloaded(message, queue.seconds_until(others - max(int(rate / need) - count, 0), now))
            for each in tickets:
                each.promised &= own * _MARGIN * (count + 1) <= rate
        if ticket.promised:
            queue.promise(ticket.need(now))
        return tickets

    def _check_streams(self, more: int, queue: Queue) -> None:
        most, queues = self._limits.max_streams, [*self._queues.values(), *self._batches.values()]
        if more and sum(q.streams for q in queues) + more > most:
            raise _overloaded(f"{most} streams are open, which is the limit", queue.seconds_until(1, self._clock()))

    def _check_length(self, model: str, queue: Queue, more: int, rate: float | None) -> None:
        most = self._limits.max_queued
        over = queue.remaining + more - most
        if queue.tickets and over > 0:
            message = f"{queue.remaining} trajectories of {model} are queued, and the limit is {most}"
            raise _overloaded(message, min(over, queue.remaining) / rate if rate else 0.0)


def _overloaded(detail: str, seconds: float) -> ProblemError:
    retry = str(max(1, math.ceil(seconds)))
    return ProblemError(429, f"{detail}; try again in {retry} s", headers={"retry-after": retry})
