"""The symmetries of the tasks: what they show are puzzles of the kind, and answers to them are answers to the puzzle."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gram.models.tasks import MOST_COUNTED, TASKS, Task, Tokens
from gram.models.tasks.symmetry import Symmetries, draws

SEEDS = st.integers(0, 2**63 - 1)
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def words(*numbers: int) -> NDArray[np.uint64]:
    return np.array(numbers, dtype=np.uint64)


def drawn(task: Task, puzzles: Tokens, seed: int) -> Symmetries:
    """A symmetry for each of the puzzles, as trajectories 0, 1, ... of a request with this seed have them."""
    count = len(puzzles)
    keys = np.full(count, seed, dtype=np.uint64), np.arange(count, dtype=np.uint64)
    return task.symmetries(puzzles, draws(*keys, task.num_draws))


def repeated(symmetries: Symmetries, row: int, count: int) -> Symmetries:
    """One of them, so many times."""
    return Symmetries(np.tile(symmetries.cells[row], (count, 1)), np.tile(symmetries.symbols[row], (count, 1)))


@tasks
@given(seed=SEEDS, data=st.data())
def test_the_answers_to_an_image_are_those_to_the_puzzle(task: Task, seed: int, data: st.DataObject) -> None:
    puzzle = task.held_out[data.draw(st.integers(0, len(task.held_out) - 1))]
    symmetries = drawn(task, puzzle[None], seed)
    (image,) = symmetries.image(puzzle[None])
    solutions = task.solutions(image)
    back = repeated(symmetries, 0, len(solutions)).preimage(solutions)
    assert all(task.check(puzzle, answer) for answer in back[:20])
    if len(solutions) < MOST_COUNTED:
        assert {task.canonical(answer).tobytes() for answer in back} == {s.tobytes() for s in task.solutions(puzzle)}


@tasks
@given(seed=SEEDS)
def test_an_image_seen_back_is_the_puzzle(task: Task, seed: int) -> None:
    puzzles = task.held_out[:20]
    symmetries = drawn(task, puzzles, seed)
    assert np.array_equal(symmetries.preimage(symmetries.image(puzzles)), puzzles)
    assert np.array_equal(symmetries.image(symmetries.preimage(puzzles)), puzzles)


@tasks
@given(seed=SEEDS)
def test_an_image_is_read_as_it_is_written(task: Task, seed: int) -> None:
    """So it is a puzzle that somebody could send: a smaller graph's vertices still come first, for one."""
    for image in drawn(task, task.held_out[:5], seed).image(task.held_out[:5]):
        assert np.array_equal(task.parse(task.text(image)), image)


@given(seed=SEEDS, size=st.integers(1, 8))
def test_the_vertices_that_a_graph_has_not_stay_last(seed: int, size: int) -> None:
    task = TASKS["coloring-8"]
    path = task.parse({"num_vertices": size, "edges": [[i, i + 1] for i in range(size - 1)]})
    images = drawn(task, np.tile(path, (30, 1)), seed).image(np.tile(path, (30, 1)))
    for image in images:
        assert np.array_equal(task.parse(task.text(image)), image)
    different = len(np.unique(images, axis=0))
    assert different > 10 if size > 4 else different >= 1 + (size == 3)


def test_all_eight_images_of_a_board_come_about_as_often() -> None:
    task = TASKS["nqueens-8"]
    puzzle = task.parse("b1")
    images, counts = np.unique(
        drawn(task, np.tile(puzzle, (8000, 1)), 0).image(np.tile(puzzle, (8000, 1))), axis=0, return_counts=True
    )
    turned = {np.rot90(side, turns).tobytes() for side in (puzzle.reshape(8, 8), puzzle.reshape(8, 8).T) for turns in range(4)}
    assert {image.tobytes() for image in images} == turned
    assert np.all(np.abs(counts - 1000) < 150)


def test_draws_depend_on_the_seed_and_the_trajectory_alone() -> None:
    keys = list(itertools.product((0, 1, 2**63 - 1), (0, 1, 10**6)))
    together = draws(words(*(seed for seed, _ in keys)), words(*(index for _, index in keys)), 50)
    for row, (seed, index) in zip(together, keys, strict=True):
        assert np.array_equal(draws(words(seed), words(index), 50)[0], row)
        assert np.array_equal(draws(words(seed), words(index), 3)[0], row[:3])
    assert len(np.unique(together)) == together.size


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_draws_are_uniform(seed: int) -> None:
    many = draws(np.full(4000, seed, np.uint64), np.arange(4000, dtype=np.uint64), 25)
    counts, _ = np.histogram(many, bins=20, range=(0, 1))
    assert counts.sum() == many.size  # none is outside of [0, 1)
    assert np.all(np.abs(counts / many.size - 0.05) < 0.005)
    assert np.abs(np.corrcoef(many, rowvar=False) - np.eye(25)).max() < 0.1
