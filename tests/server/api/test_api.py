"""The HTTP surface, on a real server over a real socket."""

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.servers import PATIENCE, RunningServer, serving, wait_for
from gram.models.config import Ability, CheckpointError, read_config
from gram.models.tasks import TASKS
from gram.server.catalog import LoadedModel, bundled_models, choose, read_models
from tests.support import FIXED_SIZE

TASK = TASKS["nqueens-8"]
PUZZLE = TASK.text(TASK.held_out[0])
REQUEST: dict[str, Any] = {"task": "nqueens-8", "puzzle": PUZZLE, "num_trajectories": 8, "seed": 5}
BOARDS: dict[str, Any] = {"task": "nqueens-8", "num_samples": 8, "seed": 5}
GUIDANCE = {"prune": {"keep": 0.5, "steps": [2, 3, 4]}}
CROWD = 32
"""So many clients that all slots are taken, and others wait."""


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as session:
        yield session


def solve(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    response = client.post("/v1/solve", json=REQUEST | changes)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def generate(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    response = client.post("/v1/generate", json=BOARDS | changes)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(client: httpx.Client, accept: str, **changes: Any) -> list[tuple[str, dict[str, Any]]]:
    """The events of a solve's stream, SSE or NDJSON."""
    return stream(client, "/v1/solve", accept, REQUEST | changes)


def stream(client: httpx.Client, path: str, accept: str, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    response = client.post(path, json=body | {"stream": True}, headers={"accept": accept})
    assert response.headers["content-type"].startswith(accept)
    if accept == "application/x-ndjson":
        return [(line["event"], line["data"]) for line in map(json.loads, response.text.splitlines())]
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, *_, data in blocks]


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


def test_trajectories_that_see_other_images_come_to_other_solutions(client: httpx.Client) -> None:
    """Without noise, so that nothing else tells them apart."""
    open_ = max(TASK.held_out, key=lambda puzzle: len(TASK.solutions(puzzle)))
    still: dict[str, Any] = {"puzzle": TASK.text(open_), "num_trajectories": 24, "temperature": 0}
    answer, one = solve(client, **still), solve(client, **still, symmetries=False)
    assert answer["candidates"] == solve(client, **still, symmetries=True)["candidates"]
    assert 4 <= answer["distinct_valid"] <= len(answer["candidates"]) <= 8, "as many as a board has images"
    assert [candidate["votes"] for candidate in one["candidates"]] == [24]
    boards = [step["text"] for name, step in events(client, "text/event-stream", **still, stream_steps=True) if name == "step"]
    given = [i for i, symbol in enumerate(TASK.text(open_)) if symbol == "Q"]
    assert sum(all(board[i] == "Q" for i in given) for board in boards) > len(boards) / 2, "shown as the puzzle is written"


def test_without_learned_noise_or_with_noise_before_each_step(client: httpx.Client) -> None:
    still = solve(client, noise="none", seed=3)
    assert still["candidates"] == solve(client, temperature=0, seed=3)["candidates"]
    noisy: dict[str, Any] = {"symmetries": False, "halt": "never", "max_steps": 4, "noise": {"sigma": 1.5}}
    answer = solve(client, **noisy)
    assert answer["steps_run"] == 4 * answer["trajectories"]
    low, high = ({"sigma": 1.5, "latent": latent} for latent in ("low", "high"))
    assert answer["candidates"] == solve(client, **noisy | {"noise": low})["candidates"]
    assert answer["candidates"] != solve(client, **noisy | {"noise": high})["candidates"]


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


def test_guidance_ends_trajectories_that_rank_low_and_the_others_answer_as_without_it(client: httpx.Client) -> None:
    whole, guided = solve(client, num_trajectories=20), solve(client, num_trajectories=20, guidance=GUIDANCE)
    assert (whole["pruned"], guided["trajectories"]) == (0, 20)
    assert 0 < guided["pruned"] < 20
    assert sum(candidate["votes"] for candidate in guided["candidates"]) == 20 - guided["pruned"]
    assert {candidate["text"] for candidate in guided["candidates"]} <= {candidate["text"] for candidate in whole["candidates"]}
    assert guided["steps_run"] < whole["steps_run"]
    *sent, (_, result) = events(client, "application/x-ndjson", num_trajectories=20, guidance=GUIDANCE)
    assert result["candidates"] == guided["candidates"]
    assert len(sent) == 20 - guided["pruned"]


def test_guidance_and_an_early_stop_together_end_at_the_same_trajectory(client: httpx.Client) -> None:
    first, again = (solve(client, num_trajectories=500, stop="first_valid", guidance=GUIDANCE) for _ in range(2))
    assert first["distinct_valid"] == 1
    assert first["trajectories"] < 500
    assert {**first, "queue_ms": 0, "compute_ms": 0} == {**again, "queue_ms": 0, "compute_ms": 0}


def test_boards_are_generated_from_the_empty_one_and_checked(client: httpx.Client) -> None:
    answer = generate(client, model="nqueens-8")
    assert (answer["model"], answer["seed"], answer["trajectories"]) == ("nqueens-8", 5, 8)
    assert answer["puzzle"]["grid"] == [[0] * 8] * 8
    assert answer["distinct_valid"] > 1
    solutions = TASK.solutions(TASK.parse({"queens": []})) == 2
    for candidate in answer["candidates"]:
        if candidate["valid"]:
            assert (solutions == (TASK.parse(candidate["text"]) == 2)).all(axis=1).any()


def test_a_generate_is_a_solve_of_the_empty_board(client: httpx.Client) -> None:
    """The same seed gives the same boards, with the same options and the same stream."""
    options: dict[str, Any] = {
        "model": "nqueens-8",
        "guidance": GUIDANCE,
        "temperature": 2,
        "select": "majority",
        "top": 3,
    }
    answer = generate(client, **options)
    assert answer["pruned"] > 0
    assert answer["candidates"] == generate(client, **options)["candidates"]
    assert answer["candidates"] == solve(client, puzzle={"queens": []}, **options)["candidates"]
    assert answer["candidates"] != generate(client, **options, seed=6)["candidates"]
    for accept in ("text/event-stream", "application/x-ndjson"):
        *boards, (last, result) = stream(client, "/v1/generate", accept, BOARDS | options)
        assert {name for name, _ in boards} == {"trajectory"}
        assert (last, result["candidates"]) == ("result", answer["candidates"])


@pytest.mark.parametrize(
    ("change", "status", "place", "fix"),
    [
        ({"task": "coloring-8"}, 404, "task", "tasks with a model that can: nqueens-8"),
        ({"num_samples": 10**9}, 422, "num_samples", "allows 100000 at most"),
        ({"num_trajectories": 8}, 422, "num_trajectories", "not an option"),
        ({"puzzle": PUZZLE}, 422, "puzzle", "not an option"),
        ({"task": None}, 422, "body", "name a model or a task"),
    ],
)
def test_a_bad_generate_request_names_the_place_and_the_fix(
    client: httpx.Client, change: dict[str, Any], status: int, place: str, fix: str
) -> None:
    response = client.post("/v1/generate", json=BOARDS | change)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert any(error["place"] == place and fix in error["message"] for error in response.json()["errors"]), response.text


def test_a_model_that_was_not_trained_on_the_empty_input_generates_nothing(tmp_path: Path, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    folders = {name: tmp_path / name for name in ("solver", "both")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config | {"generates": name == "both"}))
    flags = [part for folder in folders.values() for part in ("--model", str(folder))]
    with serving(*flags, *FIXED_SIZE) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        shown = {model["name"]: model["generates"] for model in client.get("/v1/models").json()}
        assert shown == {"solver": False, "both": True}
        assert (solve(client)["model"], generate(client)["model"]) == ("solver", "both")
        response = client.post("/v1/generate", json=BOARDS | {"model": "solver"})
        assert response.status_code == 422
        assert response.json()["errors"] == [{"place": "model", "message": "solver can't generate; choose another model"}]


@pytest.mark.parametrize(
    ("loaded", "task", "solver", "generator"),
    [
        ("both", "nqueens-8", "both", "both"),
        ("both other-both", "nqueens-8", "both", "both"),
        ("solver both", "nqueens-8", "solver", "both"),
        ("solver", "nqueens-8", "solver", None),
        ("both", "sudoku-9x9", None, None),
        ("sudoku-both both", "nqueens-8", "both", "both"),
        ("sudoku-both both", None, "sudoku-both", "sudoku-both"),
        ("", None, None, None),
    ],
)
def test_the_first_model_of_a_task_that_can_do_what_is_asked_answers(
    loaded: str, task: str | None, solver: str | None, generator: str | None, checkpoint: Path
) -> None:
    config = read_config(checkpoint)

    def model(name: str) -> LoadedModel:
        of = {"task": "sudoku-9x9" if name.startswith("sudoku") else "nqueens-8", "generates": not name.endswith("solver")}
        return LoadedModel(name, checkpoint, config.model_copy(update=of))

    models = [model(name) for name in loaded.split()]
    abilities: dict[Ability, str | None] = {"solve": solver, "generate": generator}
    for ability, expected in abilities.items():
        chosen = choose([m for m in models if m.config.can(ability)], task)
        assert (chosen and chosen.name) == expected


def test_a_checkpoint_of_a_task_without_an_empty_input_cannot_say_that_it_generates(tmp_path: Path, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"task": "coloring-8", "generates": True}))
    with pytest.raises(CheckpointError, match="coloring-8 has no empty input"):
        read_models([tmp_path])


