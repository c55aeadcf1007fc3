"""How mazes are written: what is read, and what the errors say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.models.tasks import TASKS, PuzzleError, readings
from gram.models.tasks.maze.paths import GOAL, START, WALL

MAZE, LARGE = TASKS["maze-8x8"], TASKS["maze-30x30"]
ROWS = ["S..#....", "##.#.##.", "...#..#.", ".###.#..", ".....#.#", ".##.....", "..#.##.#", "#...#..G"]
TEXT = "\n".join(ROWS)
TOKENS = MAZE.parse(TEXT)


def refusal(puzzle: object) -> str:
    with pytest.raises(PuzzleError) as caught:
        MAZE.read(puzzle)
    return str(caught.value)


@pytest.mark.parametrize(
    "puzzle",
    [
        TEXT,
        f"\n{TEXT}\n",
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(".", " "),
        TEXT.replace(".", " ").replace("\n", ""),
        "/".join(ROWS),
        " ".join(ROWS),
        "\n".join(" ".join(row) for row in ROWS),
        TEXT.replace("#", "\u2588").lower(),
        *(TEXT.replace("G", goal) for goal in "EFXex"),
        ROWS,
        [[*row] for row in ROWS],
        [*"".join(ROWS)],
        MAZE.grid(TOKENS),
        TOKENS.tolist(),
        (TOKENS + 1).tolist(),
        (TOKENS.reshape(8, 8) + 1).tolist(),
        str(TOKENS.reshape(8, 8)),
        TOKENS.astype(np.uint8) + 1,
    ],
    ids=lambda puzzle: repr(puzzle)[:30],
)
def test_the_same_maze_is_read_in_every_spelling(puzzle: object) -> None:
    assert np.array_equal(MAZE.read(puzzle), TOKENS)


@given(st.integers(0, 2**32 - 1), st.sampled_from([MAZE, LARGE]))
def test_mazes_and_answers_read_back(seed: int, task: object) -> None:
    assert task in (MAZE, LARGE)
    for (tokens,) in (MAZE if task is MAZE else LARGE).sample(np.random.default_rng(seed), 1):
        reader = MAZE if task is MAZE else LARGE
        text = reader.text(tokens)
        for spelling in (text, text.replace("\n", "").replace(".", " "), reader.grid(tokens), (tokens + 1).tolist()):
            assert np.array_equal(reader.read(spelling), tokens)


@pytest.mark.parametrize(
    ("puzzle", "said"),
    [
        (
            TEXT.replace("G", "Q"),
            "row 8, column 8: 'Q' is none of '#' a wall, '.' an open cell, 'S' the start and 'G' the goal",
        ),
        (TEXT.replace("S", "."), "the maze has no start; write one 'S'"),
        (TEXT.replace("G", "."), "the maze has no goal; write one 'G'"),
        (TEXT.replace("#", "X"), "the maze has 23 goals, as in row 1, column 4 and row 2, column 1; write one 'G'"),
        (TEXT.replace("...#..#.", "...#..#"), "row 3: has 7 symbols; write 8"),
        (TEXT.replace(".", " ").replace("#  G", "#"), "row 8: has 5 symbols; write 8 (at the end of a line '.' is safer than"),
        ("\n".join(ROWS[:7]), "the maze has 7 rows; write 8"),
        ("".join(ROWS)[:-1], "the maze has 63 symbols in one line; write 8 rows of 8, 64 in all"),
        (
            [MAZE.grid(TOKENS)[0], *[[5] + [1] * 7] * 7],
            "row 2, column 1: a number here is 0 a wall",
        ),
        ([[True] * 8] * 8, "row 1, column 1: a bool is none of"),
        ([0] * 61 + [1, 2, 3], None),
        ([1] * 61 + [2, 3, 4], "in these numbers 0 or 1 can be the wall; if it is 1, subtract one from each"),
        (7, "a maze is one of: 8 rows of 8 symbols in one text"),
        ({}, "a maze is one of"),
    ],
)
def test_errors_say_what_is_wrong_and_where(puzzle: object, said: str | None) -> None:
    if said is None:
        assert MAZE.read(puzzle)[-3:].tolist() == [1, START, GOAL]
    else:
        assert said in refusal(puzzle)


@given(st.text(st.sampled_from("#. SGoXE\n/0"), max_size=90))
def test_any_text_is_a_maze_or_refused(text: str) -> None:
    try:
        tokens = MAZE.read(text)
    except PuzzleError:
        return
    assert np.array_equal(MAZE.read(MAZE.text(tokens)), tokens)


def test_only_the_task_of_its_size_reads_a_maze() -> None:
    for task in (MAZE, LARGE):
        for example in task.examples:
            assert [*readings(example, TASKS.values())] == [task.name]


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (f"{TEXT}\n\n{TEXT}\n", [1, 10]),
        (f"{TEXT}\n{TEXT}", [1, 9]),
        (f"% two mazes\n{TEXT}\n\n\n{TEXT.replace('.', ' ')}\n", [2, 12]),
        ("".join(ROWS) + "\n" + "/".join(ROWS) + "\n", [1, 2]),
    ],
)
def test_files_have_mazes_of_rows_or_one_a_line(text: str, starts: list[int]) -> None:
    found = [*MAZE.split(text.splitlines(keepends=True))]
    assert [number for number, _ in found] == starts
    assert all(np.array_equal(MAZE.read(maze), TOKENS) for _, maze in found)


def test_what_is_no_maze_in_a_file_is_its_own_line() -> None:
    found = [*MAZE.split(f"oops\n{ROWS[0]}\n{ROWS[1]}\n\n{TEXT}\n".splitlines())]
    assert [number for number, _ in found] == [1, 2, 5]
    assert WALL == 0
