"""Who is let in: API keys, CORS and the headers of every answer, on a real server."""

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from benchmarks.servers import PATIENCE, RunningServer, serving
from gram.server.api.access import authenticate, require_admin
from gram.server.api.admission import Admission
from gram.server.api.app import create_app
from gram.server.api.keys import Key, Keys, KeysError, digest, read_keys
from gram.server.api.service import Service
from gram.server.metrics import Metrics
from gram.server.settings import ServerSettings
from tests.support import FIXED_SIZE

ORIGIN = "https://puzzles.example"
REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 1}
KEYS = {"alice": Key(sha256=digest("a")), "root": Key(sha256=digest("r"), admin=True)}
SLOW = {"bob": Key(sha256=digest("b"), requests_per_second=0.01)}


def write(path: Path, keys: dict[str, Key]) -> None:
    """All at once, as an orchestrator replaces a secret."""
    new = path.with_suffix(".new")
    new.write_text("\n".join(key.toml(label) for label, key in keys.items()))
    new.rename(path)


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.toml"


@pytest.fixture(scope="module")
def guarded(keys_file: Path, checkpoint: Path) -> Iterator[RunningServer]:
    write(keys_file, KEYS)
    flags = ("--model", str(checkpoint), *FIXED_SIZE, "--keys-file", str(keys_file), "--cors-origins", ORIGIN)
    with serving(*flags) as running:
        yield running


@pytest.fixture
def client(guarded: RunningServer, keys_file: Path) -> Iterator[httpx.Client]:
    write(keys_file, KEYS)
    with httpx.Client(base_url=guarded.url, timeout=PATIENCE) as session:
        yield session


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"authorization": "a"}, "Bearer"),
        ({"authorization": "Basic YTph"}, "Bearer"),
        ({"authorization": "Bearer"}, "Bearer"),
        (bearer("A"), 'Bearer error="invalid_token"'),
        (bearer(digest("a")), 'Bearer error="invalid_token"'),
        ({"authorization": "Bearer \u00e9".encode("latin-1")}, 'Bearer error="invalid_token"'),
    ],
)
def test_nobody_without_a_key_is_let_in(client: httpx.Client, headers: Any, challenge: str) -> None:
    for method, path in (("POST", "/v1/solve"), ("POST", "/v1/generate"), ("GET", "/v1/models"), ("GET", "/v1/tasks")):
        response = client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == challenge
        assert response.json()["cause"] == "unauthorized"
    for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path, headers=headers).status_code == 200
    for path in ("/v2", "/v2/models/nqueens-8", "/v2/models/nqueens-8/ready"):
        response = client.get(path, headers=headers)
        assert (response.status_code, list(response.json())) == (401, ["error"]), "in the form of the Open Inference Protocol"
        assert response.headers["www-authenticate"] == challenge
    assert client.post("/v2/models/nqueens-8/infer", headers=headers).status_code == 401
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(path, headers=headers).status_code == 200


def test_a_key_lets_in_and_is_counted_by_its_label(client: httpx.Client, guarded: RunningServer) -> None:
    before = guarded.gauge("gram_key_requests_total")
    assert client.post("/v1/solve", json=REQUEST, headers=bearer("a")).status_code == 200
    assert client.get("/v2/models/nqueens-8", headers=bearer("a")).status_code == 200
    assert guarded.gauge("gram_key_requests_total") == before + 2
    assert 'gram_key_requests_total{key="alice"}' in client.get("/metrics").text


def test_keys_come_and_go_without_a_restart(client: httpx.Client, keys_file: Path) -> None:
    def status(key: str) -> int:
        return client.get("/v1/tasks", headers=bearer(key)).status_code

    assert (status("a"), status("new")) == (200, 401)
    write(keys_file, {"other": Key(sha256=digest("new"))})
    assert (status("a"), status("new")) == (401, 200)
    keys_file.write_text("half a")
    assert (status("a"), status("new")) == (401, 200), "a file that can't be read changes nothing"
    keys_file.unlink()
    assert (status("a"), status("new")) == (401, 200)
    write(keys_file, {})
    assert (status("a"), status("new")) == (401, 401)


def test_a_key_has_so_many_requests_a_second(client: httpx.Client, keys_file: Path) -> None:
    write(keys_file, KEYS | SLOW)
    assert client.get("/v1/tasks", headers=bearer("b")).status_code == 200
    response = client.get("/v1/tasks", headers=bearer("b"))
    assert response.status_code == 429
    assert response.json()["cause"] == "rate_limited"
    assert 0 < int(response.headers["retry-after"]) <= 100
    assert client.get("/v1/tasks", headers=bearer("a")).status_code == 200


