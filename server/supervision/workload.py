"""What an engine has to do, and how fast it is, by what it reports."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable

from gram.server.engine.messages import LaneStats, Pong, StepReport
from gram.server.supervision.balance import Backlog
from gram.server.supervision.job import Share
from gram.server.supervision.rate import Rate


class Workload:
    """The load of one engine, by model, and its measured rates."""

    def __init__(self) -> None:
        self._lanes: dict[str, LaneStats] = {}
        self._rates: defaultdict[str, Rate] = defaultdict(Rate)

    def on_report(self, report: StepReport) -> None:
        """Measure a supervision step."""
        self._lanes[report.model] = report.stats
        self._rates[report.model].on_report(report, time.monotonic())

    def on_pong(self, pong: Pong) -> None:
        """Take note of what the engine has."""
        self._lanes.update(pong.lanes)

    def clear(self) -> None:
        """The engine is gone, and with it what it had."""
        self._lanes.clear()
        self.pause()

    def pause(self) -> None:
        """Nothing waits in the engine any more."""
        for rate in self._rates.values():
            rate.pause()

    def backlog(self, shares: Iterable[Share]) -> Backlog:
        """What it has to do, and how fast it is. `shares`: what it was sent, by this process."""
        remaining = {model: lane.live + lane.waiting for model, lane in self._lanes.items()}
        own: Counter[str] = Counter()
        for share in shares:
            own[share.submit.model] += share.remaining
        # The engine has not told of what it was sent last; and one that others use too tells of theirs.
        remaining |= {model: max(count, remaining.get(model, 0)) for model, count in own.items()}
        return Backlog(remaining, self._known_rates())

    def busy(self, slots: int) -> float:
        """The share of the slots that are live, in all models."""
        return sum(lane.live for lane in self._lanes.values()) / (slots * max(len(self._lanes), 1))

    @property
    def queued_seconds(self) -> float:
        """The time that the trajectories that wait for a slot will take, as far as it is known."""
        rates = self._known_rates()
        return sum(lane.waiting / rate for model, lane in self._lanes.items() if (rate := rates.get(model)))

    def _known_rates(self) -> dict[str, float | None]:
        now = time.monotonic()
        return {model: rate.at(now) for model, rate in self._rates.items()}
