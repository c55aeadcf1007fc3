"""The runner makes one supervision step of all live rows. It knows the model and the device.

Rows share products tile by tile. Every tile has the same shape whatever the load, and on a CPU each is computed by one thread.
So a row's arithmetic never depends on how many rows, slots or threads there are: batch invariance by construction. (The matrix
product must also treat all rows of a tile alike, which tests check.) It was also the fastest way of those tried: a tile's
activations stay in one core's cache, and the cores do not wait for each other within a step. Kernels that take each row by
itself (models/native.py, models/fused.py) need tiles only for what a step shows; there, threads share the live rows evenly.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import torch

from gram.kernels.readout import Readout
from gram.models.network import GRAM, State
from gram.server.engine.messages import Ending
from gram.server.engine.slots import SlotPool

CPU_TILE = 8
"""Rows per tile on a CPU: enough for efficient matrix products, and few enough that a single row wastes little."""


class Threads(ThreadPoolExecutor):
    """The computing threads of an engine."""

    def __init__(self, count: int) -> None:
        super().__init__(count, thread_name_prefix="tile")
        self.count = count


class Runner:
    """Steps the rows of a pool on a device. With `threads`, they compute parts of them side by side.

    `start` and `finish` make one step. Between the two calls nobody may touch the pool.
    """

    tile = CPU_TILE

    def __init__(self, model: GRAM, device: torch.device, threads: Threads | None = None) -> None:
        self.model = model
        self.device = device
        self.threads = threads
        self._parts: list[Future[None]] = []

    def pool(self, num_slots: int) -> SlotPool:
        """Allocate slots for this model on this device."""
        return SlotPool(self.model, num_slots, self.tile, self.device)

    def step(self, pool: SlotPool) -> Readout:
        """Make one supervision step of every live row, in place."""
        self.start(pool)
        return self.finish(pool)

    def start(self, pool: SlotPool) -> None:
        """Start a step of every live row."""
        if self.threads:
            self._parts = [self.threads.submit(self._advance, pool, rows) for rows in self._split(pool)]

    def finish(self, pool: SlotPool) -> Readout:
        """Wait for the step that was started, and return what it shows of the live rows. The next step overwrites it."""
        if self.threads:
            parts, self._parts = self._parts, []
            # Wait for all parts even if one has failed: a part that still runs writes to the pool.
            if errors := [error for part in parts if (error := part.exception())]:
                raise errors[0]
        else:
            for rows in self._split(pool):
                self._advance(pool, rows)
        for start in range(0, pool.live, self.tile):
            self._show(pool, self._tile(start))
        return pool.readout(pool.report[: pool.live])

    def _split(self, pool: SlotPool) -> list[slice]:
        """The parts of the rows that are stepped side by side: tiles, or of the live rows an even share for each thread."""
        if not self.model.native:
            return [self._tile(start) for start in range(0, pool.live, self.tile)]
        count = min(self.threads.count if self.threads else 1, pool.live)
        bounds = [pool.live * i // count for i in range(count + 1)] if count else []
        return [slice(*pair) for pair in pairwise(bounds)]

    def _tile(self, start: int) -> slice:
        return slice(start, start + self.tile)

    @torch.inference_mode()
    def _advance(self, pool: SlotPool, rows: slice) -> None:
        """Step rows, in place."""
        key = pool.noise_key(rows)
        state = State(pool.state.h[rows], pool.state.l[rows])
        after = self.model.advance(state, pool.e_x[pool.puzzle[rows]], key, pool.sigmas[rows])
        state.h.copy_(after.h)
        state.l.copy_(after.l)
        key.transition.add_(self.model.config.transitions)

    @torch.inference_mode()
    def _show(self, pool: SlotPool, rows: slice) -> None:
        """Write what rows show after their step to the pool's report."""
        state = State(pool.state.h[rows], pool.state.l[rows])
        shown = self.model.read(state, pool.transition[rows], pool.last[rows], pool.halt_threshold[rows])
        report = pool.readout(pool.report[rows])
        report.numbers.copy_(shown.numbers)
        report.answers.copy_(shown.answers)


def endings(readout: Readout) -> list[Ending | None]:
    """How each row's trajectory ends with this step; None for a row that goes on."""
    columns = (readout.retires, readout.finite, readout.halts)
    return [
        (Ending.NOT_FINITE if not finite else Ending.HALTED if halted else Ending.DEPTH) if retires else None
        for retires, finite, halted in zip(*(column.tolist() for column in columns), strict=True)
    ]
