"""LitServe."""

from collections.abc import Sequence
from typing import Any

import litserve

from benchmarks.peer_servers import WAIT_SECONDS, PeerOptions, workers
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.requests import SolveRequest


class Solve(litserve.LitAPI):
    """Solves the requests that LitServe has put into a batch."""

    def __init__(self, options: PeerOptions) -> None:
        wait = WAIT_SECONDS if options.batch_size > 1 else 0.0
        super().__init__(max_batch_size=options.batch_size, batch_timeout=wait, api_path="/v1/solve")
        self._options = options

    def setup(self, device: str) -> None:  # noqa: ARG002
        self._solver = self._options.solver()

    def decode_request(self, request: dict[str, Any]) -> SolveRequest:
        return SolveRequest.model_validate(request)

    def batch(self, inputs: Sequence[SolveRequest]) -> list[SolveRequest]:
        return list(inputs)

    def predict(self, batch: SolveRequest | list[SolveRequest]) -> SolveResponse | list[SolveResponse]:
        if isinstance(batch, list):
            return self._solver.solve(batch)
        return self._solver.solve([batch])[0]  # with a batch size of 1, LitServe makes no lists

    def unbatch(self, output: list[SolveResponse]) -> list[SolveResponse]:
        return output

    def encode_response(self, output: SolveResponse) -> dict[str, Any]:
        return output.model_dump()


def main(options: PeerOptions) -> None:
    """Serve until interrupted."""
    server = litserve.LitServer(
        Solve(options), accelerator="cpu", workers_per_device=workers(), timeout=False, healthcheck_path="/health/ready"
    )
    server.run(host="127.0.0.1", port=options.port, log_level="warning", generate_client_file=False)
