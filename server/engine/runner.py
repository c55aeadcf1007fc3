"""The runner: makes one supervision step of all live rows, tile by tile. It knows the model and the device.

Every tile has the same shape whatever the load, and on the CPU each is computed by one thread. So a row's arithmetic
never depends on how many rows, slots or threads there are: batch invariance by construction. (What is left, that a
matrix product treats the rows of one shape alike, is tested.) It is also the fastest way found: a tile's activations
stay in one core's cache, and the cores don't wait for each other inside a step.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.gram import GRAM, State
from server.engine.slots import SlotPool

CPU_TILE = 8
"""Rows per tile on the CPU: large enough for the matrix products, small enough that a lone row wastes little."""
GPU_TILE = 64


@dataclass(frozen=True)
class Observed:
    """What the host learns of each live row after a step; arrays [live] and the decoded answers [live, N]."""

    halt_probability: NDArray[np.float32]
    score: NDArray[np.float32]
    finite: NDArray[np.bool_]
    answer: NDArray[np.uint8]


class Runner:
    """Owns a model on a device."""

    def __init__(self, model: GRAM, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.tile = CPU_TILE if device.type == "cpu" else GPU_TILE
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        threads = cores if device.type == "cpu" else 1
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tile") if threads > 1 else None

    def pool(self, num_slots: int) -> SlotPool:
        """Slots for this model on this device."""
        return SlotPool(self.model, num_slots, self.tile, self.device)

    def step(self, pool: SlotPool) -> Observed:
        """One supervision step of every live row, in place."""
        starts = range(0, pool.live, self.tile)
        if self._threads and len(starts) > 1:
            tiles = list(self._threads.map(lambda start: self._step_tile(pool, start), starts))
        else:
            tiles = [self._step_tile(pool, start) for start in starts]
        numbers = torch.cat([numbers for numbers, _ in tiles])[: pool.live].cpu().numpy()
        answers = torch.cat([answers for _, answers in tiles])[: pool.live].cpu().numpy()
        return Observed(numbers[:, 0], numbers[:, 1], numbers[:, 2] > 0, answers)

    @torch.inference_mode()
    def _step_tile(self, pool: SlotPool, start: int) -> tuple[Tensor, Tensor]:
        """Rows start .. start + tile - 1: (halt probability, score, finite) float32 [tile, 3] and answers uint8 [tile, N]."""
        rows = slice(start, start + self.tile)
        h, low = pool.state.h[rows], pool.state.l[rows]
        state = self.model.supervision_step(
            State(h, low),
            pool.e_x[pool.puzzle[rows]],
            pool.seed[rows],
            pool.trajectory[rows],
            pool.transition[rows],
            pool.temperature[rows],
        )
        h.copy_(state.h)
        low.copy_(state.l)
        pool.transition[rows] += self.model.config.transitions
        heads = self.model.read_heads(state.h)
        # A sum is finite only if all its terms are.
        finite = (state.h.sum((1, 2), dtype=torch.float32) + state.l.sum((1, 2), dtype=torch.float32)).isfinite()
        numbers = torch.stack([heads.halt.sigmoid(), heads.value.sigmoid(), finite.float()], dim=1)
        return numbers, self.model.decode(state.h).argmax(-1).to(torch.uint8)
