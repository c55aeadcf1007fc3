"""The runner on a GPU. It records the step of each tile as a CUDA graph, and replays the graphs of the tiles with live rows.

A step is about a hundred kernels, and most of them take less time than their launch. A graph launches all of them at once.

A graph of all tiles together would keep the GPU busier. But for another shape, the matrix library may choose another algorithm,
which sums in another order, and then the load would change the last bits of a row. Here all graphs run the same kernels on the
same shapes, each on its own rows: batch invariance by construction, as in runner.py. A small load gains too, since a tile
without live rows costs nothing.

Where one program makes the whole step of a row (kernels/gpu/step.py), rows share no product, and a graph is of all tiles up to
its last: one replay a step, of the smallest graph with all live rows, and as many programs side by side as there are rows.
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
larger tiles may be faster."""


class _Recorded(NamedTuple):
    """The recorded step of a pool: its graphs, the report's copy in pinned memory, and an event after the copy."""

    graphs: list[torch.cuda.CUDAGraph]
    report: Tensor
    done: torch.cuda.Event


class GraphRunner(Runner):
    """Steps the rows of a pool on a CUDA device."""

    tile = GPU_TILE

    def __init__(self, model: GRAM, device: torch.device) -> None:
        super().__init__(model, device)
        self.overlaps = True
        self._recorded: WeakKeyDictionary[SlotPool, _Recorded] = WeakKeyDictionary()

    def pool(self, num_slots: int) -> SlotPool:
        """Allocate slots for this model, and record the graphs that step them. Steps allocate no more memory.

        Raises torch.OutOfMemoryError.
        """
        pool = super().pool(num_slots)
        report = torch.empty(pool.report.shape, dtype=pool.report.dtype, pin_memory=True)
        self._recorded[pool] = _Recorded(self._record(pool), report, torch.cuda.Event())  # type: ignore[no-untyped-call]
        return pool

    def start(self, pool: SlotPool) -> None:
        """As Runner.start: enqueue the graphs and one copy to the host, and wait for nothing."""
        graphs, report, done = self._recorded[pool]
        tiles = -(-pool.live // self.tile)
        for graph in graphs[tiles - 1 : tiles] if self.model.native else graphs[:tiles]:
            graph.replay()
        report[: pool.live].copy_(pool.report[: pool.live], non_blocking=True)
        done.record()

    def finish(self, pool: SlotPool) -> Readout:
        """As Runner.finish. The readout is in pinned memory of the host."""
        _, report, done = self._recorded[pool]
        done.synchronize()
        return pool.readout(report[: pool.live])

    def _record(self, pool: SlotPool) -> list[torch.cuda.CUDAGraph]:
        """Record a graph for each tile, or for all up to it. They run one after another, so they can share a memory pool."""
        graphs = []
        memory = torch.cuda.graph_pool_handle()
        # It takes a new stream: when a graph is deleted, PyTorch frees the matrix products' workspace of the graph's stream.
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        for start in range(0, len(pool.report), self.tile):
            rows = slice(0 if self.model.native else start, start + self.tile)
            # A run before the recording compiles kernels and initialises libraries, which can't be recorded.
            with torch.cuda.stream(stream):
                self._step_rows(pool, rows)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, memory, stream):  # this waits for the device first
                self._step_rows(pool, rows)
            graphs.append(graph)
        return graphs

    def _step_rows(self, pool: SlotPool, rows: slice) -> None:
        self._advance(pool, rows)
        self._show(pool, rows)
