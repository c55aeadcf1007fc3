"""A checkpoint whose task has no code, from the request to the ranked answers: nothing says which of them are valid."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import RunningServer, serving
from gram import Client
from gram.server.client.errors import GramError
from gram.server.sampling.answers import SolveResponse
from tests.server.cli.support import gram
from tests.support import FIXED_SIZE, unchecked_checkpoint

PUZZLE = "012345678"


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unchecked_checkpoint(tmp_path_factory.mktemp("models") / "mine")


@pytest.fixture(scope="module")
def server(unchecked: Path, checkpoint: Path) -> Iterator[RunningServer]:
    with serving("--model", str(unchecked), "--model", str(checkpoint), *FIXED_SIZE) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def answer(client: Client) -> SolveResponse:
    return client.solve(PUZZLE, task="nine", seed=1, max_steps=2)


def test_answers_are_ranked_by_score_and_votes_and_none_is_called_valid(client: Client, answer: SolveResponse) -> None:
    assert len(answer.candidates) > 1
    assert {candidate.valid for candidate in answer.candidates} == {None}
    assert (answer.distinct_valid, answer.solutions) == (None, None)
    scores = [candidate.score for candidate in answer.candidates]
    assert scores == sorted(scores, reverse=True)
    assert sum(candidate.votes for candidate in answer.candidates) == 20
    votes = client.solve(PUZZLE, task="nine", seed=1, max_steps=2, select="majority").candidates
    assert [candidate.votes for candidate in votes] == sorted((c.votes for c in votes), reverse=True)


def test_the_best_score_ends_a_request_but_no_verdict_does(client: Client) -> None:
    assert client.solve(PUZZLE, task="nine", seed=1, max_steps=2, stop=0.0).trajectories == 1
    with pytest.raises(GramError, match="nine has no checker that could stop at a valid answer") as refused:
        client.solve(PUZZLE, task="nine", stop="first_valid")
    assert refused.value.problem is not None
    assert [error.place for error in refused.value.problem.errors] == ["stop"]


def test_a_batch_has_no_tensor_that_calls_them_valid(server: RunningServer, answer: SolveResponse) -> None:
    named = [output["name"] for output in server.get("/v2/models/mine").json()["outputs"]]
    assert named == ["candidates", "text", "scores", "steps", "votes"]
    puzzle = {"name": "puzzle", "datatype": "INT64", "shape": [1, 9], "data": [*range(9)]}
    body = {"inputs": [puzzle], "parameters": {"seed": 1, "max_steps": 2}}
    told = {output["name"]: output for output in server.post("/v2/models/mine/infer", json=body).json()["outputs"]}
    assert list(told) == named
    assert told["text"]["data"] == [candidate.text for candidate in answer.candidates]
    refused = server.post("/v2/models/mine/infer", json=body | {"outputs": [{"name": "valid"}]})
    assert refused.json() == {"error": f"outputs.0.name: 'valid' is none of {', '.join(named)}"}
    refused = server.post("/v2/models/mine/infer", json=body | {"parameters": {"stop": "first_valid"}})
    assert refused.json()["error"].startswith("parameters.stop: nine has no checker")


def test_it_is_listed_beside_the_registered_tasks(client: Client) -> None:
    tasks = {task.name: task for task in client.tasks()}
    assert (tasks["nine"].checked, tasks["nine"].models) == (False, ["mine"])
    assert tasks["nqueens-8"].checked
    example = tasks["nine"].examples[0]
    assert isinstance(example, str)
    assert client.solve(example, task="nine", num_trajectories=1).puzzle.text == example


def test_a_task_with_code_goes_first_where_the_puzzle_tells_the_task(client: Client) -> None:
    assert client.solve(PUZZLE, num_trajectories=1).task == "nine"
    assert client.solve("g7 a4", num_trajectories=1).task == "nqueens-8"


def test_no_puzzle_can_be_drawn_without_its_data(server: RunningServer) -> None:
    refused = server.get("/v1/tasks/nine/puzzle")
    assert refused.status_code == 404
    assert "no held-out puzzles of 'nine'" in refused.json()["detail"]


@pytest.mark.usefixtures("answer")
def test_its_trajectories_are_counted_as_unchecked(server: RunningServer) -> None:
    lines = server.get("/metrics").text.splitlines()
    counts = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("gram_trajectories_total{")}
    assert counts['gram_trajectories_total{model="mine",task="nine",valid="null"}'] >= 20
    assert counts['gram_trajectories_total{model="mine",task="nine",valid="true"}'] == 0


def test_the_command_line_calls_them_neither_valid_nor_wrong(unchecked: Path, answer: SolveResponse) -> None:
    shown = gram("solve", PUZZLE, "--model", str(unchecked), "--seed", "1", "--max-steps", "2")
    assert shown.returncode == 0, shown.stderr
    assert f"{len(answer.candidates)} distinct answers from 20 trajectories" in shown.stdout
    assert not {"valid", "WRONG"} & set(shown.stdout.split())
    assert f"{answer.candidates[0].score:.3f} x{answer.candidates[0].votes}" in shown.stdout
    refused = gram("solve", PUZZLE, "--model", str(unchecked), "--stop", "first_valid")
    assert "nine has no checker" in refused.stderr


def test_a_file_gives_the_same_answers_here_and_there(unchecked: Path, server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "puzzles.txt"
    file.write_text(f"{PUZZLE}\n{PUZZLE[::-1]}\n")
    options = ("--input", str(file), "--task", "nine", "--seed", "1", "--num-trajectories", "3")
    here = gram("solve", *options, "--model", str(unchecked))
    there = gram("solve", *options, "--url", server.url)
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    assert here.stdout == there.stdout
    assert [json.loads(line)["candidates"][0]["valid"] for line in here.stdout.splitlines()] == [None, None]
    unknown = gram("solve", "--input", str(file), "--task", "ten", "--url", server.url)
    assert "unknown task 'ten'; known tasks: nqueens-8" in unknown.stderr
    assert "nine" in unknown.stderr
