"""What users send beside the spellings of a task: arrays, tensors, and boards as the server shows them."""

import numpy as np
import pytest
import torch

from gram.models.tasks import TASKS, PuzzleError, Task


@pytest.fixture(params=list(TASKS.values()), ids=list(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


def test_every_spelling_is_read(task: Task) -> None:
    first, *others = map(task.read, task.examples)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize(
    "made", [np.array, torch.tensor, lambda rows: torch.tensor(rows).float(), lambda rows: [*map(tuple, rows)]]
)
def test_arrays_tensors_and_tuples_are_read(task: Task, made: object) -> None:
    numbers = [spelling for spelling in task.examples if isinstance(spelling, list) and isinstance(spelling[0], list)]
    assert numbers
    for rows in numbers:
        assert np.array_equal(task.read(made(rows)), task.parse(rows))  # type: ignore[operator]


def test_a_matrix_of_booleans_is_read() -> None:
    for name in ("nqueens-8", "coloring-8"):
        task = TASKS[name]
        rows = next(spelling for spelling in task.examples if isinstance(spelling, list) and isinstance(spelling[0], list))
        assert np.array_equal(task.read(np.array(rows) == 1), task.parse(rows))


def test_a_board_is_read_as_the_server_shows_it(task: Task) -> None:
    puzzle = task.parse(task.examples[0])
    assert np.array_equal(task.read({"text": task.text(puzzle), "grid": task.grid(puzzle)}), puzzle)


def test_a_board_that_shows_two_puzzles_is_refused(task: Task) -> None:
    one, other = task.held_out[:2]
    with pytest.raises(PuzzleError, match="different boards"):
        task.read({"text": task.text(one), "grid": task.grid(other)})


@pytest.mark.parametrize(
    "puzzle", [np.float32(0.5), np.ones((2, 2, 2)), torch.ones(3), object(), {"text": 1, "grid": []}, ((),)]
)
def test_what_is_no_puzzle_is_refused(task: Task, puzzle: object) -> None:
    with pytest.raises(PuzzleError):
        task.read(puzzle)
