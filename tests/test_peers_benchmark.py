import importlib.util
import itertools
from typing import get_args

import pytest

from benchmarks import peers
from benchmarks.load import LARGEST_K, Mix, Outcome, mixed_requests
from benchmarks.servers import RunningServer
from benchmarks.whole_requests import BatchSolver, Depth
from gram.server.sampling.requests import SolveRequest

MIXES = (Mix(), Mix(stop="first_valid"))


def first_bodies(mix: Mix) -> list[SolveRequest]:
    return [SolveRequest.model_validate(body) for body in itertools.islice(mixed_requests(0, mix), 3)]


@pytest.mark.parametrize("depth", get_args(Depth))
def test_a_batch_of_whole_requests_gets_the_answers_of_the_server(depth: Depth, server: RunningServer) -> None:
    """So the peers do the same work as ours: not more, as if nothing halted, and not less."""
    solver = BatchSolver(["nqueens-8"], depth, rows=3 * LARGEST_K, threads=1)
    requests = [request for mix in MIXES for request in first_bodies(mix)][1:5]
    for request, answer in zip(requests, solver.solve(requests), strict=True):
        ours = server.post("/v1/solve", json=request.model_dump(exclude_unset=True)).json()
        given = answer.model_dump()
        for name in ("candidates", "steps_run", "trajectories"):
            assert given[name] == ours[name]


def test_ratios_are_of_turns_side_by_side_and_a_rate_that_is_not_sustained_does_not_count() -> None:
    def side(saturation: list[float], seconds: float, slow: float) -> peers.Side:
        outcomes = {4.0: [Outcome([seconds] * 40, 10.0)], 8.0: [Outcome([slow] * 80, 10.0, backlog=70 if slow > 1 else 2)]}
        return peers.Side(saturation, outcomes)

    text = peers.report(
        {
            "ours": side([20.0, 30.0, 10.0], 0.1, 0.2),
            "litserve": side([10.0, 10.0, 10.0], 0.3, 9.0),
            "ray": side([4.0, 4.0, 4.0], 0.4, 0.8),
        }
    )
    assert "ours / LitServe: 2.00 (1.00 to 3.00)" in text
    assert "p95 of LitServe / ours at 4.0/s, the highest rate that it sustains: 3.00" in text
    assert "p95 of Ray Serve / ours at 8.0/s, the highest rate that it sustains: 4.00" in text
    assert text.count("not sustained") == 1


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_peer_gives_our_answers_and_leaves_no_process(peer: str, server: RunningServer) -> None:
    if not importlib.util.find_spec(peer):
        pytest.skip(f"{peer} is not installed: pip install -e '.[peers]'")
    with peers.serving_side(peer, peers.Batching(4, "released")) as running:
        assert peers.answers(running, peer, MIXES[1]) == peers.answers(server, "ours", MIXES[1])
