"""The runner makes one supervision step of all live rows. It knows the model and the device.

Rows share products tile by tile. Every tile has the same shape whatever the load, and on a CPU each is computed by one thread.
So a row's arithmetic never depends on how many rows, slots or threads there are: batch invariance by construction. (The matrix
product must also treat all rows of a tile alike, which tests check.) It was also the fastest way of those tried: a tile's
activations stay in one core's cache, and the cores do not wait for each other within a step. Kernels that take each row by
itself need no tiles: rows.py.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
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

    `start` and `finish` make one step. Between the two calls nobody may touch the pool. Of several pools, each may be started
    before the others are finished; they are finished in the order of their starts.
    """

    tile = CPU_TILE
    by_row = False
    """Whether rows share no tile, so that it does not matter how they are divided among pools."""

    def __init__(self, model: GRAM, device: torch.device, threads: Threads | None = None) -> None:
        self.model = model
        self.device = device
        self.threads = threads
        self.overlaps = threads is not None
        """Whether `start` returns before the step is made."""
        self._parts: dict[SlotPool, list[Future[None]]] = {}

    def sizes(self, num_slots: int) -> list[int]:
        """The slots of each of a lane's pools: two pools of whole tiles, if a step is made beside the host's work."""
        grain = 1 if self.by_row else self.tile
        first = -(-num_slots // (2 * grain)) * grain
        return [first, num_slots - first] if self.overlaps and first < num_slots else [num_slots]

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
            self._parts[pool] = [self.threads.submit(self._advance, pool, rows) for rows in self._tiles(pool)]

    def finish(self, pool: SlotPool) -> Readout:
        """Wait for the step that was started, and return what it shows of the live rows. The next step overwrites it."""
        self._wait(pool)
        for rows in self._tiles(pool):
            if not self.threads:
                self._advance(pool, rows)
            self._show(pool, rows)
        return pool.readout(pool.report[: pool.live])

    def _wait(self, pool: SlotPool) -> None:
        """Wait for all parts even if one has failed: a part that still runs writes to the pool."""
        parts = self._parts.pop(pool, [])
        if errors := [error for part in parts if (error := part.exception())]:
            raise errors[0]

    def _tiles(self, pool: SlotPool) -> list[slice]:
        return [slice(start, start + self.tile) for start in range(0, pool.live, self.tile)]

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
    found: list[Ending | None] = [None] * len(readout.numbers)
    rows = np.flatnonzero(readout.retires.numpy())  # few of the rows, so that all others cost nothing
    for row, finite, halts in zip(rows.tolist(), readout.finite.numpy()[rows], readout.halts.numpy()[rows], strict=True):
        found[row] = Ending.NOT_FINITE if not finite else Ending.HALTED if halts else Ending.DEPTH
    return found