def test_a_second_s_worth_of_requests_may_come_at_once(keys_file: Path) -> None:
    write(keys_file, KEYS)
    keys = Keys(keys_file)
    delays = [keys.delay("alice", 5, now=100.0) for _ in range(6)]
    assert delays == [0, 0, 0, 0, 0, pytest.approx(0.2)]
    assert keys.delay("bob", 5, now=100.0) == 0
    assert keys.delay("alice", 5, now=100.1) == pytest.approx(0.1)
    assert keys.delay("alice", 5, now=100.2) == 0
    assert [keys.delay("alice", 5, now=1000.0) for _ in range(6)] == pytest.approx(delays), "what is not used is not saved up"
    assert [keys.delay("carol", 0.5, now=now) for now in (100.0, 101.0, 102.0)] == [0, pytest.approx(1), 0]


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("[a]", "sha256"),
        ("[a]\nsha256 = 'secret'", "pattern"),
        (f"[a]\nsha256 = '{digest('a')}'\nadmn = true", "admn"),
        (f"['a b']\nsha256 = '{digest('a')}'", "pattern"),
        (f"[a]\nsha256 = '{digest('a')}'\nrequests_per_second = 0", "greater than 0"),
        ("a: b", "gram key"),
        (None, "No such file"),
    ],
)
def test_a_server_does_not_start_with_a_keys_file_that_is_wrong(tmp_path: Path, text: str | None, fix: str) -> None:
    path = tmp_path / "keys.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(KeysError, match=fix):
        read_keys(path)
    if fix in ("admn", "No such file"):
        command = [sys.executable, "-m", "gram", "serve", "--port", "0", "--keys-file", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert result.returncode == 1
        assert fix in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr


def test_gram_key_makes_a_key_and_its_lines_and_gram_solve_takes_it(client: httpx.Client, keys_file: Path) -> None:
    def gram(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gram", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | environment)

    made = gram("key", "ci-1", "--requests-per-second", "50", "--admin")
    key = made.stderr.split()[-1]
    assert len(key) > 40
    assert key not in made.stdout
    assert tomllib.loads(made.stdout) == {"ci-1": {"sha256": digest(key), "requests_per_second": 50, "admin": True}}
    with keys_file.open("a") as file:
        file.write("\n" + made.stdout)
    assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    ask = ("solve", "g7 a4", "--num-trajectories", "1", "--url", str(client.base_url))
    assert "send a key" in gram(*ask).stderr
    assert "valid" in gram(*ask, GRAM_API_KEY=key).stdout
    assert "pattern" in gram("key", "a b").stderr


def ask(keys: Keys | None, dependencies: list[Any], headers: dict[str, str], endpoint: Any) -> httpx.Response:
    """What the application answers, without an engine, to a call of the test's own."""
    settings, metrics = ServerSettings(), Metrics({})
    engine: Any = None
    app: Any = create_app(Service(settings, {}, metrics, engine, Admission(settings), keys))
    fastapi = app
    while not isinstance(fastapi, FastAPI):
        fastapi = fastapi.app
    fastapi.add_api_route("/call", endpoint, dependencies=dependencies)

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get("/call", headers=headers)

    return asyncio.run(get())


def test_only_an_admin_s_key_opens_what_admins_do(keys_file: Path) -> None:
    async def unload() -> str:
        return "done"

    write(keys_file, KEYS)
    keys, both = Keys(keys_file), [Depends(authenticate), Depends(require_admin)]
    for headers, status, cause in (({}, 401, "unauthorized"), (bearer("a"), 403, "forbidden")):
        response = ask(keys, both, headers, unload)
        assert (response.status_code, response.json()["cause"]) == (status, cause)
    assert ask(keys, both, bearer("r"), unload).json() == "done"
    assert ask(None, both[1:], {}, unload).status_code == 403, "a server without keys has no admin"


def test_an_error_of_the_server_s_own_tells_no_more_than_the_request_s_id() -> None:
    async def broken() -> None:
        raise RuntimeError("a secret")

    response = ask(None, [], {"x-request-id": "id-1"}, broken)
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert response.json()["request_id"] == "id-1"
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_every_answer_tells_browsers_to_trust_it_with_nothing(client: httpx.Client) -> None:
    answers = [
        client.get(path, headers=bearer("a")) for path in ("/v1/tasks", "/nowhere", "/metrics", "/openapi.json", "/docs")
    ]
    answers += [client.get("/v1/tasks"), client.post("/v1/solve", content=b" " * 70_000, headers=bearer("a"))]
    answers.append(client.post("/v1/solve", json=REQUEST | {"stream": True}, headers=bearer("a")))
    assert {answer.status_code for answer in answers} == {200, 401, 404, 413}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; frame-ancestors 'none'")
        assert ("script-src" in policy) == (answer.url.path == "/docs")
        assert "server" not in answer.headers


def test_the_page_of_the_docs_is_made_of_files_of_the_server(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "http" not in page.headers["content-security-policy"], "no other host"
    files = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert [client.get(file).status_code for file in files] == [200, 200, 200], files


def test_pages_of_an_allowed_origin_alone_may_read_answers(client: httpx.Client, server: RunningServer) -> None:
    def allowed(session: httpx.Client, origin: str) -> str | None:
        answer: str | None = session.get("/v1/tasks", headers={"origin": origin}).headers.get("access-control-allow-origin")
        return answer

    assert allowed(client, ORIGIN) == ORIGIN
    assert allowed(client, "https://elsewhere.example") is None
    preflight = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    assert client.options("/v1/solve", headers=preflight).status_code == 200
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as plain:
        assert allowed(plain, ORIGIN) is None, "by default nobody's"


def test_the_openapi_document_declares_the_keys_of_a_server_that_has_them(client: httpx.Client, server: RunningServer) -> None:
    document = client.get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, calls in document["paths"].items():
        for call in calls.values():
            keyed = path.startswith(("/v1/", "/v2", "/server_info")) and not path.startswith("/v2/health/")
            assert ("security" in call) == ("401" in call["responses"]) == keyed
    assert "securitySchemes" not in server.get("/openapi.json").json()["components"]
