"""What bounds a server: its queue, deadlines, streams and connections, on a real server over real sockets."""

import contextlib
import itertools
import json
import re
import signal
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.servers import PATIENCE, RunningServer, serving, wait_for
from gram.server.api.admission import Admission
from gram.server.api.connection import IDLE_SECONDS, MAX_HEAD_BYTES
from gram.server.api.problems import ProblemError
from gram.server.engine.messages import Ending, LaneStats, StepReport, Trajectory
from gram.server.settings import ServerSettings
from tests.server.api.support import connect, head, post, rest
from tests.support import FIXED_SIZE

QUEUED, STREAMS, UNREAD, CLIENT_SECONDS = 200, 2, 50, 2
REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "seed": 5}
ENDLESS = REQUEST | {"num_trajectories": 100_000, "max_steps": 1}
NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def bounded(checkpoint: Path) -> Iterator[RunningServer]:
    limits = {
        "max-queued": QUEUED,
        "max-streams": STREAMS,
        "max-unread": UNREAD,
        "client-seconds": CLIENT_SECONDS,
        "max-timeout-seconds": 300,
    }
    flags = [f"--{name}={value}" for name, value in limits.items()]
    with serving("--model", str(checkpoint), *FIXED_SIZE, *flags) as running:
        yield running


@pytest.fixture
def client(bounded: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=bounded.url, timeout=PATIENCE) as session:
        yield session
    bounded.wait_until("gram_active_requests", 0)


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    return problem


@contextlib.contextmanager
def streaming(client: httpx.Client, body: dict[str, Any]) -> Iterator[Iterator[str]]:
    """A stream that has begun to send."""
    with client.stream("POST", "/v1/solve", json=body | {"stream": True}, headers=NDJSON) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        next(lines)
        yield lines


