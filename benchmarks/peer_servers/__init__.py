"""The peers of `benchmarks.peers`: each a module that serves POST /v1/solve by `BatchSolver`, batched in the peer's own way.

`python -m benchmarks.peer_servers PEER` starts one.

Each has a worker for each CPU, and each worker one computing thread, as each peer's documentation advises for a CPU.
"""

import os
from dataclasses import dataclass

from benchmarks.load import LARGEST_K
from benchmarks.whole_requests import BatchSolver, Depth

TASKS = ("nqueens-8", "sudoku-9x9")
WAIT_SECONDS = 0.01
"""How long a batch waits for further requests: 10 ms, where the peers' documentation begins."""
PATIENCE_SECONDS = 600
"""No request may time out: then a peer would have less to do."""
BENTO_OPTIONS = "PEER_OPTIONS"
"""The environment variable with the options of BentoML's workers, in JSON."""


@dataclass(frozen=True)
class PeerOptions:
    """Where a peer listens, and how it batches: at most `batch_size` requests."""

    port: int
    batch_size: int
    depth: Depth

    def solver(self) -> BatchSolver:
        """What a worker computes with."""
        return BatchSolver(TASKS, self.depth, rows=self.batch_size * LARGEST_K, threads=1)


def workers() -> int:
    """A worker for each CPU."""
    return len(os.sched_getaffinity(0))