@pytest.mark.parametrize(
    ("task", "puzzle", "solutions"),
    [
        ("sudoku-4x4", "..4./.1../.2../3...", 1),
        ("sudoku-4x4", "." * 16, 288),
        ("sudoku-9x9", "." * 81, 1000),
        ("nqueens-8", {"queens": []}, 92),
        ("nqueens-8", "a1", 4),
        ("coloring-8", {"num_vertices": 3, "edges": [[0, 1]]}, 3),
    ],
)
def test_an_answer_says_how_many_solutions_there_are(client: httpx.Client, task: str, puzzle: Any, solutions: int) -> None:
    body = {"task": task, "puzzle": puzzle, "num_trajectories": 1, "max_steps": 1}
    assert client.post("/v1/solve", json=body).json()["solutions"] == solutions


@pytest.mark.parametrize(
    ("puzzle", "task"),
    [
        ("." * 81, "sudoku-9x9"),
        ("2....1...3...1..4..5..2...3...6....5", "sudoku-6x6"),
        ({"box_rows": 3, "board": "." * 36}, "sudoku-6x6"),
        ({"num_vertices": 10, "edges": [[0, 9]]}, "coloring-10"),
        ({"num_vertices": 3, "edges": [[0, 1]]}, "coloring-8"),
        ("." * 63 + "Q", "nqueens-8"),
    ],
    ids=["9x9", "6x6", "boxes", "graph", "small graph", "queens"],
)
def test_where_no_task_is_named_it_is_found_by_the_puzzle(client: httpx.Client, puzzle: Any, task: str) -> None:
    response = client.post("/v1/solve", json={"puzzle": puzzle, "num_trajectories": 1, "max_steps": 1})
    assert (response.status_code, response.json().get("task")) == (200, task), response.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"puzzle": "g7 a4"}, "this can be a puzzle of nqueens-8, nqueens-10; name the task that is meant"),
        ({"puzzle": "hello"}, "no task reads this puzzle"),
        ({"puzzle": {"num_vertices": 10, "edges": [[0, 9]]}, "task": "coloring-8"}, "coloring-10 can read this puzzle"),
        ({"puzzle": "." * 81, "task": "nqueens-8"}, "sudoku-9x9 can read this puzzle"),
        ({"puzzle": "11" + "." * 79}, "row 1: has two 1s"),
    ],
    ids=["two", "none", "a sibling", "another", "wrong"],
)
def test_where_the_task_cannot_be_told_the_error_says_what_to_name(client: httpx.Client, body: Any, said: str) -> None:
    response = client.post("/v1/solve", json=body)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["place"] == "puzzle"
    assert said in error["message"]


