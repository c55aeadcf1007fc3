"""Serve with whole-request batching, for comparison: each batch runs to its end before the next one begins.

It uses the same weights, runner, slot pool, checker and ranking as ours, so that the batching policy is the only
difference. `--depth full` steps every batch to full depth; `--depth halted` ends a batch when its last row has halted;
`--depth released` also takes each row out of the batch when it has halted.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import uvicorn
from fastapi import FastAPI

from benchmarks.load import LARGEST_K, TASK
from benchmarks.whole_requests import BatchSolver, Depth
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.requests import SolveRequest

Waiting = tuple[SolveRequest, asyncio.Future[SolveResponse]]


class PlainServer:
    """Batches the waiting requests in the order of their arrival, as many as fit."""

    def __init__(self, depth: Depth) -> None:
        self._solver = BatchSolver([TASK.name], depth, rows=LARGEST_K)
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
                if rows > LARGEST_K:
                    held = following
                    break
                batch.append(following)
            answers = await asyncio.to_thread(self._solver.solve, [request for request, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def main() -> None:
    """Serve POST /v1/solve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8001, help="port to listen on; default: %(default)s")
    parser.add_argument("--depth", choices=get_args(Depth), default="full", help="when a batch ends; default: %(default)s")
    options = parser.parse_args()
    plain = PlainServer(options.depth)

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
