"""Mazes as people have them: a table as HRM and TRM publish it, an imported checkpoint, and a request over HTTP."""

import csv
from pathlib import Path

import numpy as np

from benchmarks.servers import RunningServer
from gram.models.tasks import TASKS, Task
from gram.server.inputs.files import PuzzleFile
from tests.models.importing.support import random_tensors, small_arch, write_public
from tests.server.cli.support import gram
from tests.support import write_data_set

SMALL, LARGE = TASKS["maze-8x8"], TASKS["maze-30x30"]


def write_table(path: Path, task: Task, count: int) -> Path:
    """Write a table of held-out mazes and one answer each, in one line each, with spaces for open cells."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "question", "answer", "rating"])
        for maze in task.held_out[:count]:
            question, answer = (task.text(t).replace("\n", "").replace(".", " ") for t in (maze, task.solutions(maze)[0]))
            writer.writerow(["made", question, answer, 3])
    return path


def test_the_spaces_of_a_table_are_kept(tmp_path: Path) -> None:
    found = PuzzleFile(write_table(tmp_path / "mazes.csv", LARGE, 20), [*TASKS.values()])
    assert found.task is LARGE
    assert len(found) == 20
    for line, maze in zip(found, LARGE.held_out, strict=False):
        assert len(line.text) == 900
        assert np.array_equal(LARGE.read(line.puzzle), maze)
        assert LARGE.check(maze, LARGE.read(line.answer))
    assert any(line.text != line.text.strip() for line in found)


def test_a_maze_hard_checkpoint_is_imported_and_answers_a_table_and_its_data_set(tmp_path: Path) -> None:
    arch = small_arch(halt_max_steps=2)
    tensors = random_tensors(arch, vocab_size=6, seq_len=900)
    theirs = write_public(tmp_path / "theirs", arch, tensors, data={"vocab_size": 6, "seq_len": 900})
    imported = gram("import", str(theirs), "--out", str(tmp_path / "ours"))
    assert "answers maze-30x30: 900 cells of 5 symbols" in imported.stdout
    labels = np.stack([LARGE.solutions(maze)[0] for maze in LARGE.held_out[:2]])
    data = write_data_set(tmp_path / "data", LARGE.held_out[:2], labels, 5)
    for source in (write_table(tmp_path / "mazes.csv", LARGE, 2), data):
        out = tmp_path / f"{source.name}-answers.csv"
        options = ("--model", str(tmp_path / "ours"), "--num-trajectories", "2", "--max-steps", "2", "--output", str(out))
        done = gram("solve", "--input", str(source), *options)
        assert done.returncode == 0, done.stderr
        rows = [*csv.DictReader(out.open())]
        assert [row["error"] for row in rows] == ["", ""]
        assert [row["valid"] for row in rows] == ["false", "false"], "its weights are random"
        for row, maze in zip(rows, LARGE.held_out, strict=False):
            given = LARGE.given(maze)
            assert np.array_equal(LARGE.read(row["answer"])[given], maze[given])


def test_a_maze_is_solved_over_http_by_several_shortest_paths(server: RunningServer) -> None:
    maze = next(maze for maze in SMALL.held_out if SMALL.count_solutions(maze) in range(4, 9))
    text = SMALL.text(maze).replace(".", " ")
    answer = server.post("/v1/solve", json={"puzzle": text, "num_trajectories": 20, "seed": 1}).json()
    assert (answer["task"], answer["model"]) == ("maze-8x8", "maze-8x8")
    assert answer["solutions"] == SMALL.count_solutions(maze)
    found = [SMALL.read(candidate["text"]) for candidate in answer["candidates"] if candidate["valid"]]
    assert len(found) == answer["distinct_valid"] > 1
    assert all(SMALL.check(maze, each) for each in found)
    refused = server.post(
        "/v1/solve", json={"task": "maze-8x8", "puzzle": "/".join(["S#......", "#......G"] + ["........"] * 6)}
    )
    assert refused.status_code == 422
    assert "no path leads from S to G; open a wall" in refused.text
