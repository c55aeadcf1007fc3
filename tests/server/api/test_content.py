"""What a client may send and accept: compressed bodies, and Accept headers."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from benchmarks.servers import PATIENCE, RunningServer
from gram.server.api.accept import choose

REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 2, "seed": 5}
BODY = json.dumps(REQUEST).encode()
SSE, NDJSON = "text/event-stream", "application/x-ndjson"


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as session:
        yield session


def sent(client: httpx.Client, content: Any, *encodings: str) -> httpx.Response:
    headers = [("content-type", "application/json"), *(("content-encoding", encoding) for encoding in encodings)]
    return client.post("/v1/solve", content=content, headers=headers)


def refusal(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["detail"])


@pytest.mark.parametrize(
    ("encodings", "compress"),
    [
        (["gzip"], gzip.compress),
        (["GZip"], gzip.compress),
        (["x-gzip"], gzip.compress),
        (["deflate"], zlib.compress),
        (["identity"], bytes),
        (["identity, gzip"], gzip.compress),
        (["identity", "gzip"], gzip.compress),
        (["gzip"], lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    ],
)
def test_a_compressed_body_is_answered_as_it_is_uncompressed(
    client: httpx.Client, encodings: list[str], compress: Callable[[bytes], bytes]
) -> None:
    body = compress(BODY)
    pieces = (body[i : i + 1] for i in range(len(body)))
    whole, chunked, plain = sent(client, body, *encodings), sent(client, pieces, *encodings), sent(client, BODY)
    assert whole.json()["candidates"] == chunked.json()["candidates"] == plain.json()["candidates"]


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b" " * 65_537), gzip.compress(b" " * 10**8)[:60_000], b"".join([gzip.compress(b" " * 1000)] * 100)],
    ids=["a byte too long", "a bomb", "many files"],
)
def test_a_body_may_not_be_larger_than_the_limit_when_it_is_decompressed(client: httpx.Client, body: bytes) -> None:
    assert "more than 65536 bytes" in refusal(sent(client, body, "gzip"), 413)
    assert "more than 65536 bytes" in refusal(sent(client, (body[i : i + 999] for i in range(0, len(body), 999)), "gzip"), 413)


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip", "x"])
def test_an_encoding_that_the_server_does_not_read_is_told_which_it_does(client: httpx.Client, encoding: str) -> None:
    response = sent(client, BODY, encoding)
    detail = refusal(response, 415)
    assert "'content-encoding: gzip'" in detail
    assert detail.endswith(encoding)
    assert response.headers["accept-encoding"] == "gzip, deflate, identity"
    assert client.get("/health/live", headers={"content-encoding": encoding}).status_code == 200, "it has no body"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", BODY),
        ("gzip", zlib.compress(BODY)),
        ("gzip", gzip.compress(BODY)[:-1]),
        ("gzip", gzip.compress(BODY)[:5]),
        ("gzip", gzip.compress(BODY)[:-8] + b"12345678"),
        ("gzip", gzip.compress(BODY) + b"more"),
        ("deflate", BODY),
        ("deflate", gzip.compress(BODY)),
    ],
    ids=["plain", "deflate", "cut", "cut in its head", "a wrong sum", "more behind it", "plain deflate", "gzip"],
)
def test_a_body_that_is_not_what_its_encoding_says_is_told_so(client: httpx.Client, encoding: str, body: bytes) -> None:
    assert f"the body is not the {encoding} that its content-encoding names" in refusal(sent(client, body, encoding), 400)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", SSE),
        ("*/*", SSE),
        (NDJSON, NDJSON),
        ("Application/X-NDJSON", NDJSON),
        (f"{NDJSON};charset=utf-8", NDJSON),
        (f"{NDJSON};q=0", SSE),
        (f"{NDJSON}; Q=0.000", SSE),
        (f"{SSE};q=0.5, {NDJSON}", NDJSON),
        (f"{SSE}, {NDJSON}; q=0.9", SSE),
        (f"{NDJSON}, {SSE}", SSE),
        (f"{NDJSON}, */*", NDJSON),
        (f"{NDJSON};q=0.1, */*;q=0.5", SSE),
        ("application/*", NDJSON),
        ("text/*, application/*;q=0.9", SSE),
        (f"{SSE};q=0", NDJSON),
        (f"{SSE};q=0, */*", NDJSON),
        (f"{SSE}, */*;q=0", SSE),
        ("text/html,application/xhtml+xml,*/*;q=0.8", SSE),
        ("application/json", SSE),
        ("application/x-ndjson-not", SSE),
        (f"{NDJSON};q=much", NDJSON),
        (f"{NDJSON};q=1.2.3", SSE),
        (",;,", SSE),
        ("*/*;q=0", None),
        (f"{SSE};q=0, {NDJSON};q=0", None),
        ("application/json, */*;q=0", None),
    ],
)
def test_the_accept_header_chooses_what_a_stream_is_written_in(accept: str, media_type: str | None) -> None:
    assert choose(accept, [SSE, NDJSON]) == media_type


def test_a_stream_is_sent_as_its_client_accepts_it(client: httpx.Client) -> None:
    headers = [("accept", f"{SSE};q=0.5"), ("accept", NDJSON)]
    response = client.post("/v1/solve", json=REQUEST | {"stream": True}, headers=headers)
    assert response.headers["content-type"] == NDJSON
    assert json.loads(response.text.splitlines()[-1])["event"] == "result"


@pytest.mark.parametrize(
    ("accept", "stream", "offered"),
    [
        (f"{SSE};q=0, {NDJSON};q=0", True, f"{SSE}, {NDJSON}"),
        ("*/*;q=0", True, f"{SSE}, {NDJSON}"),
        ("application/json;q=0", False, "application/json"),
        ("text/html, */*;q=0", False, "application/json"),
    ],
)
def test_who_refuses_all_that_can_be_sent_is_told_what_can_before_anything_runs(
    client: httpx.Client, server: RunningServer, accept: str, stream: bool, offered: str
) -> None:
    before = server.gauge("gram_trajectory_steps_total")
    response = client.post("/v1/solve", json=REQUEST | {"stream": stream}, headers={"accept": accept})
    assert refusal(response, 406).endswith(offered)
    assert server.gauge("gram_trajectory_steps_total") == before


@pytest.mark.parametrize("accept", ["text/html", NDJSON, "application/json;q=0.1", "image/*;q=0"])
def test_an_answer_is_json_if_that_is_not_refused(client: httpx.Client, accept: str) -> None:
    response = client.post("/v1/solve", json=REQUEST, headers={"accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
