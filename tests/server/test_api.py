"""The HTTP surface, on a real server over a real socket."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.tasks import TASKS
from tests.support import RunningServer, serving

TASK = TASKS["nqueens-8"]
PUZZLE = TASK.text(TASK.held_out[0])
REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": PUZZLE, "num_trajectories": 8, "seed": 5}


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as session:
        yield session


def solve(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    response = client.post("/v1/solve", json=REQUEST | changes)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(client: httpx.Client, accept: str, **changes: Any) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, SSE or NDJSON."""
    response = client.post("/v1/solve", json=REQUEST | {"stream": True} | changes, headers={"accept": accept})
    assert response.headers["content-type"].startswith(accept)
    if accept == "application/x-ndjson":
        return [(line["event"], line["data"]) for line in map(json.loads, response.text.splitlines())]
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_a_puzzle_comes_back_solved_and_checked(client: httpx.Client) -> None:
    answer = solve(client)
    assert (answer["model"], answer["task"], answer["seed"]) == ("nqueens-8", "nqueens-8", 5)
    assert answer["puzzle"]["text"] == PUZZLE
    assert answer["trajectories"] == 8
    assert answer["dropped"] == []
    assert sum(candidate["votes"] for candidate in answer["candidates"]) == 8
    assert answer["distinct_valid"] == sum(candidate["valid"] for candidate in answer["candidates"]) > 0
    scores = [candidate["score"] for candidate in answer["candidates"]]
    assert scores == sorted(scores, reverse=True)
    puzzle = TASK.parse(PUZZLE)
    for candidate in answer["candidates"]:
        tokens = TASK.parse(candidate["text"]) if candidate["valid"] else None
        if tokens is not None:
            assert any((solution == 2).tolist() == (tokens == 2).tolist() for solution in TASK.solutions(puzzle))
            assert candidate["grid"] == TASK.grid(tokens)


def test_every_spelling_of_a_puzzle_gives_the_same_answer(client: httpx.Client) -> None:
    answers = [solve(client, puzzle=example)["candidates"] for example in TASK.examples]
    assert all(answer == answers[0] for answer in answers)


def test_a_seed_is_chosen_and_returned_and_repeats_the_answer(client: httpx.Client) -> None:
    first, other = solve(client, seed=None), solve(client, seed=None)
    assert first["seed"] != other["seed"]
    assert solve(client, seed=first["seed"])["candidates"] == first["candidates"]


def test_top_and_select_cut_and_order_the_candidates(client: httpx.Client) -> None:
    everything = solve(client, num_trajectories=32, temperature=2)["candidates"]
    assert len(everything) > 1
    assert solve(client, num_trajectories=32, temperature=2, top=1)["candidates"] == everything[:1]
    votes = [c["votes"] for c in solve(client, num_trajectories=32, temperature=2, select="majority")["candidates"]]
    assert votes == sorted(votes, reverse=True)


def test_first_valid_stops_early_and_always_at_the_same_trajectory(client: httpx.Client) -> None:
    answer = solve(client, num_trajectories=500, stop="first_valid")
    assert answer["distinct_valid"] == 1
    assert answer["trajectories"] < 500
    assert solve(client, num_trajectories=500, stop="first_valid")["candidates"] == answer["candidates"]


def test_a_score_stops_early(client: httpx.Client) -> None:
    assert solve(client, num_trajectories=500, stop=0.0)["trajectories"] == 1
    assert solve(client, num_trajectories=8, stop=1.0)["trajectories"] == 8


def test_max_steps_bounds_the_depth(client: httpx.Client) -> None:
    assert {candidate["steps"] for candidate in solve(client, max_steps=1)["candidates"]} == {1}


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
@pytest.mark.parametrize("stop", ["all", "first_valid"])
def test_a_stream_sends_each_trajectory_and_then_the_ranked_result(client: httpx.Client, accept: str, stop: str) -> None:
    whole = solve(client, stop=stop)
    *trajectories, (last, result) = events(client, accept, stop=stop)
    assert {name for name, _ in trajectories} == {"trajectory"}
    assert sorted(data["trajectory"] for _, data in trajectories) == list(range(whole["trajectories"]))
    assert last == "result"
    assert result["candidates"] == whole["candidates"]


@pytest.mark.parametrize(
    ("change", "status", "place", "mend"),
    [
        ({"puzzle": "Q" * 64}, 422, "puzzle", "row 1, column 1"),
        ({"puzzle": "g7 h8"}, 422, "puzzle", "diagonal"),
        ({"puzzle": "x" * 64}, 422, "puzzle", "'x' is neither"),
        ({"puzzle": "...."}, 422, "puzzle", "write 8 rows of 8"),
        ({"puzzle": None}, 422, "puzzle", "a board is one of"),
        ({"num_trajectories": 0}, 422, "num_trajectories", "greater than or equal to 1"),
        ({"num_trajectories": 10**9}, 422, "num_trajectories", "allows 100000 at most"),
        ({"max_steps": 10**9}, 422, "max_steps", "allows 1024 at most"),
        ({"temperature": -1}, 422, "temperature", "greater than or equal to 0"),
        ({"seed": 2**63}, 422, "seed", "less than"),
        ({"stop": "soon"}, 422, "stop", "first_valid"),
        ({"select": "best"}, 422, "select", "'lprm' or 'majority'"),
        ({"K": 3}, 422, "K", "not an option"),
        ({"model": "gpt"}, 404, "model", "loaded: nqueens-8"),
        ({"task": "sudoku"}, 404, "task", "nqueens-8"),
        ({"task": "sudoku", "model": "nqueens-8"}, 422, "task", "name one of the two"),
        ({"task": None}, 422, "body", "name a model or a task"),
    ],
)
def test_a_bad_request_names_the_place_and_the_mend(
    client: httpx.Client, change: dict[str, Any], status: int, place: str, mend: str
) -> None:
    response = client.post("/v1/solve", json=REQUEST | change)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert any(error["place"].startswith(place) and mend in error["message"] for error in problem["errors"]), problem