def test_a_puzzle_with_boxes_of_its_own_is_answered_in_its_own_terms(client: httpx.Client) -> None:
    rows = ["1234..", "......", "......", "......", "......", "..4321"]
    body = {"puzzle": {"box_rows": 3, "board": rows}, "task": "sudoku-6x6", "seed": 1, "num_trajectories": 4}
    answer = client.post("/v1/solve", json=body).json()
    assert answer["puzzle"]["text"] == "\n".join(["# box rows: 3", *rows])
    best = answer["candidates"][0]
    assert best["valid"]
    board = np.array(best["grid"])
    for unit in (*board, *board.T, *board.reshape(2, 3, 3, 2).swapaxes(1, 2).reshape(6, 6)):
        assert sorted(unit) == [1, 2, 3, 4, 5, 6]
    assert best["grid"][0][:4] == [1, 2, 3, 4]
    again = client.post("/v1/solve", json=body | {"puzzle": answer["puzzle"]}).json()
    assert again["candidates"] == answer["candidates"]


def test_a_board_that_is_generated_is_one_of_so_many(client: httpx.Client) -> None:
    assert generate(client)["solutions"] == 92


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("task", "puzzle", "detail"),
    [
        ("sudoku-4x4", "12../..3./..4./....", "without the 1 in row 1, column 1, for example, it has one"),
        (
            "sudoku-9x9",
            f"{'.......1.':.<27}{'........1':.<45}2345678..",
            "without the 1 in row 1, column 8, for example, it has one",
        ),
        ("nqueens-8", {"queens": [[0, 0], [1, 2], [2, 4], [3, 6]]}, ""),
        ("coloring-8", {"num_vertices": 4, "edges": [[i, j] for i in range(4) for j in range(i)]}, ""),
    ],
)
def test_a_puzzle_without_a_solution_is_refused_before_any_step(
    client: httpx.Client, server: RunningServer, task: str, puzzle: Any, detail: str, streamed: bool
) -> None:
    before = server.gauge("gram_trajectory_steps_total")
    response = client.post("/v1/solve", json={"task": task, "puzzle": puzzle, "stream": streamed})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    (error,) = response.json()["errors"]
    assert error["place"] == "puzzle"
    assert error["message"].startswith("this puzzle has no solution")
    assert error["message"].endswith(detail)
    assert server.gauge("gram_trajectory_steps_total") == before


