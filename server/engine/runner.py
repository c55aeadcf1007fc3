"""The runner: makes one supervision step of all live rows, tile by tile. It knows the model and the device.

Every tile has the same shape whatever the load, and on the CPU each is computed by one thread. So a row's arithmetic
never depends on how many rows, slots or threads there are: batch invariance by construction. (What is left, that a
matrix product treats the rows of one shape alike, is tested.) It is also the fastest way found: a tile's activations
stay in one core's cache, and the cores don't wait for each other inside a step.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.models.network import GRAM, State
from gram.server.engine.slots import SlotPool

HALT_THRESHOLD = 0.5
"""A trajectory halts when its halt probability exceeds this (App. A.1)."""

CPU_TILE = 8
"""Rows per tile on the CPU: large enough for the matrix products, small enough that a lone row wastes little."""


@dataclass(frozen=True)
class Observed:
    """What the host learns of each live row after a step: arrays [live] and the decoded answers [live, N].

    `retires`: it has halted, made its last step or lost its state, which is not `finite` then. The arrays are views of
    memory that the next step writes to.
    """

    score: NDArray[np.float32]
    finite: NDArray[np.bool_]
    retires: NDArray[np.bool_]
    answer: NDArray[np.uint8]


class Runner:
    """Owns a model on a device. `threads`, if it is given any, compute its tiles side by side."""

    tile = CPU_TILE

    def __init__(self, model: GRAM, device: torch.device, threads: ThreadPoolExecutor | None = None) -> None:
        self.model = model
        self.device = device
        self.threads = threads

    def pool(self, num_slots: int) -> SlotPool:
        """Slots for this model on this device."""
        return SlotPool(self.model, num_slots, self.tile, self.device)

    def step(self, pool: SlotPool) -> Observed:
        """One supervision step of every live row, in place."""
        return self.launch(pool)()

    def launch(self, pool: SlotPool) -> Callable[[], Observed]:
        """Start a step. The function returned waits for it; until then nobody may touch the pool."""
        starts = range(0, pool.live, self.tile)
        step = partial(self._step_tile, pool)
        tiles = [self.threads.submit(step, start) for start in starts] if self.threads else []

        def wait() -> Observed:
            if not self.threads:
                for start in starts:
                    step(start)
            # All of them, also where one has failed: a tile writes to the pool for as long as it runs.
            if errors := [error for tile in tiles if (error := tile.exception())]:
                raise errors[0]
            return observe(pool, pool.report)

        return wait

    @torch.inference_mode()
    def _step_tile(self, pool: SlotPool, start: int) -> None:
        """Rows start .. start + tile - 1."""
        rows = slice(start, start + self.tile)
        h, low = pool.state.h[rows], pool.state.l[rows]
        transition = pool.transition[rows]
        state = self.model.supervision_step(
            State(h, low),
            pool.e_x[pool.puzzle[rows]],
            pool.seed[rows],
            pool.trajectory[rows],
            transition,
            pool.temperature(rows),
        )
        h.copy_(state.h)
        low.copy_(state.l)
        transition += self.model.config.transitions
        shown = self.model.read(state, transition, pool.last[rows], HALT_THRESHOLD)
        numbers, answers = pool.shown(pool.report[rows])
        numbers.copy_(shown.numbers)
        answers.copy_(shown.answers)


def observe(pool: SlotPool, report: Tensor) -> Observed:
    """The live rows' part of the pool's report, which has come to the host."""
    numbers, answers = (part.numpy() for part in pool.shown(report[: pool.live]))
    return Observed(numbers[:, 1], numbers[:, 2] > 0, numbers[:, 3] > 0, answers)
