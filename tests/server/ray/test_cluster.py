"""The application on a local Ray cluster of three nodes, and what its clients get while parts of it are killed."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")

from benchmarks.ray_servers import OBJECTS, RayServer, add_node, ray_cluster, serving_on_ray
from benchmarks.servers import PATIENCE, RunningServer, free_port, serving, wait_for
from gram import Client
from gram.server.sampling.answers import Event as ClientEvent
from tests.docs.support import ROOT, blocks
from tests.server.supervision.support import Body, Event, ordered, queens, stream, untimed
from tests.support import FIXED_SIZE

BODIES: list[Body] = [
    queens(0),
    queens(1, num_trajectories=100, temperature=2),
    queens(2, num_trajectories=60, guidance={"prune": {"keep": 0.7, "steps": [2, 3]}}),
    queens(3, num_trajectories=60, stop="first_valid"),
]
STREAMS: list[Body] = [
    *(queens(number, num_trajectories=200, temperature=2) for number in range(2)),
    queens(3, num_trajectories=60, stream_steps=True),
    BODIES[2],
]
ENDLESS = queens(num_trajectories=100_000)


@pytest.fixture(scope="module")
def on_ray(checkpoint: Path) -> Iterator[RayServer]:
    with ray_cluster() as cluster, serving_on_ray(cluster, checkpoint, max_queued=150_000) as server:
        yield server


@pytest.fixture(scope="module")
def alone(checkpoint: Path) -> Iterator[RunningServer]:
    with serving("--model", str(checkpoint), *FIXED_SIZE) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(alone: RunningServer) -> list[list[Event]]:
    with httpx.Client(base_url=alone.url, timeout=PATIENCE) as client:
        return [events(client, body) for body in STREAMS]


def events(client: httpx.Client, body: Body, received: list[Event] | None = None) -> list[Event]:
    """A stream's events without its steps, which a slow reader may miss, in the order of the index. No event comes twice."""
    came = stream(client, body, received)
    places = [(name, data.get("trajectory"), data.get("steps")) for name, data in came]
    assert len({*places}) == len(places)
    return ordered([event for event in came if event[0] != "step"])