def test_a_watched_stream_shows_each_trajectory_after_each_step_and_changes_no_answer(client: httpx.Client) -> None:
    options: dict[str, Any] = {"num_trajectories": 12, "guidance": GUIDANCE}
    watched = events(client, "application/x-ndjson", stream_steps=True, **options)
    (first, start), *between, (last, result) = watched
    plain = events(client, "application/x-ndjson", **options)
    assert (first, last) == ("start", "result")
    assert start == {
        "model": "nqueens-8",
        "task": "nqueens-8",
        "puzzle": result["puzzle"],
        "seed": 5,
        "num_trajectories": 12,
        "max_steps": 16,
    }
    assert [event for event in between if event[0] == "trajectory"] == plain[:-1]
    assert untimed(result) == untimed(plain[-1][1])
    ends = {data["trajectory"]: data["steps"] for name, data in between if name in ("trajectory", "pruned")}
    assert sorted(ends) == [*range(12)]
    assert sum(name == "pruned" for name, _ in between) == result["pruned"] > 0
    for index, end in ends.items():
        own = [(name, data) for name, data in between if data["trajectory"] == index]
        assert [(name, data["steps"]) for name, data in own[:-1]] == [("step", step) for step in range(1, end)]
        for _, data in own[:-1]:
            assert 0 <= data["score"] <= 1
            assert len(data["text"].split("\n")) == 8


