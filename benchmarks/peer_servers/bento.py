"""BentoML.

`bentoml serve` and its workers import this module, which finds its options in the environment. A batchable endpoint takes a
list of requests from each client, here of one.
"""

import json
import os
from typing import Any

import bentoml
from fastapi import FastAPI

from benchmarks.peer_servers import BENTO_OPTIONS, PATIENCE_SECONDS, PeerOptions, workers
from gram.server.sampling.requests import SolveRequest

_options = PeerOptions(**json.loads(os.environ[BENTO_OPTIONS]))
_health = FastAPI()


@_health.get("/ready")
async def _ready() -> None:
    return None


@bentoml.service(workers=workers(), traffic={"timeout": PATIENCE_SECONDS})
@bentoml.asgi_app(_health, path="/health")
class Solve:
    """Solves the requests that BentoML has put into a batch."""

    def __init__(self) -> None:
        self._solver = _options.solver()

    @bentoml.api(batchable=True, max_batch_size=_options.batch_size, max_latency_ms=PATIENCE_SECONDS * 1000, route="/v1/solve")
    def solve(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return [answer.model_dump() for answer in self._solver.solve([*map(SolveRequest.model_validate, requests)])]
