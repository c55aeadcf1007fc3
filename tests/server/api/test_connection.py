"""Connections as they are used: by old clients, with something wrong behind a request, and closed too early."""

import json
import re
import socket
from typing import Any

import pytest

from benchmarks.servers import RunningServer
from tests.server.api.support import connect, head, post, rest

REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 2, "seed": 5}
ENDLESS = REQUEST | {"num_trajectories": 100_000}
BODY = json.dumps(REQUEST).encode()
LIVE = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


def asked(server: RunningServer, request: bytes, *, half_closed: bool = False) -> str:
    """All that the server answers on a connection that it closes."""
    with connect(server) as connection:
        connection.sendall(request)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        return rest(connection)


def statuses(answers: str) -> list[int]:
    return [int(status) for status in re.findall(r"HTTP/1\.1 (\d+) ", answers)]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_to_an_old_client_a_stream_ends_with_its_connection(server: RunningServer, accept: str) -> None:
    body = json.dumps(REQUEST | {"stream": True}).encode()
    answer = asked(server, post(body, f"accept: {accept}", "connection: keep-alive", "expect: 100-continue", version="1.0"))
    start, _, stream = answer.partition("\r\n\r\n")
    assert statuses(answer) == [200]
    assert "transfer-encoding" not in start
    assert "connection: close" in start
    new = server.post("/v1/solve", content=body, headers={"accept": accept, "content-type": "application/json"})
    assert timeless(stream) == timeless(new.text)


def timeless(stream: str) -> str:
    return re.sub(r'_ms":[\d.]+', '_ms":0', stream)


def test_what_is_not_a_stream_is_the_same_to_an_old_client(server: RunningServer) -> None:
    start, _, body = asked(server, post(BODY, version="1.0")).partition("\r\n\r\n")
    assert f"content-length: {len(body)}\r\n" in start
    assert json.loads(body)["trajectories"] == 2
    assert asked(server, LIVE.replace(b"GET", b"HEAD").replace(b"1.1", b"1.0")).endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 40_000, 431),
        (head("transfer-encoding: chunked") + b"x\r\n", 400),
    ],
    ids=["garbage", "a wrong address", "an endless head", "a wrong chunk"],
)
@pytest.mark.parametrize(
    ("request_", "first"), [(post(BODY), 200), (post(BODY, length=20), 400), (LIVE, 200)], ids=["solve", "cut", "live"]
)
def test_what_is_wrong_behind_a_request_is_refused_after_the_answer(
    server: RunningServer, request_: bytes, first: int, behind: bytes, status: int
) -> None:
    """With the request cut, because it says that its body is shorter than it is, the rest of its body is in front."""
    answers = asked(server, request_ + behind)
    assert statuses(answers) == [first, 400 if b"length: 20" in request_ else status]
    refused = json.loads(answers.rpartition("\r\n\r\n")[2])
    assert (refused["status"], refused["request_id"]) == (statuses(answers)[-1], None), "the id is that of another request"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "behind",
    [b"", LIVE, post(json.dumps(ENDLESS).encode()), b"garbage"],
    ids=["nothing", "a quick request", "an endless one", "garbage"],
)
def test_a_client_that_leaves_cancels_all_that_it_has_asked(server: RunningServer, stream: bool, behind: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(post(json.dumps(ENDLESS | {"stream": stream}).encode()) + behind)
        server.wait_past("gram_active_requests", 0)
    server.wait_until("gram_active_requests", 0)


@pytest.mark.parametrize("stream", [False, True])
def test_who_sends_no_more_is_answered(server: RunningServer, stream: bool) -> None:
    request = REQUEST | {"stream": stream, "num_trajectories": 200}
    answers = asked(server, post(json.dumps(request).encode()), half_closed=True)
    *interim, final = statuses(answers)
    assert (set(interim), final) == ({100}, 200)
    assert '"trajectories":200' in answers.rpartition("event: result" if stream else "\r\n\r\n")[2]


def test_the_first_of_two_requests_is_answered_to_who_sends_no_more_of_the_second(server: RunningServer) -> None:
    answers = asked(server, post(BODY) + post(BODY, length=1000), half_closed=True)
    assert [status for status in statuses(answers) if status != 100] == [200, 400]
    assert "before the request was whole" in answers


@pytest.mark.parametrize("stream", [False, True])
def test_who_sends_no_more_and_leaves_later_is_noticed(server: RunningServer, stream: bool) -> None:
    with connect(server) as connection:
        connection.sendall(post(json.dumps(ENDLESS | {"stream": stream}).encode()))
        connection.shutdown(socket.SHUT_WR)
        server.wait_past("gram_active_requests", 0)
    server.wait_until("gram_active_requests", 0)


def test_who_sends_no_more_over_http_1_0_is_taken_for_one_that_has_left_and_is_told_so(server: RunningServer) -> None:
    answer = asked(server, post(json.dumps(ENDLESS).encode(), version="1.0"), half_closed=True)
    assert statuses(answer) == [400]
    assert "keep both sides open until the answer has come" in answer
    server.wait_until("gram_active_requests", 0)


def test_a_stream_is_cut_off_when_its_client_sends_no_more_in_the_middle_of_it(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(post(json.dumps(ENDLESS | {"stream": True}).encode()))
        assert connection.recv(1)
        connection.shutdown(socket.SHUT_WR)
        assert "event: result" not in rest(connection)
    server.wait_until("gram_active_requests", 0)


@pytest.mark.parametrize("request_", [b"GET / HT", post(BODY, length=1000), head("transfer-encoding: chunked")])
def test_who_sends_no_more_of_half_a_request_is_told_so(server: RunningServer, request_: bytes) -> None:
    answer = asked(server, request_, half_closed=True)
    assert statuses(answer) == [400]
    assert "before the request was whole" in answer


def test_what_needs_no_waiting_is_answered_to_who_sends_no_more(server: RunningServer) -> None:
    assert statuses(asked(server, LIVE, half_closed=True)) == [200]
    assert asked(server, b"", half_closed=True) == ""
