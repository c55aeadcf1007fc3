"""What a client may send: compressed bodies."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from benchmarks.servers import PATIENCE, RunningServer

REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 2, "seed": 5}
BODY = json.dumps(REQUEST).encode()


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
