"""The runner on a CPU whose kernels take each row by itself: threads share the live rows, one row at a time.

So no thread waits for another for longer than a row takes, whoever else wants its core, and rows need no tiles.
"""

from collections.abc import Callable

import torch

from gram.kernels.readout import Readout
from gram.models.native import NativeStep, Shown
from gram.models.network import GRAM, State
from gram.server.engine.runner import Runner, Threads
from gram.server.engine.slots import SlotPool


class RowRunner(Runner):
    """Steps the rows of a pool by the kernels of kernels/cpu, which also show what the step brings."""

    by_row = True

    def __init__(self, model: GRAM, device: torch.device, threads: Threads | None, kernels: NativeStep) -> None:
        super().__init__(model, device, threads)
        self._kernels = kernels
        self._steps: dict[SlotPool, Callable[[], None]] = {}

    @torch.inference_mode()
    def start(self, pool: SlotPool) -> None:
        """As Runner.start."""
        rows = slice(pool.live)
        state = State(pool.state.h[rows], pool.state.l[rows])
        shown = Shown(pool.last[rows], pool.halt_threshold[rows], pool.report[rows])
        step = self._kernels.share(state, pool.e_x, pool.puzzle[rows], pool.noise_key(rows), pool.sigmas[rows], shown)
        if self.threads:
            self._parts[pool] = [self.threads.submit(step) for _ in range(min(self.threads.count, pool.live))]
        else:
            self._steps[pool] = step

    @torch.inference_mode()
    def finish(self, pool: SlotPool) -> Readout:
        """As Runner.finish."""
        if self.threads:
            self._wait(pool)
        else:
            self._steps.pop(pool)()
        pool.transition[: pool.live] += self.model.config.transitions
        return pool.readout(pool.report[: pool.live])


def cpu_runner(model: GRAM, device: torch.device, threads: Threads | None) -> Runner:
    """The runner of a model on a CPU, by the kernels that were chosen for it."""
    kernels = model.native
    return RowRunner(model, device, threads, kernels) if isinstance(kernels, NativeStep) else Runner(model, device, threads)