def test_more_than_the_queue_holds_is_told_when_to_come_again_but_a_request_alone_is_let_in(client: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as reader, streaming(client, ENDLESS) as lines:
        reader.submit(deque, lines, 0)  # who does not read loses his stream
        response = client.post("/v1/solve", json=REQUEST | {"num_trajectories": 1})
        assert refusal(response, 429)["cause"] == "overloaded"
        assert int(response.headers["retry-after"]) >= 1
        assert f"try again in {response.headers['retry-after']} s" in response.json()["detail"]


def test_a_batch_counts_as_many_requests_and_comes_in_whole_or_not_at_all(client: httpx.Client, bounded: RunningServer) -> None:
    puzzle = {"name": "puzzle", "datatype": "BYTES", "shape": [3], "data": ["g7 a4", "h1", "d8 g7"]}
    body = {"inputs": [puzzle], "parameters": {"seed": 5, "num_trajectories": 1}}
    with ThreadPoolExecutor(1) as reader, streaming(client, ENDLESS) as lines:
        reader.submit(deque, lines, 0)
        response = client.post("/v2/models/nqueens-8/infer", json=body)
        assert (response.status_code, list(response.json())) == (429, ["error"])
        assert f"try again in {response.headers['retry-after']} s" in response.json()["error"]
    bounded.wait_until("gram_active_requests", 0)
    large = body | {"parameters": {"seed": 5, "num_trajectories": QUEUED, "max_steps": 1}}
    assert client.post("/v2/models/nqueens-8/infer", json=large).status_code == 200, "it is alone"


def test_only_so_many_streams_are_open(checkpoint: Path) -> None:
    with (
        serving("--model", str(checkpoint), "--max-streams", "2", *FIXED_SIZE) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        streaming(client, REQUEST | {"num_trajectories": 90_000}),
        streaming(client, REQUEST | {"num_trajectories": 90_000}),
    ):
        response = client.post("/v1/solve", json=REQUEST | {"num_trajectories": 1, "stream": True})
        assert "streams" in refusal(response, 429)["detail"]
        assert client.post("/v1/solve", json=REQUEST | {"num_trajectories": 1}).status_code == 200


DEADLINES = (1, 10, 100)
"""Deadlines to try, in seconds, until a trajectory has ended before one: on a slow machine it is not the first."""


@pytest.mark.parametrize("stop", ["all", 1.0])
def test_at_its_deadline_a_request_ends_with_what_has_ended(client: httpx.Client, bounded: RunningServer, stop: Any) -> None:
    """A request that is alone is not refused, though the rate is known and will not do."""
    bodies = [ENDLESS | {"timeout_seconds": seconds, "stop": stop} for seconds in DEADLINES]
    answer = next(r.json() for body in bodies if (r := client.post("/v1/solve", json=body)).status_code == 200)
    assert not answer["complete"]
    assert 0 < answer["trajectories"] < 100_000
    assert sum(candidate["votes"] for candidate in answer["candidates"]) == answer["trajectories"]
    assert client.post("/v1/solve", json=REQUEST | {"num_trajectories": 1}).json()["complete"]
    assert bounded.gauge("gram_live_slots") == 0


def test_a_stream_ends_at_its_deadline_with_its_result(client: httpx.Client) -> None:
    for seconds in DEADLINES:
        body = ENDLESS | {"timeout_seconds": seconds, "stream": True}
        with client.stream("POST", "/v1/solve", json=body, headers=NDJSON) as r:
            *trajectories, last = map(json.loads, r.iter_lines())
        if trajectories:
            break
    assert {line["event"] for line in trajectories} == {"trajectory"}
    assert last["event"] == "result"
    assert not last["data"]["complete"]
    assert last["data"]["trajectories"] == len(trajectories)


def test_a_deadline_before_the_first_trajectory_has_ended_is_an_error(client: httpx.Client, bounded: RunningServer) -> None:
    body = REQUEST | {"timeout_seconds": 0.001}
    with bounded.engine_stopped():
        assert refusal(client.post("/v1/solve", json=body), 504)["cause"] == "deadline"
        with client.stream("POST", "/v1/solve", json=body | {"stream": True}, headers=NDJSON) as response:
            (line,) = map(json.loads, response.iter_lines())
    assert (line["event"], line["data"]["status"]) == ("error", 504)


def test_a_deadline_is_not_longer_than_the_servers(client: httpx.Client) -> None:
    problem = refusal(client.post("/v1/solve", json=REQUEST | {"timeout_seconds": 301}), 422)
    assert problem["errors"] == [{"place": "timeout_seconds", "message": "this server allows 300 at most"}]


def test_the_openapi_document_says_what_this_server_allows(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for request, k in (
        ("SolveRequest", "num_trajectories"),
        ("GenerateRequest", "num_samples"),
        ("InferenceParameters", "num_trajectories"),
    ):
        fields = schemas[request]["properties"]
        assert (fields[k]["maximum"], fields["max_steps"]["maximum"]) == (100_000, 1024)
        assert fields["timeout_seconds"]["anyOf"][0]["maximum"] == 300


def test_a_reader_that_does_not_read_holds_no_slot_and_no_memory(bounded: RunningServer) -> None:
    api = psutil.Process(bounded.process.pid)
    before, already = api.memory_info().rss, cut_off(bounded)
    body = json.dumps(ENDLESS | {"stream": True}).encode()
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = httpx.URL(bounded.url)
        reader.connect((url.host, url.port))
        reader.sendall(post(body))
        wait_for(lambda: cut_off(bounded) > already, "the stream is cut off")
        bounded.wait_until("gram_active_requests", 0)
        assert api.memory_info().rss - before < 10 * 2**20
        assert "result" not in rest(reader)


def cut_off(server: RunningServer) -> float:
    """Requests whose client has left, or was too slow."""
    return server.gauge("gram_requests_cancelled_total") + server.gauge('gram_errors_total{cause="slow_client"}')


def test_a_reader_that_reads_little_by_little_gets_all(bounded: RunningServer) -> None:
    body = json.dumps(REQUEST | {"num_trajectories": 40, "stream": True}).encode()
    with connect(bounded) as reader:
        reader.sendall(post(body, "connection: close"))
        answer = b""
        while piece := reader.recv(1000):
            answer += piece
            time.sleep(0.01)
    assert answer.count(b"event: trajectory") == 40
    assert answer.count(b"event: result") == 1


def drip(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send a piece a moment, for as long as the server takes them."""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)


@dataclass(frozen=True)
class Unending:
    """A request that never comes to its end: how it begins, what follows piece by piece, and the status of the answer."""

    begin: bytes
    pieces: Iterable[bytes]
    status: int | None


FOREVER = itertools.repeat


def unending() -> list[Unending]:
    """The requests, each with pieces that have not been taken yet."""
    return [
        Unending(b"", FOREVER(b"", 0), None),
        Unending(b"POST /v1/so", FOREVER(b"", 0), 408),
        Unending(b"", (bytes([byte]) for byte in itertools.chain(b"GET / HTTP/1.1\r\nx: ", itertools.repeat(120))), 408),
        Unending(b"GET / HTTP/1.1\r\n", FOREVER(b"x: x\r\n"), 408),
        Unending(b"GET / HTTP/1.1\r\n", FOREVER(b"x: x\r\n" * 10_000), 431),
        Unending(b"GET / HTTP/1.1\r\nx: ", FOREVER(b"x" * 50_000), 431),
        Unending(b"GET /", FOREVER(b"x" * 50_000), 431),
        Unending(b"", FOREVER(b"\r\n" * 50_000), 431),
        Unending(head("content-length: 100"), FOREVER(b"", 0), 408),
        Unending(head("content-length: 60000"), FOREVER(b" "), 408),
        Unending(head("transfer-encoding: chunked"), FOREVER(b"1\r\n \r\n"), 408),
        Unending(head("transfer-encoding: chunked"), FOREVER(b"20000\r\n" + b" " * 0x20000 + b"\r\n"), 413),
        Unending(head("content-length: 1000000000"), FOREVER(b" " * 5000), 413),
        Unending(head("transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\n", FOREVER(b"x: " + b"x" * 200_000 + b"\r\n"), None),
        Unending(
            head("transfer-encoding: chunked").replace(b"POST /v1/solve", b"GET /health/live"), FOREVER(b"1\r\n \r\n"), 200
        ),
        Unending(b"\x16\x03\x01 not HTTP\r\n\r\n", FOREVER(b"", 0), 400),
    ]


@pytest.fixture(scope="module")
def ends(bounded: RunningServer) -> list[str]:
    """The answer to each of `unending`. They are sent at the same time, since most end only when the server loses patience."""

    def answer(request: Unending) -> str:
        with connect(bounded) as connection, ThreadPoolExecutor(1) as sender:
            connection.sendall(request.begin)
            sender.submit(drip, connection, request.pieces)
            return rest(connection)

    requests = unending()
    with ThreadPoolExecutor(len(requests)) as clients:
        return list(clients.map(answer, requests))


@pytest.mark.parametrize("number", range(len(unending())))
def test_a_request_that_never_comes_to_its_end_does(ends: list[str], number: int) -> None:
    answer, status = ends[number], unending()[number].status
    if status is None:
        assert not answer
    else:
        assert answer.startswith(f"HTTP/1.1 {status} ")
    if status in (400, 408, 431):
        head, _, body = answer.partition("\r\n\r\n")
        assert "content-type: application/problem+json" in head
        assert json.loads(body)["status"] == status


def test_between_two_requests_a_connection_may_be_idle_for_longer_than_a_request_may_take(bounded: RunningServer) -> None:
    assert IDLE_SECONDS > 60, "what proxies keep idle connections for"
    ask = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"
    with connect(bounded) as connection:
        connection.sendall(ask + b"\r\n")
        time.sleep(CLIENT_SECONDS + 1)
        connection.sendall(ask + b"connection: close\r\n\r\n")
        assert rest(connection).count("HTTP/1.1 200 OK") == 2
    with connect(bounded) as connection:
        connection.sendall(ask + b"\r\n" + ask)  # the second one never ends
        assert "HTTP/1.1 408" in rest(connection)


def test_a_head_of_the_largest_size_is_taken_and_the_connection_goes_on(bounded: RunningServer) -> None:
    with httpx.Client(base_url=bounded.url, timeout=PATIENCE) as client:
        for _ in range(3):
            assert client.get("/health/live", headers={"x": "x" * (MAX_HEAD_BYTES - 500)}).status_code == 200


def test_requests_sent_ahead_are_answered_in_their_order(bounded: RunningServer) -> None:
    with connect(bounded) as connection:
        ask = b"GET %s HTTP/1.1\r\nhost: localhost\r\n%s\r\n"
        connection.sendall(
            ask % (b"/health/live", b"") + ask % (b"/nowhere", b"") + ask % (b"/v1/tasks", b"connection: close\r\n")
        )
        answers = rest(connection)
    assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["200", "404", "200"]


def test_a_stopping_server_takes_no_more_and_tells_those_whose_time_is_over(checkpoint: Path) -> None:
    with (
        serving("--model", str(checkpoint), "--grace-seconds", "1", *FIXED_SIZE) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        ThreadPoolExecutor(1) as others,
    ):
        plain = others.submit(client.post, "/v1/solve", json=ENDLESS)
        with streaming(client, ENDLESS) as lines:
            server.wait_until("gram_active_requests", 2)
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(httpx.TransportError):  # until it takes no more
                while True:
                    server.get("/health/live")
            *_, last = map(json.loads, lines)
        assert (last["event"], last["data"]["status"], last["data"]["cause"]) == ("error", 503, "stopping")
        assert "stopping" in last["data"]["detail"]
        assert refusal(plain.result(), 503)["cause"] == "stopping"
        assert server.process.wait(PATIENCE) == 0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock, rate: float) -> Admission:
    """To a server that has just ended so many trajectories a second of model m, as long as some waited."""
    admission = Admission(ServerSettings(max_queued=1000, max_streams=2, max_timeout_seconds=100), clock)
    with admission.admit("m", 1, None, stream=False):
        for waiting, finished in [(0, 0), (0, 1000), (5, 0), *[(5, int(rate * 2))] * 50, (0, int(rate * 2)), (0, 1000), (0, 0)]:
            clock.now += 2
            admission.on_report(step(waiting, finished))
    return admission


def step(waiting: int, finished: int) -> StepReport:
    return StepReport("m", [Trajectory(0, 0, 1, 0.5, Ending.HALTED, b"")] * finished, {}, 1, 8, 1, LaneStats(32, waiting))


def refused(admission: Admission, num_trajectories: int, timeout: float | None = None, *, stream: bool = False) -> int:
    """The seconds after which a request that is refused may come again."""
    with pytest.raises(ProblemError) as caught:
        admission.admit("m", num_trajectories, timeout, stream=stream)
    assert caught.value.problem.status == 429
    assert caught.value.headers
    return int(caught.value.headers["retry-after"])


def test_what_is_over_the_limit_may_come_when_the_rate_has_made_room() -> None:
    requests = admission(Clock(), rate=10.5)
    with requests.admit("m", 950, None, stream=False) as first:
        assert refused(requests, 100) == 5
        assert refused(requests, 100_000) == 91, "it is let in when it is alone"
        requests.admit("m", 50, None, stream=False)
        requests.admit("other", 1000, None, stream=False)
        for _ in range(50):
            first.sent()
        requests.admit("m", 100, None, stream=False)
    with requests.admit("m", 100_000, None, stream=False):
        refused(requests, 1)


def test_requests_that_come_together_are_let_in_or_refused_together() -> None:
    requests = admission(Clock(), rate=31)
    with requests.admit("m", 500, None, stream=False):
        with pytest.raises(ProblemError, match="500 trajectories of m are queued"):
            requests.admit_together(6, "m", 100, None, stream=False)
        assert [ticket.remaining for ticket in requests.admit_together(5, "m", 100, None, stream=False)] == [100] * 5
    with requests.admit("m", 20, 10, stream=False):  # needs 3 a second with the margin, so ten may share
        assert len(requests.admit_together(9, "m", 1, None, stream=False)) == 9
        with pytest.raises(ProblemError, match="would exceed its timeout_seconds"):
            requests.admit_together(10, "m", 1, None, stream=False)
    assert all(ticket.promised for ticket in requests.admit_together(9, "m", 20, 10, stream=False))
    assert not any(ticket.promised for ticket in requests.admit_together(10, "m", 20, 10, stream=False))


def test_open_streams_of_all_models_count() -> None:
    requests = admission(Clock(), rate=10.5)
    with requests.admit("m", 10, None, stream=True), requests.admit("other", 10, None, stream=True):
        assert refused(requests, 1, stream=True) == 1
        requests.admit("m", 1, None, stream=False)
    requests.admit("m", 1, None, stream=True)


def test_a_deadline_is_promised_only_where_the_share_of_the_rate_keeps_it() -> None:
    clock = Clock()
    requests = admission(clock, rate=31)
    with requests.admit("m", 20, 10, stream=False) as promised:  # needs 2 a second; with the margin 3, so ten may share
        others = [requests.admit("m", 1, None, stream=False).__enter__() for _ in range(9)]
        assert refused(requests, 1) > 0, "one more would make it late"
        others.pop().__exit__(None, None, None)
        refused(requests, 21, 10)
        requests.admit("m", 20, 10, stream=False)
        for _ in range(10):
            promised.sent()
        clock.now += 1  # now it needs 10 / 9
        for _ in range(9):
            requests.admit("m", 1, None, stream=False).__enter__()
        refused(requests, 1)


def test_a_promise_that_cannot_be_kept_any_more_keeps_nobody_out() -> None:
    clock = Clock()
    requests = admission(clock, rate=31)
    with requests.admit("m", 20, 10, stream=False):
        clock.now += 9.9
        for _ in range(50):
            requests.admit("m", 1, None, stream=False).__enter__()


def test_a_request_alone_is_let_in_without_a_promise_that_would_keep_all_others_out() -> None:
    requests = admission(Clock(), rate=31)
    with requests.admit("m", 1000, 1, stream=False) as alone:
        assert not alone.promised
        assert refused(requests, 1) > 0, "the queue is full"
    with requests.admit("m", 300, 10, stream=False):
        requests.admit("m", 1, None, stream=False)


@pytest.mark.parametrize("late", [False, True])
def test_the_time_after_a_client_has_left_does_not_count(late: bool) -> None:
    clock = Clock()
    requests = admission(clock, rate=31)
    with requests.admit("m", 1000, None, stream=False):
        requests.on_report(step(900, 1))
    if late:  # the engine had not heard yet that the client has left
        requests.on_report(step(900, 1))
    clock.now += 50
    with requests.admit("m", 1, None, stream=False):
        requests.on_report(step(0, 1))
    requests.admit("m", 250, 10, stream=False)


def test_without_a_measured_rate_nothing_but_the_limit_refuses() -> None:
    clock = Clock()
    requests = admission(clock, rate=31)
    with requests.admit("m", 20, 10, stream=False):
        refused(requests, 200, 10)
        clock.now += 61
        with requests.admit("m", 500, 1, stream=False):
            assert refused(requests, 500) == 1
