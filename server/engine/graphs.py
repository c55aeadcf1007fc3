"""The runner on a GPU: a tile's supervision step is recorded as a CUDA graph, and replayed wherever the tile has live rows.

A step is some hundred kernels, most of them shorter than the time it takes to launch one; a graph launches them all at once.

The tile is the bucket. A graph for each number of tiles would keep the GPU busier, but for another shape the matrix library
may choose another algorithm, which adds up in another order, and then the load would change the last bits of a row. Here
every graph holds the same kernels over the same shapes, only over other rows: batch invariance by construction, as in
runner.py. Small loads gain too: rows that are not there cost nothing beyond the last tile.
"""

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gram.models.network import GRAM
from gram.server.engine.runner import Observed, Runner, observe
from gram.server.engine.slots import SlotPool

GPU_TILE = 64
"""Rows per tile on a GPU. An H100 takes 0.64 ms for one of a bundled model, at a fourteenth of the rate of large products: more
rows are the next to try."""


class _Recorded(NamedTuple):
    """A pool's step: a graph for each tile, the report's copy in pinned memory, and the event behind that copy."""

    graphs: list[torch.cuda.CUDAGraph]
    report: Tensor
    done: torch.cuda.Event


class GraphRunner(Runner):
    """Owns a model on a CUDA device."""

    tile = GPU_TILE

    def __init__(self, model: GRAM, device: torch.device) -> None:
        super().__init__(model, device)
        self._recorded: WeakKeyDictionary[SlotPool, _Recorded] = WeakKeyDictionary()

    def pool(self, num_slots: int) -> SlotPool:
        """Slots for this model, and the graphs that step them: all the memory that serving takes.

        Raises torch.OutOfMemoryError.
        """
        pool = super().pool(num_slots)
        report = torch.empty(pool.report.shape, dtype=pool.report.dtype, pin_memory=True)
        self._recorded[pool] = _Recorded(self._record(pool), report, torch.cuda.Event())  # type: ignore[no-untyped-call]
        return pool

    def launch(self, pool: SlotPool) -> Callable[[], Observed]:
        """As Runner.launch. Nothing in it waits for the device: what was enqueued before comes first, and one copy ends it."""
        graphs, report, done = self._recorded[pool]
        for graph in graphs[: -(-pool.live // self.tile)]:
            graph.replay()
        report[: pool.live].copy_(pool.report[: pool.live], non_blocking=True)
        done.record()

        def wait() -> Observed:
            done.synchronize()
            return observe(pool, report)

        return wait

    def _record(self, pool: SlotPool) -> list[torch.cuda.CUDAGraph]:
        """The graphs read and write the pool's own tensors and share the memory of what lies between: they run one by one."""
        graphs = []
        memory = torch.cuda.graph_pool_handle()
        # The pool's own: what PyTorch keeps for a stream's matrix products goes when a graph recorded on it is deleted.
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        for start in range(0, len(pool.report), self.tile):
            # Once for real, on the same stream: kernels are compiled and libraries set up, which can't be recorded.
            with torch.cuda.stream(stream):
                self._step_tile(pool, start)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, memory, stream):  # waits for the device first
                self._step_tile(pool, start)
            graphs.append(graph)
        return graphs
