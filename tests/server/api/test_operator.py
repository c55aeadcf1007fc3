"""What an operator needs beside answers: versions, cancelling, kept answers, and HTTPS."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from benchmarks.servers import PATIENCE, RunningServer, serving
from gram import __version__
from gram.server.api.cache import AnswerCache
from gram.server.api.keys import Key, digest
from gram.server.sampling.requests import SolveRequest
from tests.support import FIXED_SIZE

REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 3, "seed": 5}
ENDLESS = REQUEST | {"num_trajectories": 100_000}
ALICE, BOB = ({"authorization": f"Bearer {key}"} for key in ("a", "b"))


@pytest.fixture(scope="module")
def secure(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server over HTTPS, with API keys and a cache."""
    folder = tmp_path_factory.mktemp("secure")
    keys, certificate, authority = (folder / name for name in ("keys.toml", "server.pem", "ca.pem"))
    keys.write_text(Key(sha256=digest("a")).toml("alice") + "\n" + Key(sha256=digest("b")).toml("bob"))
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(authority))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    flags = ("--ssl-certfile", str(certificate), "--keys-file", str(keys), "--answer-cache-bytes", "100000")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority))
        with serving("--model", str(checkpoint), *FIXED_SIZE, *flags) as running:
            yield running


def test_a_certificate_makes_it_https(secure: RunningServer, capfd: pytest.CaptureFixture[str]) -> None:
    assert secure.url.startswith("https://")
    assert secure.post("/v1/solve", json=REQUEST, headers=ALICE).json()["trajectories"] == 3
    with httpx.stream(
        "POST", f"{secure.url}/v1/solve", json=ENDLESS | {"stream": True}, headers=ALICE, timeout=PATIENCE
    ) as stream:
        next(stream.iter_lines())
    secure.wait_until("gram_active_requests", 0)
    assert "eof_received" not in capfd.readouterr().err
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(secure.url.replace("https", "http"))


def test_the_version_needs_no_key_and_the_rest_does(secure: RunningServer, server: RunningServer) -> None:
    assert secure.get("/version").json() == {"version": __version__}
    assert secure.get("/server_info").status_code == 401
    info = secure.get("/server_info", headers=ALICE).json()
    assert info["version"] == __version__
    (engine,) = info["engines"]
    assert engine["dtype"] in ("bfloat16", "float32")
    assert (engine["device"], engine["slots"]) == ("one CPU thread", 8)
    assert info["settings"]["answer_cache_bytes"] == 100_000
    assert info["kernels"].keys() == {"nqueens-8"}
    assert server.get("/server_info").json()["settings"]["keys_file"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_cancelled_by_its_id_and_only_with_its_key(secure: RunningServer, stream: bool) -> None:
    with ThreadPoolExecutor(1) as others, httpx.Client(base_url=secure.url, timeout=PATIENCE) as client:
        body, headers = ENDLESS | {"stream": stream}, ALICE | {"x-request-id": "mine", "accept": "*/*"}
        answer = others.submit(client.post, "/v1/solve", json=body, headers=headers)
        secure.wait_until("gram_active_requests", 1)
        for request_id, key in (("mine", BOB), ("another", ALICE)):
            refused = client.delete(f"/v1/requests/{request_id}", headers=key)
            assert (refused.status_code, refused.json()["cause"]) == (404, "not_found")
        assert client.delete("/v1/requests/mine", headers=ALICE).status_code == 204
        response = answer.result(PATIENCE)
    secure.wait_until("gram_live_slots", 0)
    *_, last = response.text.strip().splitlines()
    problem = json.loads(last.removeprefix("data: "))
    assert response.status_code == (200 if stream else 409)
    assert (problem["status"], problem["cause"], problem["request_id"]) == (409, "cancelled", "mine")
    assert secure.gauge("gram_active_requests") == 0


def test_an_answer_that_was_asked_for_with_its_seed_is_kept(secure: RunningServer) -> None:
    request = REQUEST | {"seed": 6, "num_trajectories": 4}
    first = secure.post("/v1/solve", json=request, headers=ALICE)
    hits = secure.gauge("gram_answers_from_cache_total")
    same = secure.post("/v1/solve", json={"model": "nqueens-8", **request, "timeout_seconds": 100}, headers=BOB)
    assert same.content == first.content
    assert "age" in same.headers
    assert "age" not in first.headers
    assert secure.gauge("gram_answers_from_cache_total") == hits + 1
    for other in ({"seed": 7}, {"puzzle": "a1"}, {"select": "lprm"}, {"stream": True}):
        assert "age" not in secure.post("/v1/solve", json=request | other, headers=ALICE).headers, other
    random = {name: value for name, value in request.items() if name != "seed"}
    assert len({secure.post("/v1/solve", json=random, headers=ALICE).json()["seed"] for _ in range(2)}) == 2


def test_batch_requests_stand_in_no_interactive_ones_way(secure: RunningServer) -> None:
    batch = ENDLESS | {"priority": "batch", "stream": True}
    with httpx.Client(base_url=secure.url, timeout=PATIENCE, headers=ALICE) as client, ExitStack() as streams:
        opened = [streams.enter_context(client.stream("POST", "/v1/solve", json=batch)).iter_lines() for _ in range(2)]
        assert [next(lines) for lines in opened] == ["event: trajectory"] * 2
        refused = client.post("/v1/solve", json=batch)
        assert (refused.status_code, refused.json()["cause"]) == (429, "overloaded")
        answer = client.post("/v1/solve", json=REQUEST | {"num_trajectories": 50, "timeout_seconds": PATIENCE})
        assert answer.json()["trajectories"] == 50
        assert secure.gauge("gram_active_requests") == 2
    secure.wait_until("gram_active_requests", 0)


def test_without_memory_no_answer_is_kept(server: RunningServer) -> None:
    assert all("age" not in server.post("/v1/solve", json=REQUEST).headers for _ in range(2))


class Answered:
    complete = True


def test_the_cache_keeps_what_was_asked_for_last() -> None:
    cache = AnswerCache(100)
    keys = [cache.key("a model", SolveRequest(puzzle="", seed=seed)) for seed in range(4)]
    for key in keys[:2]:
        cache.put(key, Answered(), b"x" * 50)  # type: ignore[arg-type]
    assert cache.get(keys[0])
    cache.put(keys[2], Answered(), b"x" * 30)  # type: ignore[arg-type]
    assert [cache.get(key) is not None for key in keys] == [True, False, True, False]
    cache.put(keys[3], Answered(), b"x" * 101)  # type: ignore[arg-type]
    assert cache.get(keys[3]) is None


def test_a_stream_that_is_asked_for_again_after_its_end_is_over(server: RunningServer) -> None:
    headers = {"accept": "text/event-stream"}
    events = server.post("/v1/solve", json=REQUEST | {"stream": True}, headers=headers).text.strip().split("\n\n")
    assert ["id: end" in event for event in events] == [False, False, False, True]
    again = server.post("/v1/solve", json=REQUEST | {"stream": True}, headers=headers | {"last-event-id": "end"})
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ssl-keyfile", "key.pem"], "give that, too, with --ssl-certfile"),
        (["--ssl-certfile", "missing.pem"], "missing.pem can't be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_an_error_at_the_start(
    flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gram.server.cli.main import main

    monkeypatch.setattr("sys.argv", ["gram", "serve", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert told in str(ended.value)
