"""Two replicas of the API: what one is asked about the requests and jobs of the other, and what they say before they go."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")

from ray import serve

from benchmarks.ray_servers import RayServer, ray_cluster, serving_on_ray
from benchmarks.servers import PATIENCE
from tests.server.jobs.test_jobs import PUZZLES, QUICK, finished, lines, results, submit
from tests.server.supervision.support import queens

SOME = PUZZLES[:50]
ENDLESS = queens(num_trajectories=50_000, stream=True)
T = TypeVar("T")


@pytest.fixture(scope="module")
def replicated(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayServer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRAM_JOBS", str(tmp_path_factory.mktemp("jobs") / "jobs.db"))
        with (
            ray_cluster(nodes=1) as cluster,
            serving_on_ray(cluster, checkpoint, replicas=1, apis=2, grace_seconds=2, max_queued=10**6) as server,
        ):
            yield server


def taking_part(server: RayServer, series: str, **labels: str) -> list[float]:
    """The values of a metric that are not 0, one of each replica that has them."""
    values: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            if sample.name == series and labels.items() <= sample.labels.items():
                values[sample.labels["replica"]] += sample.value
    return [value for value in values.values() if value]


def by_both(server: RayServer, ask: Callable[[], T], series: str, **labels: str) -> list[T]:
    """Ask, on a new connection each time, until both replicas have been asked, as this metric tells."""
    answers: list[T] = []
    while len(taking_part(server, series, **labels)) < 2:
        assert len(answers) < 30, "all requests go to one replica"
        answers.append(ask())
    return answers


def open_streams(server: RayServer, opened: ExitStack) -> dict[str, Iterator[dict[str, Any]]]:
    """Streams that go on, some on each of the two replicas: their events by the request's id."""
    streams: dict[str, Iterator[dict[str, Any]]] = {}

    def flow() -> None:
        client = opened.enter_context(httpx.Client(base_url=server.url, timeout=PATIENCE))
        name = f"stream-{len(streams)}"
        headers = {"accept": "application/x-ndjson", "x-request-id": name}
        response = opened.enter_context(client.stream("POST", "/v1/solve", json=ENDLESS, headers=headers))
        streams[name] = map(json.loads, response.iter_lines())
        assert next(streams[name])["event"] == "trajectory"

    by_both(server, flow, "gram_active_requests")
    return streams


def test_a_request_is_cancelled_by_its_id_wherever_it_runs(replicated: RayServer) -> None:
    def cancelled(name: str) -> int:
        return httpx.delete(f"{replicated.url}/v1/requests/{name}", timeout=PATIENCE).status_code

    with ExitStack() as opened:
        for name, events in open_streams(replicated, opened).items():
            assert cancelled(name) == 204
            *_, last = events
            assert (last["event"], last["data"]["cause"]) == ("error", "cancelled")
            assert cancelled(name) == 404


def test_a_job_is_submitted_to_either_and_read_from_either_and_each_puzzle_is_done_once(replicated: RayServer) -> None:
    asked = "gram_http_requests_total"
    jobs = by_both(replicated, lambda: submit(replicated, lines(SOME), **QUICK), asked, path="/v1/jobs")
    for job in jobs:
        assert len(finished(replicated, job)) == len(SOME)
    first = by_both(replicated, lambda: results(replicated, jobs[0]), asked, path="/v1/jobs/{name}/results", status="200")
    assert all(result == first[0] for result in first)
    assert sum(taking_part(replicated, "gram_job_puzzles_total")) == len(jobs) * len(SOME)


def test_a_replica_that_is_to_go_tells_the_requests_that_its_grace_period_has_not_ended(replicated: RayServer) -> None:
    with ExitStack() as opened, ThreadPoolExecutor(2) as others:
        streams = open_streams(replicated, opened)
        plain = others.submit(replicated.post, "/v1/solve", json=ENDLESS | {"stream": False})
        others.submit(serve.delete, "gram")
        for name, events in streams.items():
            *_, last = events
            assert last["event"] == "error"
            assert (last["data"]["status"], last["data"]["cause"], last["data"]["request_id"]) == (503, "stopping", name)
        assert (plain.result().status_code, plain.result().json()["cause"]) == (503, "stopping")
