"""The peers of `benchmarks.peers`: each a module that serves POST /v1/solve by `BatchSolver`, batched in the peer's own way.

Each has a worker for each CPU, and each worker one computing thread, as each peer's documentation advises for a CPU.
"""

import argparse
import os
from dataclasses import dataclass
from typing import get_args

from benchmarks.load import LARGEST_K
from benchmarks.whole_requests import BatchSolver, Depth

TASKS = ("nqueens-8", "sudoku-9x9")
WAIT_SECONDS = 0.01
"""How long a batch waits for further requests: 10 ms, where the peers' documentation begins."""
PATIENCE_SECONDS = 600
"""No request may time out: then a peer would have less to do."""


@dataclass(frozen=True)
class PeerOptions:
    """Where a peer listens, and how it batches: at most `batch_size` requests."""

    port: int
    batch_size: int
    depth: Depth

    @classmethod
    def parse(cls) -> "PeerOptions":
        """From the command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--batch-size", type=int, required=True)
        parser.add_argument("--depth", choices=get_args(Depth), required=True)
        return cls(**vars(parser.parse_args()))

    def solver(self) -> BatchSolver:
        """What a worker computes with."""
        return BatchSolver(TASKS, self.depth, rows=self.batch_size * LARGEST_K, threads=1)


def workers() -> int:
    """A worker for each CPU."""
    return len(os.sched_getaffinity(0))
