"""Mazes: the checker, the shortest paths, the symmetries and the training pairs."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.models.tasks import MOST_COUNTED, TASKS, PuzzleError, Tokens
from gram.models.tasks.maze import Maze
from gram.models.tasks.maze.paths import GOAL, PATH, SPACE, START, WALL, paths_of

MAZE = TASKS["maze-8x8"]
SIZES = {size: Maze(size) for size in (3, 4)}


@st.composite
def small_mazes(draw: st.DrawFn) -> tuple[Maze, Tokens]:
    """Any maze of up to four rows, one whose goal can't be reached included."""
    task = SIZES[draw(st.sampled_from([*SIZES]))]
    cells = draw(st.lists(st.sampled_from([WALL, SPACE, SPACE]), min_size=task.seq_len, max_size=task.seq_len))
    start, goal = draw(st.lists(st.integers(0, task.seq_len - 1), min_size=2, max_size=2, unique=True))
    maze = np.array(cells, dtype=np.int64)
    maze[[start, goal]] = START, GOAL
    return task, maze


def simple_paths(size: int, maze: Tokens) -> list[frozenset[int]]:
    """The cells between the start and the goal of every way that enters no cell twice, by trying all of them."""
    goal, found = int(np.argmax(maze == GOAL)), []
    ways = deque([[int(np.argmax(maze == START))]])
    while ways:
        way = ways.popleft()
        row, column = divmod(way[-1], size)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if not (0 <= r < size and 0 <= c < size) or maze[r * size + c] == WALL or r * size + c in way:
                continue
            if r * size + c == goal:
                found.append(way[1:])
            else:
                ways.append([*way, r * size + c])
    return [frozenset(way) for way in found if len(way) == min(map(len, found))]


@given(small_mazes())
def test_solutions_are_all_shortest_ways_and_nothing_else_is_valid(drawn: tuple[Maze, Tokens]) -> None:
    task, maze = drawn
    shortest = simple_paths(task.size, maze)
    solutions = task.solutions(maze)
    assert {frozenset(np.flatnonzero(answer == PATH).tolist()) for answer in solutions} == set(shortest)
    assert len(solutions) == len(shortest) == task.count_solutions(maze) == paths_of(maze).count
    assert task.is_ambiguous(maze[None])[0] == (len(shortest) > 1)
    assert all(task.check(maze, answer) for answer in solutions)
    if task.size < 4:
        for picked in range(1 << int(np.sum(maze == SPACE))):
            answer = maze.copy()
            answer[np.flatnonzero(maze == SPACE)[[bool(picked >> i & 1) for i in range(int(np.sum(maze == SPACE)))]]] = PATH
            assert task.check(maze, answer) == (frozenset(np.flatnonzero(answer == PATH).tolist()) in shortest)


@given(small_mazes(), st.integers(0, 2**32 - 1))
def test_the_nearest_solution_is_the_likeliest_of_all(drawn: tuple[Maze, Tokens], seed: int) -> None:
    task, maze = drawn
    solutions = task.solutions(maze)
    if not len(solutions):
        return
    log_p = np.log(np.random.default_rng(seed).dirichlet(np.ones(task.vocab_size), task.seq_len))
    likelihood = log_p[np.arange(task.seq_len), solutions].sum(1)
    nearest = task.nearest_solution(maze, log_p)
    assert task.check(maze, nearest)
    assert np.isclose(log_p[np.arange(task.seq_len), nearest].sum(), likelihood.max())


@given(st.integers(0, 2**32 - 1), st.data())
def test_a_change_in_any_cell_makes_an_answer_wrong(seed: int, data: st.DataObject) -> None:
    (maze,), (answer,) = MAZE.sample(np.random.default_rng(seed), 1)
    assert MAZE.check(maze, answer)
    assert np.array_equal(answer[MAZE.given(maze)], maze[MAZE.given(maze)])
    changed = answer.copy()
    cell = data.draw(st.integers(0, MAZE.seq_len - 1))
    changed[cell] = data.draw(st.sampled_from([symbol for symbol in range(5) if symbol != answer[cell]]))
    assert not MAZE.check(maze, changed)


