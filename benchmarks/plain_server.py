"""Serve with whole-request batching, for comparison: each batch runs to its end before the next one begins.

It uses the same weights, runner, slot pool, checker and ranking as ours, so that the batching policy is the only
difference. `--depth full` steps every batch to full depth; `--depth halted` ends a batch when its last row has halted.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI

from benchmarks.load import LARGEST_K, TASK
from gram.server.catalog import bundled_models
from gram.server.engine.engine import Engine
from gram.server.engine.messages import Trajectory
from gram.server.engine.runner import endings
from gram.server.engine.slots import SlotPool, Start
from gram.server.engine.views import Views
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.collector import Collector
from gram.server.sampling.requests import SolveRequest
from gram.server.settings import EngineSettings

Waiting = tuple[SolveRequest, asyncio.Future[SolveResponse]]


class PlainServer:
    """Batches the waiting requests in the order of their arrival, as many as fit."""

    def __init__(self, *, full_depth: bool) -> None:
        engine = Engine(EngineSettings(model=[f for f in bundled_models() if f.name == TASK.name]))
        engine.warm_up()
        self._runner = engine.lanes[TASK.name].runner
        self._pool = self._runner.pool(LARGEST_K)
        self._views = Views(TASK, LARGEST_K)
        self._full_depth = full_depth
        self.queue: asyncio.Queue[Waiting] = asyncio.Queue()

    async def serve(self) -> None:
        """Run batch after batch until cancelled."""
        held: Waiting | None = None
        while True:
            batch = [held or await self.queue.get()]
            held = None
            rows = batch[0][0].num_trajectories
            while not self.queue.empty():
                following = self.queue.get_nowait()
                rows += following[0].num_trajectories
                if rows > self._pool.num_slots:
                    held = following
                    break
                batch.append(following)
            answers = await asyncio.to_thread(self._run, [request for request, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _run(self, requests: list[SolveRequest]) -> list[SolveResponse]:
        begin = time.monotonic()
        pool: SlotPool = self._pool
        rows: list[tuple[int, int]] = []
        starts = []
        collectors = []
        for number, request in enumerate(requests):
            puzzle = TASK.parse(request.puzzle)
            collectors.append(Collector(TASK, puzzle, request.num_trajectories))
            for index in range(request.num_trajectories):
                tokens = puzzle.astype(np.uint8).tobytes()
                seed, temperature = request.seed or 0, request.temperature
                starts.append(Start(len(rows), tokens, seed, index, temperature, request.max_steps, request.symmetries))
                rows.append((number, index))
        pool.place(self._views.show(starts))
        ended = [False] * len(rows)
        depth = max(request.max_steps for request in requests)
        for step in range(1, depth + 1):
            readout = self._runner.step(pool)
            answers, scores = self._views.answers(range(len(rows)), readout.answers.numpy()), readout.score.tolist()
            for row, ((number, index), ending) in enumerate(zip(rows, endings(readout), strict=True)):
                if not ended[row] and ending:
                    ended[row] = True
                    collectors[number].add(Trajectory(number, index, step, scores[row], ending, answers[row]))
            if all(ended) and not self._full_depth:
                break
        pool.release(range(len(rows)))
        compute = time.monotonic() - begin
        return [
            SolveResponse.of(TASK.name, collector, request.seed or 0, request, 0.0, compute)
            for collector, request in zip(collectors, requests, strict=True)
        ]


def main() -> None:
    """Serve POST /v1/solve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8001, help="port to listen on; default: %(default)s")
    parser.add_argument("--depth", choices=["full", "halted"], default="full", help="when a batch ends; default: %(default)s")
    options = parser.parse_args()
    plain = PlainServer(full_depth=options.depth == "full")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving = asyncio.create_task(plain.serve())
        yield
        serving.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/solve")
    async def solve(request: SolveRequest) -> SolveResponse:
        future: asyncio.Future[SolveResponse] = asyncio.get_running_loop().create_future()
        plain.queue.put_nowait((request, future))
        return await future

    @app.get("/health/ready")
    async def ready() -> None:
        return None

    uvicorn.run(app, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