def test_steps_are_shown_in_streams_alone(client: httpx.Client) -> None:
    response = client.post("/v1/solve", json=REQUEST | {"stream_steps": True})
    assert response.status_code == 422
    assert "stream_steps needs stream: true" in response.json()["detail"]


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if not name.endswith("_ms")}


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
    ("change", "status", "place", "fix"),
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
        ({"temperature": []}, 422, "temperature", "at least 1"),
        ({"temperature": [1] * 9}, 422, "temperature", "at most 8"),
        ({"temperature": [3, 11]}, 422, "temperature", "less than or equal to 10"),
        ({"temperature": [3, True]}, 422, "temperature", "write a number"),
        ({"temperature": {"first": 3}}, 422, "temperature", "number"),
        ({"temperature": [3, 0], "max_steps": 1}, 422, "body", "lists 2 steps, above max_steps 1"),
        ({"symmetries": "some"}, 422, "symmetries", "boolean"),
        ({"seed": 2**63}, 422, "seed", "less than"),
        ({"stop": "soon"}, 422, "stop", "first_valid"),
        ({"seed": False}, 422, "seed", "write a number, without quotes"),
        ({"max_steps": "5"}, 422, "max_steps", "write a number, without quotes"),
        ({"stop": True}, 422, "stop", "write a number, without quotes"),
        ({"stop": " 1e-1"}, 422, "stop", "write a number, without quotes"),
        ({"guidance": {"prune": {"steps": [True]}}}, 422, "guidance", "write a number"),
        ({"select": "best"}, 422, "select", "'checked', 'lprm' or 'majority'"),
        ({"K": 3}, 422, "K", "not an option"),
        ({"guidance": "some"}, 422, "guidance", "'none'"),
        ({"guidance": {"prune": {"keep": 1}}}, 422, "guidance", "less than 1"),
        ({"guidance": {"prune": {"steps": [4, 2]}}}, 422, "guidance", "ascending order"),
        ({"guidance": {"prune": {"steps": [0]}}}, 422, "guidance", "greater than or equal to 1"),
        ({"guidance": {"prune": {"steps": list(range(1, 10))}}}, 422, "guidance", "at most 8"),
        ({"guidance": {"prune": {"half": True}}}, 422, "guidance", "not an option"),
        ({"noise": "some"}, 422, "noise", "'learned' or 'none'"),
        ({"noise": {"sigma": -1}}, 422, "noise", "greater than 0"),
        ({"noise": {"latent": "z_L"}}, 422, "noise", "'low' or 'high'"),
        ({"noise": "none", "temperature": 2}, 422, "body", "temperature scales the learned noise"),
        ({"halt": 1}, 422, "halt", "less than 1"),
        ({"halt": "0.5"}, 422, "halt", "write a number, without quotes"),
        ({"halt": "always"}, 422, "halt", "'auto' or 'never'"),
        ({"model": "gpt"}, 404, "model", "loaded models: nqueens-8"),
        ({"task": "sudoku"}, 404, "task", "nqueens-8"),
        ({"task": "sudoku", "model": "nqueens-8"}, 422, "task", "name only one of the two"),
    ],
)
def test_a_bad_request_names_the_place_and_the_fix(
    client: httpx.Client, change: dict[str, Any], status: int, place: str, fix: str
) -> None:
    response = client.post("/v1/solve", json=REQUEST | change)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert any(error["place"].startswith(place) and fix in error["message"] for error in problem["errors"]), problem