@pytest.mark.parametrize(
    ("body", "status", "mend"), [(b'{"task":', 400, "not JSON"), (b"", 422, "body"), (b" " * 70_000, 413, "65536 at most")]
)
def test_a_broken_body_is_refused(client: httpx.Client, body: bytes, status: int, mend: str) -> None:
    response = client.post("/v1/solve", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert mend in response.json()["detail"]


def test_a_body_without_an_announced_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    response = client.post("/v1/solve", content=chunks(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_other_addresses_and_methods_are_problems_too(client: httpx.Client) -> None:
    for response, status in ((client.get("/nowhere"), 404), (client.get("/v1/solve"), 405)):
        assert response.status_code == response.json()["status"] == status
        assert response.headers["content-type"] == "application/problem+json"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=20,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(puzzle=JSON)
def test_no_puzzle_is_an_error_of_the_servers_own(client: httpx.Client, puzzle: Any) -> None:
    response = client.post("/v1/solve", json=REQUEST | {"puzzle": puzzle, "num_trajectories": 1})
    assert response.status_code in (200, 422)


def test_models_and_tasks_describe_themselves(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()
    assert (model["name"], model["task"]) == ("nqueens-8", "nqueens-8")
    assert model["evaluation"]
    (task,) = client.get("/v1/tasks").json()
    assert task["models"] == ["nqueens-8"]
    assert len(task["formats"]) == len(task["examples"])


def test_the_examples_in_the_openapi_document_work(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    examples = document["components"]["schemas"]["SolveRequest"]["examples"]
    assert examples
    for example in examples:
        assert client.post("/v1/solve", json=example).json()["distinct_valid"] > 0
    assert client.get("/docs").status_code == 200


def test_metrics_count_what_happened(client: httpx.Client, server: RunningServer) -> None:
    def counts() -> list[float]:
        names = ("gram_trajectories_total", "gram_trajectory_steps_total", "gram_time_to_first_candidate_seconds_count")
        return [server.gauge(name) for name in names]

    before = counts()
    answer = solve(client)
    trajectories, steps, requests = (after - b for after, b in zip(counts(), before, strict=True))
    assert (trajectories, steps, requests) == (8, answer["steps_run"], 1)
    assert server.gauge("gram_slots") > 0


def test_200_requests_in_flight_and_a_restart_change_no_byte_of_an_answer(client: httpx.Client) -> None:
    alone = solve(client)["candidates"]

    def other(number: int) -> None:
        solve(client, seed=number, num_trajectories=1 + number % 7, puzzle=TASK.text(TASK.held_out[number]))

    with ThreadPoolExecutor(64) as crowd:
        others = [crowd.submit(other, number) for number in range(200)]
        assert solve(client)["candidates"] == alone
        assert not all(future.done() for future in others)
        for future in others:
            future.result()
    with serving("--slots", "5") as restarted, httpx.Client(base_url=restarted.url, timeout=60) as again:
        assert solve(again)["candidates"] == alone


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slots(client: httpx.Client, server: RunningServer, stream: bool) -> None:
    if stream:
        body = REQUEST | {"stream": True, "num_trajectories": 100_000}
        with client.stream("POST", "/v1/solve", json=body) as response:
            next(response.iter_lines())
            assert server.gauge("gram_live_slots") > 0
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/solve", json=REQUEST | {"num_trajectories": 100_000}, timeout=0.5)
    server.wait_until("gram_active_requests", 0)
    solve(client, num_trajectories=1)  # the gauges follow the engine's next step
    server.wait_until("gram_live_slots", 0)
    assert server.gauge("gram_queue_depth") == 0


def test_an_engine_that_is_killed_costs_no_client_its_answer() -> None:
    with serving() as server, httpx.Client(base_url=server.url, timeout=120) as client:
        puzzles = [TASK.text(puzzle) for puzzle in TASK.held_out[:8]]
        alone = [solve(client, puzzle=puzzle, num_trajectories=40)["candidates"] for puzzle in puzzles]
        streamed: list[tuple[str, dict[str, Any]]] = []
        stream = threading.Thread(
            target=lambda: streamed.extend(events(client, "application/x-ndjson", puzzle=puzzles[0], num_trajectories=400))
        )
        with ThreadPoolExecutor(8) as clients:
            stream.start()
            answers = [clients.submit(solve, client, puzzle=puzzle, num_trajectories=40) for puzzle in puzzles]
            time.sleep(0.3)
            os.kill(server.engine().pid, signal.SIGKILL)
            assert [answer.result()["candidates"] for answer in answers] == alone
        stream.join()
        assert sorted(data["trajectory"] for name, data in streamed if name == "trajectory") == list(range(400))
        assert server.gauge("gram_engine_restarts") == 1


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stopped_server_finishes_what_runs_and_takes_its_engine_along(stop: signal.Signals, code: int) -> None:
    with serving() as server, httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(1) as clients:
        engine = server.engine()
        answer = clients.submit(solve, client, num_trajectories=200)
        while server.gauge("gram_active_requests") == 0:
            time.sleep(0.01)
        server.process.send_signal(stop)
        assert answer.result()["trajectories"] == 200
        assert server.process.wait(30) == code
        engine.wait(5)
        assert not engine.is_running()


def test_a_checkpoint_that_cannot_be_loaded_ends_the_server_with_its_reason(tmp_path: Path, checkpoint: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"nothing")
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--model", str(broken)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "model.safetensors" in result.stderr
    assert "Traceback" not in result.stderr.split("gram: ")[-1]
