"""How fast a model's trajectories end: measured, since it follows from the machine and from the puzzles."""

import math

from gram.server.engine.messages import StepReport

_MEMORY_SECONDS = 10.0
"""The age at which a measurement weighs a third of a new one."""
_BELIEF_SECONDS = 60.0
"""The time without a measurement after which no rate is known."""


class Rate:
    """The trajectories that a model finishes per second while more wait than it has slots: its capacity, not its load."""

    def __init__(self) -> None:
        self._ended = 0.0
        self._seconds = 0.0
        self._began: float | None = None
        self._measured_at = -math.inf

    def on_report(self, report: StepReport, now: float) -> None:
        """Measure a step, if trajectories have waited since the step before."""
        if self._began is not None:
            seconds = now - self._began
            kept = math.exp(-seconds / _MEMORY_SECONDS)
            self._ended = self._ended * kept + len(report.finished)
            self._seconds = self._seconds * kept + seconds
            self._measured_at = now
        self._began = now if report.stats.waiting else None

    def pause(self) -> None:
        """Nothing waits any more: do not measure until the next step."""
        self._began = None

    def at(self, now: float) -> float | None:
        """The rate at time `now`, if it is known."""
        known = self._ended > 0 and now - self._measured_at < _BELIEF_SECONDS
        return self._ended / self._seconds if known else None
