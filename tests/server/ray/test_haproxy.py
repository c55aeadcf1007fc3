"""Behind HAProxy, as docs/scaling-out.md starts it, a replica is held by what its client reads."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")

from benchmarks.ray_servers import RayServer, ray_cluster, serving_on_ray
from benchmarks.servers import PATIENCE, free_port
from tests.docs.support import ROOT
from tests.support import unchecked_checkpoint

CELLS, TRAJECTORIES, UNREAD = 2000, 20_000, 200
"""An event has 8 KB, so all of them are more than what the kernel and HAProxy buffer for a client, some 10 MB."""
HELD = "RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD=0"


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayServer]:
    folder = tmp_path_factory.mktemp("haproxy")
    assert HELD in (ROOT / "docs" / "scaling-out.md").read_text()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in [setting.split("=") for setting in HELD.split()]:
            environment.setenv(name, value)
        for port in ("METRICS", "STATS"):
            environment.setenv(f"RAY_SERVE_HAPROXY_{port}_PORT", str(free_port()))
        environment.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "0")  # for a quick end
        model = unchecked_checkpoint(folder / "long", CELLS)
        with (
            ray_cluster(nodes=1) as cluster,
            serving_on_ray(cluster, model, replicas=1, max_unread=UNREAD, max_body_bytes=10**6, grace_seconds=1) as server,
        ):
            yield server


def test_a_client_that_stops_reading_ends_its_stream_and_holds_no_slots(held: RayServer) -> None:
    transport = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)])
    body = {"puzzle": "0" * CELLS, "num_trajectories": TRAJECTORIES, "max_steps": 1, "seed": 1, "stream": True}
    headers = {"accept": "application/x-ndjson", "x-request-id": "stopped"}
    with (
        httpx.Client(transport=transport, base_url=held.url, timeout=PATIENCE) as client,
        client.stream("POST", "/v1/solve", json=body, headers=headers) as response,
    ):
        assert response.headers.get_list("x-request-id") == ["stopped"]
        held.wait_past("gram_trajectories_total", 0)
        held.wait_until("gram_queue_depth", 0)
        *events, last = map(json.loads, response.iter_lines())
    assert {event["event"] for event in events} == {"trajectory"}
    assert len(events) < TRAJECTORIES
    assert (last["event"], last["data"]["cause"], last["data"]["request_id"]) == ("error", "slow_client", "stopped")
