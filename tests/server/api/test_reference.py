"""The API reference is what the code gives, and says what a stream sends."""

import json
import re
from pathlib import Path

from benchmarks.servers import RunningServer
from gram.server.api.reference import openapi, reference
from gram.server.api.schemas import Problem
from gram.server.causes import MEANINGS
from gram.server.sampling.answers import EVENTS
from gram.server.sampling.requests import SolveRequest

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_document_is_made_from_the_code() -> None:
    assert DOCUMENT.read_text() == reference(), "python -m gram.server.api.reference > docs/api.md"


def test_it_has_every_call_and_every_field_of_the_openapi_document() -> None:
    text, document = DOCUMENT.read_text(), openapi()
    for path, calls in document["paths"].items():
        for method in calls:
            assert f"\n## {method.upper()} {path}\n" in text
    for name, schema in document["components"]["schemas"].items():
        if "ValidationError" in name:
            continue  # FastAPI's own
        section = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert [*schema.get("properties", [])] == re.findall(r"^\| `(\w+)`", section, re.MULTILINE), name
    assert re.findall(r"^.*\|  \|$", text, re.MULTILINE) == [], "these lines explain nothing"


def test_it_is_the_document_of_a_server(server: RunningServer) -> None:
    assert server.get("/openapi.json").json() == openapi()


def test_it_knows_the_events_that_a_stream_sends(server: RunningServer) -> None:
    options = {name: True for name in SolveRequest.model_fields if name.startswith("stream")}
    guidance = {"prune": {"keep": 0.5, "steps": [1]}}
    body = {"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 8, "seed": 1, "guidance": guidance, **options}
    response = server.post("/v1/solve", json=body, headers={"accept": "application/x-ndjson"})
    events = [json.loads(line) for line in response.text.splitlines()]
    assert {event["event"] for event in events} == EVENTS.keys()
    for event in events:
        model = EVENTS[event["event"]]
        assert model.model_validate(event["data"]).model_dump() == event["data"]


def test_a_cause_comes_with_a_status_that_it_names(server: RunningServer) -> None:
    bodies = [b"{", b'{"puzzle": "a1"}', b'{"task": "chess", "puzzle": "a1"}', b"1" * 70_000]
    for body in bodies:
        response = server.post("/v1/solve", content=body, headers={"content-type": "application/json"})
        cause = Problem.model_validate(response.json()).cause
        assert response.status_code in MEANINGS[cause].statuses
