"""The README is short and true: its commands are CI's, its request works, its figures are measured. See tests/docs too."""

import json
import re
import shlex
from pathlib import Path

from benchmarks.servers import RunningServer
from gram.models.evaluation.report import band_tables, overview, zoo_table
from gram.models.tasks import TASKS
from gram.server.catalog import bundled_models

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert [line for line in lines if len(line) > 120] == []


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^python3 -m venv .*pytest$", README, re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_request_gives_the_answer_shown(server: RunningServer) -> None:
    curl, answer = re.search(r"```bash\n(curl .*?)```\n\n```json\n(.*?)```", README, re.DOTALL).groups()  # type: ignore[union-attr]
    arguments = shlex.split(curl.replace("\\\n", " "))
    body = json.loads(arguments[arguments.index("-d") + 1])
    response = server.post("/v1/solve", json=body).json()
    shown = json.loads(answer)
    assert response.keys() == shown.keys()
    assert response["puzzle"] == shown["puzzle"]
    task = TASKS[body["task"]]
    solutions = [task.grid(solution) for solution in task.solutions(task.parse(body["puzzle"]))]
    for candidate in (*shown["candidates"], *response["candidates"]):
        assert candidate.keys() == shown["candidates"][0].keys()
        assert candidate["valid"]
        assert candidate["grid"] == task.grid(task.parse(candidate["text"]))
        assert candidate["grid"] in solutions
    assert len(shown["candidates"]) == shown["distinct_valid"] == len(solutions)


def test_the_figures_of_the_models_are_the_measured_ones() -> None:
    assert overview(bundled_models()) in README
    document = (ROOT / "docs" / "models.md").read_text()
    assert zoo_table(bundled_models()) in document
    assert all(part in document for part in band_tables(bundled_models()).split("\n\n"))
