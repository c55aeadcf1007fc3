"""What a request leaves in the log and in a trace, on a real server over a real socket."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.servers import RunningServer, serving, wait_for
from gram.models.config import EVALUATION_FILE
from tests.support import FIXED_SIZE

REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 3, "seed": 1}
TRACE_ID, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{CALLER}-01"


@dataclass
class Logging:
    """A server that logs JSON to a file, and its checkpoint, which a test may spoil."""

    server: RunningServer
    checkpoint: Path
    path: Path

    def lines(self) -> list[dict[str, Any]]:
        """All that it has logged; every line is an object."""
        whole, _, _ = self.path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def of(self, request_id: str, with_field: str = "status") -> list[dict[str, Any]]:
        """The lines of a request, once one has this field: they may come after the answer."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line.get("request_id") == request_id]

        wait_for(lambda: any(with_field in line for line in lines()), f"a line of {request_id} has a {with_field}")
        return lines()


@pytest.fixture(scope="module")
def logging(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logging]:
    folder = tmp_path_factory.mktemp("logging")
    copy = shutil.copytree(checkpoint, folder / "nqueens-8")
    with serving("--model", str(copy), *FIXED_SIZE, "--log-format", "json", log=folder / "log") as server:
        yield Logging(server, copy, folder / "log")


def test_a_request_is_one_line_that_tells_what_it_was(logging: Logging) -> None:
    headers = {"X-Request-ID": "order-66", "traceparent": TRACEPARENT}
    response = logging.server.post("/v1/solve", json=REQUEST, headers=headers)
    (line,) = logging.of("order-66")
    times = {name: line.pop(name) for name in ("time", "seconds", "queue_seconds", "compute_seconds")}
    assert line == {
        "level": "INFO",
        "logger": "gram",
        "message": "POST /v1/solve 200",
        "method": "POST",
        "path": "/v1/solve",
        "status": 200,
        "request_id": "order-66",
        "trace_id": TRACE_ID,
        "model": "nqueens-8",
        "num_trajectories": 3,
    }
    # The answer's time is taken just after the log's, and both before the request ends; they are rounded.
    assert 0 < times["compute_seconds"] <= response.json()["compute_ms"] / 1e3 + 1e-5 < times["seconds"] + 1e-5


@pytest.mark.parametrize("given", ["order-67", "550e8400-e29b-41d4-a716-446655440000", "a/b:c.d=+_"])
def test_a_sane_request_id_is_taken_and_returned(logging: Logging, given: str) -> None:
    assert logging.server.get("/v1/tasks", headers={"X-Request-ID": given}).headers["x-request-id"] == given
    assert len(logging.of(given)) == 1


@pytest.mark.parametrize("given", [None, "", "two words", 'quo"te', "a" * 129])
def test_any_other_is_replaced_by_one_of_the_servers_own(logging: Logging, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    first, second = (logging.server.get("/v1/tasks", headers=headers).headers["x-request-id"] for _ in range(2))
    assert len({first, second, given}) == 3
    assert len(logging.of(first)) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "cause"),
    [("POST", "/v1/solve", 422, "invalid"), ("GET", "/nowhere?secret=1", 404, "not_found")],
)
def test_an_error_names_its_request_and_the_log_its_cause(
    logging: Logging, method: str, path: str, status: int, cause: str
) -> None:
    response = httpx.request(method, f"{logging.server.url}{path}", json={"puzzle": "x"})
    problem = response.json()
    assert (response.status_code, problem["cause"]) == (status, cause)
    assert problem["request_id"] == response.headers["x-request-id"]
    (line,) = logging.of(problem["request_id"])
    assert (line["status"], line["error"]) == (status, cause)
    assert "secret" not in json.dumps(line)


def test_an_error_of_the_servers_own_is_explained_in_the_log_alone(logging: Logging) -> None:
    (logging.checkpoint / EVALUATION_FILE).write_text("no JSON")
    response = logging.server.get("/v1/models")
    assert (response.status_code, response.json()["cause"]) == (500, "internal")
    assert "JSONDecodeError" not in response.text
    assert response.headers["x-request-id"] == response.json()["request_id"]
    answered, raised = logging.of(response.json()["request_id"], with_field="exception")
    assert (answered["level"], answered["status"], answered["error"]) == ("WARNING", 500, "internal")
    assert "JSONDecodeError" in raised["exception"]


def test_probes_and_scrapes_are_not_logged(logging: Logging) -> None:
    quiet = ("/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready")
    ids = [logging.server.get(path).headers["x-request-id"] for path in quiet]
    logging.of(logging.server.get("/v1/tasks").headers["x-request-id"])
    assert not [line for line in logging.lines() if line.get("request_id") in ids]


def test_a_client_that_leaves_is_logged_so(logging: Logging) -> None:
    url = httpx.URL(logging.server.url)
    body = json.dumps(REQUEST | {"num_trajectories": 100_000})
    head = f"POST /v1/solve HTTP/1.1\r\nhost: {url.host}\r\nx-request-id: left\r\ncontent-type: application/json\r\n"
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        logging.server.wait_until("gram_active_requests", 1)
    (line,) = logging.of("left")
    assert (line["status"], line["model"], line["num_trajectories"]) == (499, "nqueens-8", 100_000)


def test_people_read_text(checkpoint: Path, tmp_path: Path) -> None:
    with serving("--model", str(checkpoint), *FIXED_SIZE, log=tmp_path / "log") as server:
        server.get("/v1/tasks", headers={"X-Request-ID": "order-68"})
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if "order-68" in line]
    assert "INFO GET /v1/tasks 200 request_id=order-68 method=GET path=/v1/tasks status=200 seconds=" in line


class Collector(HTTPServer):
    """Takes OTLP over HTTP, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()


def test_traces_go_where_the_standard_variables_say(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        with serving("--model", str(checkpoint), *FIXED_SIZE, "--log-format", "json", log=tmp_path / "log") as server:
            called, own = (
                server.post("/v1/solve", json=REQUEST, headers=headers).headers["x-request-id"]
                for headers in ({"traceparent": TRACEPARENT}, {})
            )
        collector.shutdown()  # the server has sent what it had when it stopped
    logged = {line["request_id"]: line["trace_id"] for line in map(json.loads, (tmp_path / "log").open()) if "status" in line}
    assert logged[called] == TRACE_ID
    requests = {span.trace_id.hex(): span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert set(requests) == set(logged.values()) == {TRACE_ID, logged[own]}
    assert (requests[TRACE_ID].parent_span_id.hex(), requests[logged[own]].parent_span_id) == (CALLER, b"")
    for trace_id, request in requests.items():
        assert request.name == "POST /v1/solve"
        attributes = {attribute.key: attribute.value for attribute in request.attributes}
        assert attributes["gram.model"].string_value == "nqueens-8"
        assert attributes["gram.num_trajectories"].int_value == 3
        phases = {span.name: span for span in collector.spans if span.trace_id.hex() == trace_id and span is not request}
        assert set(phases) == {"queue", "compute"}
        queue, compute = phases["queue"], phases["compute"]
        assert queue.parent_span_id == compute.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= queue.start_time_unix_nano <= queue.end_time_unix_nano
        assert queue.end_time_unix_nano == compute.start_time_unix_nano < compute.end_time_unix_nano