@pytest.fixture(scope="module", autouse=True)
def _as_the_page_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The lines of the document bring up a cluster and ask it; and it survives `kill -9` of a replica. Then it ends."""
    page = blocks(ROOT / "docs" / "scaling-out.md")[0]
    _, start, serve_run, ask = page.commands
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    config = (ROOT / "deploy" / "ray" / "config.yaml").read_text()
    assert "deploy/ray/config.yaml" in serve_run
    (folder / "deploy" / "ray").mkdir(parents=True)
    (folder / "deploy" / "ray" / "config.yaml").write_text(config.replace("port: 8000", f"port: {port}"))
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def shell(command: str) -> subprocess.Popen[bytes]:
        line = command.replace(".venv/bin/", "").replace("localhost:8000", f"127.0.0.1:{port}")
        return subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=folder, env=environment, stdout=subprocess.PIPE)

    small = f" --block --object-store-memory {OBJECTS} --include-dashboard false"
    with shell(start + small) as cluster:
        try:
            wait_for(lambda: b"started" in (cluster.stdout.readline() if cluster.stdout else b""), "the cluster is up")
            assert shell(serve_run).wait(PATIENCE) == 0
            server = RunningServer(f"http://127.0.0.1:{port}", cluster)
            wait_for(server.ready, "the application is ready")

            def answer() -> dict[str, object]:
                told, _ = shell(ask).communicate(timeout=PATIENCE)
                return untimed(json.loads(told))

            first = answer()
            assert first["distinct_valid"] == first["solutions"] == 2
            with ThreadPoolExecutor(4) as clients:
                asked = [clients.submit(answer) for _ in range(12)]
                children = psutil.Process(cluster.pid).children(recursive=True)
                next(child for child in children if child.name().startswith("ray::ServeReplica:gram:engine")).kill()
                assert all(each.result() == first for each in asked)
        finally:
            for child in reversed(psutil.Process(cluster.pid).children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    child.kill()
            cluster.kill()


def test_two_replicas_give_the_bytes_of_one_server(on_ray: RayServer, alone: RunningServer) -> None:
    def asked(server: RunningServer) -> list[str]:
        answers = [server.post("/v1/solve", json=body).text for body in BODIES]
        return [re.sub(r'"(queue|compute)_ms":[^,}]+', "", answer) for answer in answers]

    assert asked(on_ray) == asked(alone)
    steps = [line for line in on_ray.get("/metrics").text.splitlines() if line.startswith("gram_trajectory_steps_total")]
    assert sum(float(line.split()[-1]) > 0 for line in steps) == 2, "both took part"


def test_an_answer_has_its_id_once_and_an_error_is_ours(on_ray: RayServer) -> None:
    for headers in ({}, {"x-request-id": "mine"}):
        wrong = on_ray.post("/v1/solve", json=queens(puzzle="zz"), headers=headers)
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
        assert wrong.headers.get_list("x-request-id") == [wrong.json()["request_id"]]
        assert wrong.headers["x-request-id"] == headers.get("x-request-id", wrong.headers["x-request-id"])


def test_health_does_not_wait_behind_open_streams_nor_does_a_full_server_answer_without_a_time(on_ray: RayServer) -> None:
    with contextlib.ExitStack() as opened:
        client = opened.enter_context(httpx.Client(base_url=on_ray.url, timeout=PATIENCE))
        body = ENDLESS | {"stream": True, "num_trajectories": 70_000}
        flowing = [opened.enter_context(client.stream("POST", "/v1/solve", json=body)).iter_lines() for _ in range(2)]
        assert all(next(lines) for lines in flowing)
        assert on_ray.get("/health/live").json() == {"status": "live"}
        assert on_ray.get("/health/ready").json() == {"status": "ready"}
        refused = on_ray.post("/v1/solve", json=ENDLESS)
        assert (refused.status_code, refused.json()["cause"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        on_ray.wait_past("gram_live_slots", 8)
    on_ray.wait_until("gram_active_requests", 0)
    on_ray.wait_until("gram_live_slots", 0)
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.post(f"{on_ray.url}/v1/solve", json=ENDLESS, timeout=0.5)
    on_ray.wait_until("gram_active_requests", 0)


def kill_engine(server: RayServer) -> None:
    server.engines()[0].kill()


def kill_replica(server: RayServer) -> None:
    server.replicas()[0].kill()


def kill_node(server: RayServer) -> None:
    node = next(node for node in server.cluster.list_all_nodes() if not node.is_head())
    server.cluster.remove_node(node, allow_graceful=False)
    add_node(server.cluster)


@pytest.mark.parametrize("kill", [kill_engine, kill_replica, kill_node])
def test_whatever_is_killed_under_load_every_client_gets_the_answer_that_it_would_have_had(
    on_ray: RayServer, undisturbed: list[list[Event]], kill: Callable[[RayServer], None]
) -> None:
    wait_for(lambda: on_ray.serving() == 2, "both engines are ready")
    with httpx.Client(base_url=on_ray.url, timeout=PATIENCE) as client, ThreadPoolExecutor(len(STREAMS)) as clients:
        received: list[list[Event]] = [[] for _ in STREAMS]
        answers = [clients.submit(events, client, *asked) for asked in zip(STREAMS, received, strict=True)]
        wait_for(lambda: all(len(events) > 3 for events in received), "all streams flow")
        kill(on_ray)
        assert [answer.result() for answer in answers] == undisturbed


def test_a_client_of_ours_goes_on_when_the_api_itself_is_killed(on_ray: RayServer, alone: RunningServer) -> None:
    def places(came: list[ClientEvent]) -> list[tuple[str, object]]:
        return sorted((type(event).__name__, getattr(event, "trajectory", -1)) for event in came)

    options = {name: value for name, value in STREAMS[0].items() if name != "puzzle"}
    with Client(alone.url) as client, client.solve_stream(STREAMS[0]["puzzle"], **options) as whole:
        expected = places([*whole])
    with Client(on_ray.url, max_retries=30) as client, ThreadPoolExecutor(1) as others:
        plain = others.submit(client.solve, STREAMS[0]["puzzle"], **options)
        with client.solve_stream(STREAMS[0]["puzzle"], **options) as coming:
            came = [next(coming) for _ in range(5)]
            (api,) = on_ray.replicas("api")
            api.kill()
            came += [*coming]
        assert places(came) == expected
        last = came[-1].model_dump(exclude={"queue_ms", "compute_ms"})
        assert plain.result().model_dump(exclude={"queue_ms", "compute_ms"}) == last


def test_each_replica_has_its_metrics(on_ray: RayServer) -> None:
    wait_for(lambda: on_ray.serving() == 2, "both engines are ready")
    text = on_ray.get("/metrics").text
    replicas = {*re.findall(r'replica="(\w+)"', text)}
    assert len(replicas) == 3
    for name in ("gram_ready", "gram_step_seconds_sum", "gram_http_request_seconds_count"):
        assert f"\n{name}{{" in text
    assert len(re.findall(r'^gram_ready\{replica="\w+"\} 1.0$', text, re.MULTILINE)) == 3


def test_an_engine_that_cannot_start_says_why(on_ray: RayServer) -> None:
    command = [sys.executable, "-m", "gram", "serve", "--ray", on_ray.cluster.address, "--model", "/nowhere"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert "the engines can't be started on Ray: /nowhere/config.json: No such file or directory" in result.stderr
