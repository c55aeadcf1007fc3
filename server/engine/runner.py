"""The runner makes one supervision step of all live rows, tile by tile. It knows the model and the device.

Every tile has the same shape whatever the load, and on a CPU each tile is computed by one thread. So a row's arithmetic never
depends on how many rows, slots or threads there are: batch invariance by construction. (The matrix product must also treat all
rows of a tile alike, which tests check.) It was also the fastest way of those tried: a tile's activations stay in one core's
cache, and the cores do not wait for each other within a step.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from gram.kernels.readout import Readout
from gram.models.network import GRAM, State
from gram.server.engine.messages import Ending
from gram.server.engine.slots import SlotPool

CPU_TILE = 8
"""Rows per tile on a CPU: enough for efficient matrix products, and few enough that a single row wastes little."""


class Runner:
    """Steps the rows of a pool on a device. With `threads`, they compute the tiles side by side.

    `start` and `finish` make one step. Between the two calls nobody may touch the pool.
    """

    tile = CPU_TILE

    def __init__(self, model: GRAM, device: torch.device, threads: ThreadPoolExecutor | None = None) -> None:
        self.model = model
        self.device = device
        self.threads = threads
        self._tiles: list[Future[None]] = []

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
            self._tiles = [self.threads.submit(self._step_tile, pool, start) for start in self._starts(pool)]

    def finish(self, pool: SlotPool) -> Readout:
        """Wait for the step that was started, and return what it shows of the live rows. The next step overwrites it."""
        if self.threads:
            tiles, self._tiles = self._tiles, []
            # Wait for all tiles even if one has failed: a tile that still runs writes to the pool.
            if errors := [error for tile in tiles if (error := tile.exception())]:
                raise errors[0]
        else:
            for start in self._starts(pool):
                self._step_tile(pool, start)
        return pool.readout(pool.report[: pool.live])

    def _starts(self, pool: SlotPool) -> range:
        """The first row of each tile that has live rows."""
        return range(0, pool.live, self.tile)

    @torch.inference_mode()
    def _step_tile(self, pool: SlotPool, start: int) -> None:
        """Step rows start .. start + tile - 1, in place, and write what they show to the pool's report."""
        rows = slice(start, start + self.tile)
        # Kernels that take each row by itself leave out the rows of the tile that are not live.
        stepped = slice(start, min(rows.stop, pool.live)) if self.model.native else rows
        key = pool.noise_key(stepped)
        state = State(pool.state.h[stepped], pool.state.l[stepped])
        after = self.model.advance(state, pool.e_x[pool.puzzle[stepped]], key, pool.sigmas[stepped])
        state.h.copy_(after.h)
        state.l.copy_(after.l)
        key.transition.add_(self.model.config.transitions)
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
