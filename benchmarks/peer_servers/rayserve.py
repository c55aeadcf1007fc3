"""Ray Serve."""

import asyncio
import signal
import tempfile
import threading
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from benchmarks.peer_servers import PATIENCE_SECONDS, WAIT_SECONDS, PeerOptions, workers
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.requests import SolveRequest

app = FastAPI()


@serve.deployment(num_replicas=workers(), ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Solve:
    """Solves the requests that Ray Serve has put into a batch."""

    def __init__(self, options: PeerOptions) -> None:
        self._solver = options.solver()
        self._batch.set_max_batch_size(options.batch_size)

    @serve.batch(batch_wait_timeout_s=WAIT_SECONDS)
    async def _batch(self, requests: list[SolveRequest]) -> list[SolveResponse]:
        return await asyncio.to_thread(self._solver.solve, requests)

    @app.post("/v1/solve")
    async def solve(self, request: dict[str, Any]) -> SolveResponse:
        """Answer a request."""
        answer: SolveResponse = await self._batch(SolveRequest.model_validate(request))
        return answer

    @app.get("/health/ready")
    async def ready(self) -> None:
        """Say that a replica can answer."""


def main(options: PeerOptions) -> None:
    """Serve until interrupted."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory() as folder:  # a cluster of its own, even if another runs on this machine
        cluster: dict[str, Any] = {"address": "local", "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
        ray.init(num_cpus=workers(), include_dashboard=False, log_to_driver=False, **cluster)
        serve.start(http_options={"host": "127.0.0.1", "port": options.port, "request_timeout_s": PATIENCE_SECONDS})
        # A replica takes the requests of its next batch while it computes one.
        serve.run(Solve.options(max_ongoing_requests=2 * options.batch_size).bind(options))
        stop.wait()
        serve.shutdown()
        ray.shutdown()
