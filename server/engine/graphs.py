"""The runner on a GPU: each tile's supervision step is recorded as a CUDA graph, which is replayed if the tile has live rows.

A step is about a hundred kernels, most of them shorter than the time to launch one. A graph launches all of them at once.

One graph for each number of tiles would keep the GPU busier. But the matrix library may choose another algorithm for another
shape, which sums in another order, and then the load would change the last bits of a row. Here all graphs run the same kernels
over the same shapes, each over its own rows: batch invariance by construction, as in runner.py. Small loads gain too, since
tiles without live rows cost nothing.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gram.kernels.readout import Readout
from gram.models.network import GRAM
from gram.server.engine.runner import Runner
from gram.server.engine.slots import SlotPool

GPU_TILE = 64
"""Rows per tile on a GPU. An H100 takes 0.64 ms for a tile of a bundled model, a fourteenth of its rate at large products, so
larger tiles are worth a try."""


class _Recorded(NamedTuple):
    """A pool's step: a graph for each tile, a copy of the report in pinned memory, and the event that follows the copy."""

    graphs: list[torch.cuda.CUDAGraph]
    report: Tensor
    done: torch.cuda.Event


class GraphRunner(Runner):
    """Steps the rows of a pool on a CUDA device."""

    tile = GPU_TILE

    def __init__(self, model: GRAM, device: torch.device) -> None:
        super().__init__(model, device)
        self._recorded: WeakKeyDictionary[SlotPool, _Recorded] = WeakKeyDictionary()

    def pool(self, num_slots: int) -> SlotPool:
        """Allocate slots for this model and record the graphs that step them: all the memory that serving needs.

        Raises torch.OutOfMemoryError.
        """
        pool = super().pool(num_slots)
        report = torch.empty(pool.report.shape, dtype=pool.report.dtype, pin_memory=True)
        self._recorded[pool] = _Recorded(self._record(pool), report, torch.cuda.Event())  # type: ignore[no-untyped-call]
        return pool

    def start(self, pool: SlotPool) -> None:
        """As Runner.start. It enqueues the graphs and one copy to the host, and waits for nothing."""
        graphs, report, done = self._recorded[pool]
        for graph in graphs[: -(-pool.live // self.tile)]:
            graph.replay()
        report[: pool.live].copy_(pool.report[: pool.live], non_blocking=True)
        done.record()

    def finish(self, pool: SlotPool) -> Readout:
        """As Runner.finish. The readout lies in pinned memory of the host."""
        _, report, done = self._recorded[pool]
        done.synchronize()
        return pool.readout(report[: pool.live])

    def _record(self, pool: SlotPool) -> list[torch.cuda.CUDAGraph]:
        """Record a graph for each tile. They work on the pool's tensors, and share one memory pool: they run one by one."""
        graphs = []
        memory = torch.cuda.graph_pool_handle()
        # A stream of its own: PyTorch frees a stream's workspace for matrix products when a graph recorded on it is deleted.
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        for start in range(0, len(pool.report), self.tile):
            # One real run on the same stream compiles kernels and sets up libraries, which can't be recorded.
            with torch.cuda.stream(stream):
                self._step_tile(pool, start)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, memory, stream):  # waits for the device first
                self._step_tile(pool, start)
            graphs.append(graph)
        return graphs
