"""Requests, streams and servers for the tests of what happens while engines die."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.servers import PATIENCE, RunningServer, serving
from gram.models.tasks import TASKS
from tests.support import FIXED_SIZE

QUEENS, SUDOKU = TASKS["nqueens-8"], TASKS["sudoku-4x4"]

Answer = dict[str, Any]
Body = dict[str, Any]
Event = tuple[str, Answer]


def queens(number: int = 0, **options: Any) -> Body:
    return {
        "model": "nqueens-8",
        "puzzle": QUEENS.text(QUEENS.held_out[number]),
        "num_trajectories": 20,
        "seed": number,
    } | options


def sudoku(model: str, **options: Any) -> Body:
    return {"model": model, "puzzle": SUDOKU.text(SUDOKU.held_out[0]), "num_trajectories": 20, "seed": 1} | options


def untimed(answer: Answer) -> Answer:
    """An answer without what may differ between two runs."""
    return {name: value for name, value in answer.items() if not name.endswith("_ms")}


def ask(client: httpx.Client, body: Body) -> Answer:
    response = client.post("/v1/solve", json=body)
    assert response.status_code == 200, response.text
    return untimed(response.json())


def refused(client: httpx.Client, body: Body) -> str:
    """The detail of the 503 that answers it."""
    response = client.post("/v1/solve", json=body)
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json"), response.text
    detail: str = response.json()["detail"]
    return detail


def stream(client: httpx.Client, body: Body, received: list[Event] | None = None) -> list[Event]:
    """The events of a solve's stream; `received` has them as they come."""
    events = [] if received is None else received
    headers = {"accept": "application/x-ndjson"}
    with client.stream("POST", "/v1/solve", json=body | {"stream": True}, headers=headers) as response:
        assert response.status_code == 200, response.read()
        for line in map(json.loads, response.iter_lines()):
            events.append((line["event"], line["data"]))
    return events


def ordered(events: list[Event]) -> list[Event]:
    """A stream's events, without those of steps, the trajectories in the order of their index."""
    *between, (last, result) = events
    return [*sorted(between, key=lambda event: event[1].get("trajectory", -1)), (last, untimed(result))]


def statuses(client: httpx.Client) -> dict[str, str]:
    return {model["name"]: model["status"] for model in client.get("/v1/models").json()}


@contextmanager
def serving_models(*models: Path, flags: tuple[str, ...] = FIXED_SIZE) -> Iterator[tuple[RunningServer, httpx.Client]]:
    named = [part for model in models for part in ("--model", str(model))]
    with (
        serving(*named, "--max-timeout-seconds", str(10 * PATIENCE), *flags) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        yield server, client


SILENCE = 5
"""An engine looks at its messages between two steps. Steps of 8 rows are much shorter than this, on any machine."""
