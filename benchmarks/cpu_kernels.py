"""Who makes the step on a CPU: our kernels for AVX-512, oneDNN's fused products, or PyTorch's own operations in turn.

Each side is an engine of its own, on one thread, with the same weights and requests. The sides take turns.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from gram.models.config import ZOO
from gram.models.packed import pack
from gram.models.serving import Kernels
from gram.models.tasks import TASKS
from gram.server.engine.engine import Engine
from gram.server.engine.messages import StepReport
from gram.server.engine.runner import CPU_TILE, Runner
from gram.server.local import steps
from gram.server.sampling.options import Options
from gram.server.settings import Dtype, EngineSettings

SIDES: tuple[Kernels, ...] = ("PyTorch", "oneDNN", "AVX-512")
TURNS, SECONDS = 5, 2.0


@dataclass
class Side:
    """An engine at work, and the rates that were measured."""

    reports: Iterator[StepReport]
    rates: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Let it work for a turn."""
        begin, rows = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begin) < SECONDS:
            rows += next(self.reports).rows
        self.rates.append(rows / seconds)


def engine_at_work(folder: Path, dtype: Dtype, kernels: Kernels, trajectories: int) -> Iterator[StepReport]:
    """The reports of an engine that is never idle: requests for so many trajectories, one after another or side by side."""
    engine = Engine(EngineSettings(model=[folder], device="cpu", dtype=dtype, threads=1, slots=2 * CPU_TILE))
    (lane,) = engine.lanes.values()
    model = lane.runner.model
    if kernels == "AVX-512" and not model.native:
        raise SystemExit("there are no kernels for this processor here; is there a C++ compiler?")
    if kernels != "AVX-512":
        model.native = None
        lane.runner = Runner(model, lane.runner.device)
    if kernels == "oneDNN":
        pack(model, CPU_TILE)
    puzzles = TASKS[folder.name].held_out
    options = Options(num_trajectories=trajectories)
    requests = (options.submit(i, folder.name, puzzles[i % len(puzzles)], i) for i in itertools.count())
    return steps(engine, requests, in_flight=1 if trajectories == 1 else 4)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_kernels", description=__doc__)
    parser.parse_args()
    print(f"| model | dtype | trajectories | {' | '.join(SIDES)} | AVX-512 / PyTorch |\n| --- | --- | --- |{' --- |' * 4}")
    for name, dtype in itertools.product(("nqueens-8", "sudoku-9x9"), get_args(Dtype)):
        if dtype == "auto":
            continue
        for trajectories, load in ((16, "all slots full"), (1, "one at a time")):
            sides = [Side(engine_at_work(ZOO / name, dtype, kernels, trajectories)) for kernels in SIDES]
            for _ in range(TURNS):
                for side in sides:
                    side.measure()
            rates = [statistics.median(side.rates) for side in sides]
            cells = " | ".join(f"{rate:,.0f}" for rate in rates)
            print(f"| {name} | {dtype} | {load} | {cells} | {rates[-1] / rates[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
