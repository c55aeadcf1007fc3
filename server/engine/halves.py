"""A lane's slots come in two halves that take turns: while one is stepped, the other retires trajectories and starts new ones.

So the device and the host do not wait for each other. Where a step is made by the host's own thread there is only one.
"""

from collections.abc import Set
from dataclasses import dataclass, field

from gram.kernels.readout import Readout
from gram.server.engine.runner import Runner
from gram.server.engine.slots import SlotPool, Start


@dataclass
class Half:
    """Some of a lane's slots, and the step that runs over them. While it does, nobody may touch the pool.

    `starts`: trajectories that have a slot and wait for the next step. `started`: requests that start with that step, and the
    seconds that they waited. `stepping`: the requests in the step that runs; None while there is none.
    """

    part: int
    pool: SlotPool
    starts: list[Start] = field(default_factory=list)
    started: dict[int, float] = field(default_factory=dict)
    stepping: Set[int] | None = None
    _given_up: list[int] = field(default_factory=list)
    _error: RuntimeError | None = None

    def start(self, runner: Runner, starts: list[Start], requests: Set[int]) -> None:
        """Place trajectories, and start a step. What goes wrong is raised by `finish`."""
        self.stepping = requests
        try:
            self.pool.place(starts)
            runner.start(self.pool)
        except RuntimeError as error:
            self._error = error

    def finish(self, runner: Runner) -> Readout:
        """Wait for the step."""
        self.stepping = None
        if self._error:
            error, self._error = self._error, None
            raise error
        return runner.finish(self.pool)

    def release(self, slots: list[int]) -> None:
        """Free slots: now, or with the next call once the step is over."""
        self._given_up += slots
        if self.stepping is None:
            slots, self._given_up = self._given_up, []
            self.pool.release(slots)

    def clear(self) -> None:
        """Free all slots, after an error."""
        self.starts, self.started, self._given_up = [], {}, []
        self.pool.clear()