@pytest.mark.parametrize(
    ("body", "status", "fix"), [(b'{"task":', 400, "not JSON"), (b"", 422, "body"), (b" " * 70_000, 413, "65536 at most")]
)
def test_a_broken_body_is_refused(client: httpx.Client, body: bytes, status: int, fix: str) -> None:
    response = client.post("/v1/solve", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert fix in response.json()["detail"]


def test_a_body_without_an_announced_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    response = client.post("/v1/solve", content=chunks(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_that_is_not_declared_as_json_is_told_which_header_it_needs(
    client: httpx.Client, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = client.post("/v1/solve", content=json.dumps(REQUEST), headers=headers)
    assert response.status_code == 415
    assert "'content-type: application/json'" in response.json()["detail"]
    assert (content_type or "none") in response.json()["detail"]
    assert client.post("/v1/solve", content=json.dumps(REQUEST), headers={"content-type": "application/JSON; x=y"}).is_success


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/docs", "/", "/v1/models", "/openapi.json"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert client.head("/v1/solve").status_code == 405


def test_a_stream_is_not_held_back_by_a_proxy_and_shows_that_it_is_alive(client: httpx.Client, server: RunningServer) -> None:
    body = REQUEST | {"stream": True}
    headers = {"accept": "text/event-stream"}
    with server.engine_stopped(), client.stream("POST", "/v1/solve", json=body, headers=headers) as response:
        assert response.headers["x-accel-buffering"] == "no"
        lines = response.iter_lines()
        assert next(lines).startswith(":"), "a comment of SSE"
    assert solve(client)["trajectories"] == 8


def test_other_addresses_and_methods_are_problems_too(client: httpx.Client) -> None:
    for response, status in ((client.get("/nowhere"), 404), (client.get("/v1/solve"), 405)):
        assert response.status_code == response.json()["status"] == status
        assert response.headers["content-type"] == "application/problem+json"
    assert client.put("/v1/models").headers["allow"] == "GET, POST"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(puzzle=JSON)
def test_no_puzzle_is_an_error_of_the_servers_own(client: httpx.Client, puzzle: Any) -> None:
    response = client.post("/v1/solve", json=REQUEST | {"puzzle": puzzle, "num_trajectories": 1})
    assert response.status_code in (200, 422)


def test_models_and_tasks_describe_themselves(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()}
    assert set(models) == {folder.name for folder in bundled_models()}
    assert all(model["evaluation"] for model in models.values())
    assert models["nqueens-8"]["task"] == "nqueens-8"
    assert models["nqueens-8"]["generates"]
    assert {model["kernels"] for model in models.values()} < {"AVX-512", "oneDNN", "PyTorch", "Triton", "Triton step"}
    tasks = {task["name"]: task for task in client.get("/v1/tasks").json()}
    assert list(tasks) == list(TASKS)
    for name, task in tasks.items():
        assert set(task["models"]) == {model["name"] for model in models.values() if model["task"] == name}
    assert "nqueens-8" in tasks["nqueens-8"]["models"]
    assert all(len(task["formats"]) == len(task["examples"]) for task in tasks.values())


@pytest.mark.parametrize("folder", bundled_models(), ids=lambda folder: folder.name)
def test_every_bundled_model_solves_every_spelling_of_its_task(client: httpx.Client, folder: Path) -> None:
    config = read_config(folder)
    for spelling in TASKS[config.task].examples:
        answer = solve(client, model=folder.name, task=None, puzzle=spelling, num_trajectories=4)
        assert answer["distinct_valid"] > 0
    if config.generates:
        assert generate(client, model=folder.name, task=None)["distinct_valid"] > 0


def test_the_examples_in_the_openapi_document_work(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, schema in (("/v1/solve", "SolveRequest"), ("/v1/generate", "GenerateRequest")):
        examples = document["components"]["schemas"][schema]["examples"]
        assert examples
        for example in examples:
            assert client.post(path, json=example).json()["distinct_valid"] > 0
    assert client.get("/docs").status_code == 200


def test_metrics_count_what_happened(client: httpx.Client, server: RunningServer) -> None:
    def counts() -> list[float]:
        names = ("gram_trajectories_total", "gram_trajectory_steps_total", "gram_time_to_first_candidate_seconds_count")
        return [server.gauge(name) for name in names]

    before = counts()
    answer = solve(client)
    trajectories, steps, requests = (after - b for after, b in zip(counts(), before, strict=True))
    assert (trajectories, steps, requests) == (8, answer["steps_run"], 1)
    pruned = server.gauge("gram_trajectories_pruned_total")
    assert solve(client, num_trajectories=20, guidance=GUIDANCE)["pruned"] > 0
    assert server.gauge("gram_trajectories_pruned_total") > pruned
    assert server.gauge("gram_free_slots") > 0


def test_a_crowd_of_requests_in_flight_and_a_restart_change_no_byte_of_an_answer(
    client: httpx.Client, checkpoint: Path
) -> None:
    guided = {"num_trajectories": 8, "guidance": GUIDANCE}
    alone, alone_guided = solve(client)["candidates"], solve(client, **guided)["candidates"]

    answered = threading.Event()

    def others(first: int) -> None:
        """Requests without end until the answer in question is there: it is never alone."""
        for number in itertools.count(first, CROWD):
            options = {"num_trajectories": 1 + number % 3, "guidance": GUIDANCE if number % 3 else "none"}
            solve(client, seed=number, puzzle=TASK.text(TASK.held_out[number % 200]), **options)
            if answered.is_set():
                return

    with ThreadPoolExecutor(CROWD) as crowd:
        running = [crowd.submit(others, first) for first in range(CROWD)]
        try:
            assert solve(client)["candidates"] == alone
            assert solve(client, **guided)["candidates"] == alone_guided
            assert not any(requests.done() for requests in running)
        finally:
            answered.set()
        for requests in running:
            requests.result()
    other_size = ("--slots", "5", "--threads", "1")
    with (
        serving("--model", str(checkpoint), *other_size) as restarted,
        httpx.Client(base_url=restarted.url, timeout=PATIENCE) as again,
    ):
        assert solve(again)["candidates"] == alone
        assert solve(again, **guided)["candidates"] == alone_guided


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slots(client: httpx.Client, server: RunningServer, stream: bool) -> None:
    if stream:
        body = REQUEST | {"stream": True, "num_trajectories": 100_000}
        with client.stream("POST", "/v1/solve", json=body) as response:
            lines = response.iter_lines()  # kept: without it the stream is closed
            next(lines)
            server.wait_past("gram_live_slots", 0)
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/solve", json=REQUEST | {"num_trajectories": 100_000}, timeout=httpx.Timeout(PATIENCE, read=0.5))
    server.wait_until("gram_active_requests", 0)
    solve(client, num_trajectories=1)  # the gauges follow the engine's next step
    server.wait_until("gram_live_slots", 0)
    assert server.gauge("gram_queue_depth") == 0


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stopped_server_finishes_what_runs_and_takes_its_engine_along(
    checkpoint: Path, stop: signal.Signals, code: int
) -> None:
    with (
        serving("--model", str(checkpoint), *FIXED_SIZE, "--grace-seconds", str(PATIENCE)) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        ThreadPoolExecutor(1) as clients,
    ):
        engine = server.engine()
        answer = clients.submit(solve, client, num_trajectories=60)
        wait_for(lambda: answer.done() or server.gauge("gram_active_requests") > 0, "the request is there")
        server.process.send_signal(stop)
        assert answer.result()["trajectories"] == 60
        assert server.process.wait(PATIENCE) == code
        engine.wait(PATIENCE)


def test_a_checkpoint_that_cannot_be_loaded_ends_the_server_with_its_reason(tmp_path: Path, checkpoint: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"nothing")
    command = [sys.executable, "-m", "gram", "serve", "--port", "0", "--model", str(broken)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert "model.safetensors" in result.stderr
    assert "Traceback" not in result.stderr.split("gram: ")[-1]
