"""A batch of whole requests, run to its end: what every server does that does not schedule single steps.

It has the weights, runner, slot pool, checker and ranking of ours, so that the way of batching is the only difference.
"""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from msgspec.structs import replace

from gram.models.tasks import TASKS
from gram.server.catalog import bundled_models
from gram.server.engine.engine import Engine
from gram.server.engine.messages import Trajectory
from gram.server.engine.runner import endings
from gram.server.engine.slots import Start
from gram.server.engine.views import Views
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.collector import Collector
from gram.server.sampling.requests import SolveRequest
from gram.server.settings import EngineSettings

Depth = Literal["full", "halted", "released"]
"""How far a batch is stepped: all its rows to full depth; all of them until its last one has halted; or each until it halts."""


class BatchSolver:
    """Solves batches of requests for bundled models, each of which is named as its task."""

    def __init__(self, tasks: Sequence[str], depth: Depth, *, rows: int, threads: int | None = None) -> None:
        """`rows`: the trajectories of the largest batch. `threads`: those that compute, as in EngineSettings."""
        folders = [folder for folder in bundled_models() if folder.name in tasks]
        engine = Engine(EngineSettings(model=folders, threads=threads))
        engine.warm_up()
        self._runners = {name: lane.runner for name, lane in engine.lanes.items()}
        self._pools = {name: runner.pool(rows) for name, runner in self._runners.items()}
        self._views = {name: Views(TASKS[name], rows) for name in self._runners}
        self._depth = depth

    def solve(self, requests: Sequence[SolveRequest]) -> list[SolveResponse]:
        """Answer requests, those of a task together. They must name their tasks, and have no deadline and no guidance."""
        answers: dict[int, SolveResponse] = {}
        order = sorted(range(len(requests)), key=lambda i: requests[i].task or "")
        for task, group in groupby(order, key=lambda i: requests[i].task or ""):
            numbers = list(group)
            answers |= zip(numbers, self._solve(task, [requests[i] for i in numbers]), strict=True)
        return [answers[i] for i in range(len(requests))]

    def _solve(self, name: str, requests: list[SolveRequest]) -> list[SolveResponse]:
        begin = time.monotonic()
        task, runner, pool, views = TASKS[name], self._runners[name], self._pools[name], self._views[name]
        threshold = runner.model.config.halt_threshold
        owners: list[tuple[int, int]] = []
        """The request and the index of each slot's trajectory."""
        starts, collectors = [], []
        for number, request in enumerate(requests):
            puzzle = task.parse(request.puzzle)
            tokens = puzzle.astype(np.uint8).tobytes()
            collectors.append(Collector(task, puzzle, request.num_trajectories, request.stop))
            for index in range(request.num_trajectories):
                start = Start(len(owners), tokens, request.seed or 0, index, request.temperature, request.max_steps)
                starts.append(replace(start, symmetries=request.symmetries, halt_threshold=threshold))
                owners.append((number, index))
        pool.place(views.show(starts))
        ended: set[int] = set()
        for step in range(1, max(request.max_steps for request in requests) + 1):
            readout = runner.step(pool)
            slots = list(pool.slots)
            answers, scores = views.answers(slots, readout.answers.numpy()), readout.score.tolist()
            for row, (slot, ending) in enumerate(zip(slots, endings(readout), strict=True)):
                if ending and slot not in ended:
                    ended.add(slot)
                    number, index = owners[slot]
                    collectors[number].add(Trajectory(number, index, step, scores[row], ending, answers[row]))
            if self._depth != "full" and all(collector.done for collector in collectors):
                break
            if self._depth == "released":
                pool.release([slot for slot in slots if slot in ended or collectors[owners[slot][0]].done])
        pool.release(list(pool.slots))
        compute = time.monotonic() - begin
        return [
            SolveResponse.of(name, collector, request.seed or 0, request, 0.0, compute)
            for collector, request in zip(collectors, requests, strict=True)
        ]