@given(st.integers(0, 2**32 - 1))
def test_images_are_the_square_turned_and_mirrored_and_the_way_back_keeps_answers_right(seed: int) -> None:
    mazes, answers = MAZE.sample(np.random.default_rng(seed), 4)
    draws = np.random.default_rng(seed).random((4, MAZE.num_draws))
    symmetries = MAZE.symmetries(mazes, draws)
    images = symmetries.image(mazes)
    for maze, answer, image, of_answer in zip(mazes, answers, images, symmetries.image(answers), strict=True):
        square = maze.reshape(8, 8)
        turned = [np.rot90(side, turns).ravel() for side in (square, square.T) for turns in range(4)]
        assert any(np.array_equal(image, each) for each in turned)
        assert MAZE.check(image, of_answer)
        assert MAZE.check(maze, answer)
        assert MAZE.count_solutions(image) == MAZE.count_solutions(maze)
    assert np.array_equal(symmetries.preimage(images), mazes)


def test_all_eight_images_are_drawn() -> None:
    maze = MAZE.held_out[:1]
    draws = np.linspace(0, 1, 64, endpoint=False)[:, None]
    images = MAZE.symmetries(np.repeat(maze, 64, axis=0), draws).image(np.repeat(maze, 64, axis=0))
    assert len(np.unique(images, axis=0)) == 8


def test_an_open_square_is_counted_exactly_and_not_listed_whole() -> None:
    task = TASKS["maze-30x30"]
    maze = np.full(900, SPACE)
    maze[[0, 899]] = START, GOAL
    assert paths_of(maze).count == 30067266499541040  # 58 steps, 29 of them down
    assert task.count_solutions(maze) == len(task.solutions(maze)) == MOST_COUNTED
    assert task.listed(maze) is None
    log_p = np.zeros((900, 5))
    log_p[::30, PATH] = 1  # along the left edge
    assert (task.nearest_solution(maze, log_p)[30:900:30] == PATH).all()


def test_a_maze_without_a_way_is_refused_with_what_to_do() -> None:
    maze = MAZE.parse("/".join(["S......."] + ["########"] + ["........"] * 5 + [".......G"]))
    with pytest.raises(PuzzleError, match="no path leads from S to G; open a wall"):
        MAZE.solvable(maze)
    solved = MAZE.parse("/".join(["SoG....."] + ["........"] * 7))
    with pytest.raises(PuzzleError, match=r"row 1, column 2: a path is drawn here already; write '\.'"):
        MAZE.solvable(solved)


@pytest.mark.parametrize("name", ["maze-8x8", "maze-30x30"])
def test_training_mazes_have_ways_of_all_lengths_and_often_several(name: str) -> None:
    task = TASKS[name]
    mazes, answers = task.sample(np.random.default_rng(0), 200)
    assert all(map(task.check, mazes, answers))
    lengths = np.sum(answers == PATH, axis=1) + 1
    size = round(task.seq_len**0.5)
    assert lengths.min() < size < 2 * size < lengths.max()
    assert 0.3 < task.is_ambiguous(mazes).mean() < 0.9


def test_training_sees_no_held_out_maze_nor_an_image_of_one() -> None:
    held_out = MAZE.held_out
    assert len(np.unique(held_out, axis=0)) == len(held_out) == 400
    mazes, _ = MAZE.sample(np.random.default_rng(1), 2000)
    images = MAZE.symmetries(np.repeat(mazes, 8, axis=0), np.tile(np.arange(8)[:, None] / 8, (2000, 1)))
    seen = {image.tobytes() for image in images.image(np.repeat(mazes, 8, axis=0))}
    assert not seen & {maze.tobytes() for maze in held_out}


def test_bands_tell_mazes_by_their_steps_and_their_shortest_ways() -> None:
    empty = ["S.......", *["........"] * 5]
    assert MAZE.strata(MAZE.parse("/".join([*empty, "........", "......G."]))) == {"steps": "10-14", "solutions": "1000+"}
    assert MAZE.strata(MAZE.parse("/".join(["SG......"] + ["........"] * 7))) == {"steps": "0-4", "solutions": "1"}
    assert MAZE.strata(MAZE.parse("/".join(["S.......", ".G......"] + ["........"] * 6))) == {
        "steps": "0-4",
        "solutions": "2-4",
    }
