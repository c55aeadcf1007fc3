"""Boards as columns, facts, drawings and files. test_nqueens.py has the other spellings."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gram.models.tasks import TASKS, PuzzleError
from gram.models.tasks.nqueens import NQueens
from gram.models.tasks.nqueens.codec import QUEEN

TASK, TEN = TASKS["nqueens-8"], TASKS["nqueens-10"]
ROWS = ["........", "......Q.", "........", "........", "Q.......", "........", "........", "........"]
GIVEN = [(1, 6), (4, 0)]


def squares(puzzle: object, task: object = TASK) -> list[tuple[int, int]]:
    assert isinstance(task, NQueens)
    return [divmod(int(i), task.size) for i in np.flatnonzero(task.read(puzzle) == QUEEN)]


def refusal(puzzle: object) -> str:
    with pytest.raises(PuzzleError) as caught:
        TASK.read(puzzle)
    return str(caught.value)


def drawn(cell: str, edge: str, bar: str, empty: str = " ") -> str:
    rows = [bar + bar.join(cell.format("Q" if (r, c) in GIVEN else empty) for c in range(8)) + bar for r in range(8)]
    return "\n".join([edge, *itertools.chain.from_iterable((row, edge) for row in rows)])


# --- columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param([1, 5, 8, 6, 3, 7, 2, 4], [0, 4, 7, 5, 2, 6, 1, 3], id="all from 1"),
        pytest.param([0, 4, 7, 5, 2, 6, 1, 3], [0, 4, 7, 5, 2, 6, 1, 3], id="all from 0"),
        pytest.param([0, 8, 0, 1, 0, 0, 0, 0], [None, 7, None, 0, None, None, None, None], id="0 for none"),
        pytest.param(
            [None, 8, None, 1, None, None, None, None], [None, 7, None, 0, None, None, None, None], id="null for none"
        ),
        pytest.param([-1, 8, -1, 1, -1, -1, -1, -1], [None, 7, None, 0, None, None, None, None], id="-1 for none"),
        pytest.param([0, 0, 3, 0, 0, 0, 0, 0], [None, None, 2, None, None, None, None, None], id="several zeros"),
        pytest.param(
            [None, 0, None, 4, None, None, None, None], [None, 0, None, 4, None, None, None, None], id="0 beside null"
        ),
        pytest.param([-1, 0, -1, 4, -1, -1, -1, -1], [None, 0, None, 4, None, None, None, None], id="0 beside -1"),
        pytest.param([None] * 8, [None] * 8, id="no queen"),
        pytest.param("1 5 8 6 3 7 2 4", [0, 4, 7, 5, 2, 6, 1, 3], id="a text"),
        pytest.param("1,5,8,6,3,7,2,4\n", [0, 4, 7, 5, 2, 6, 1, 3], id="commas"),
        pytest.param("15863724", [0, 4, 7, 5, 2, 6, 1, 3], id="one word"),
        pytest.param("null 0 null 4 null null None null", [None, 0, None, 4, None, None, None, None], id="null in a text"),
        pytest.param(np.array([1, 5, 8, 6, 3, 7, 2, 4]), [0, 4, 7, 5, 2, 6, 1, 3], id="an array"),
    ],
)
def test_a_list_of_columns_has_the_queen_of_each_row(columns: object, expected: list[int | None]) -> None:
    assert squares(columns) == [(row, column) for row, column in enumerate(expected) if column is not None]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        pytest.param([1, 5, None, None, None, None, None, None], "from 0 or from 1", id="neither 0 nor 8"),
        pytest.param([1, 5, 0, 6, 3, 7, 2, 2], "from 0 or from 1", id="one 0"),
        pytest.param("1 5 -1 -1 -1 -1 -1 -1", "from 0 or from 1", id="a text"),
        pytest.param([0, None, 8, None, None, None, None, None], "can't both be a row without a queen", id="0 and null with 8"),
        pytest.param([0, 0, None, 3, None, None, None, None], "can't both be a row without a queen", id="zeros and null"),
        pytest.param([9, 1, 2, 3, 4, 5, 6, 7], "row 1: 9 is no column", id="too large"),
        pytest.param([8, 1, -2, 3, 4, 5, 6, 7], "row 3: -2 is no column", id="negative"),
        pytest.param([8, 8, 0, 0, 0, 0, 0, 0], "attacks the queen on", id="one column twice"),
        pytest.param([0, 1, 0, 0, 0, 0, 0, 0], "a board is one of", id="zeros and ones"),
        pytest.param("0 1 0 0 0 0 0 0", "has 8 squares", id="zeros and ones in a text"),
        pytest.param([1, 5, 8], "a board is one of", id="too few"),
        pytest.param([True, 5, 8, 6, 3, 7, 2, 4], "a board is one of", id="a boolean"),
    ],
)
def test_columns_that_can_be_counted_in_two_ways_or_are_none_are_refused(columns: object, said: str) -> None:
    assert said in refusal(columns)
    if "from 0 or from 1" in said:
        assert '{"queens": [[row, column], ...]}' in refusal(columns)


@given(st.sampled_from([TASK, TEN]), st.integers(0, 91), st.integers(0, 1))
def test_every_whole_board_reads_back_from_its_columns(task: NQueens, index: int, first: int) -> None:
    assert task.boards is not None
    board = task.boards[index]
    columns = [row.index(1) + first for row in task.grid(board)]
    for spelling in (columns, " ".join(map(str, columns))):
        assert np.array_equal(task.read(spelling) == QUEEN, board == QUEEN)


@pytest.mark.parametrize("one", [1, True, "Q"], ids=str)
def test_a_flat_list_has_all_squares(one: object) -> None:
    flat: list[object] = [one if divmod(i, 8) in GIVEN else 0 if one != "Q" else "." for i in range(64)]
    assert squares(flat) == GIVEN
    flat[9] = 3
    assert "row 2, column 2: 3 is not 0 or 1" in refusal(flat)


# --- facts


@pytest.mark.parametrize(
    "text",
    [
        "queen(2,7). queen(5,1).",
        "queen(2,7) queen(5,1)",
        "q(2,7),q(5,1)",
        "queen(2,7).\nqueen(5,1).\n",
        "% two queens\nqueen( 2 , 7 ) .  % the upper one\nQueens(5,1).",
    ],
)
def test_facts_count_from_1(text: str) -> None:
    assert squares(text) == GIVEN


def test_a_0_says_that_facts_count_from_0() -> None:
    assert squares("queen(1,6). queen(4,0).") == GIVEN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queen(1,2). queen(9,1).", "queen(9,1): 9 is not one of 1 to 8"),
        ("queen(0,2). queen(8,1).", "queen(8,1): 8 is not one of 0 to 7; there is a 0"),
        ("queen(1,2). king(3,3).", "'king(3,3)' is not a fact"),
        ("queen(1)", "'queen(1)' is not a fact"),
        ("queen(1,2) queen(1,2)", "row 1, column 2: this queen is given twice"),
        ("queen(1,1) queen(2,2)", "attacks the queen on"),
    ],
)
def test_wrong_facts_are_refused_with_their_place(text: str, said: str) -> None:
    assert said in refusal(text)


# --- drawings


@pytest.mark.parametrize(
    "text",
    [
        drawn(" {} ", "+---" * 8 + "+", "|"),
        drawn("{}", "+" + "-" * 15 + "+", "|", "."),
        drawn(" {} ", "├───┼───┼───┼───┼───┼───┼───┼───┤", "│"),
        "\n".join(ROWS).replace("Q", "♛").replace(".", "·"),
        "\n".join(ROWS).replace("Q", "♕"),
        "8/6Q1/8/8/Q7/8/8/8 w - - 0 1",
        "8/6q1/8/8/q7/8/8/8 b - -",
    ],
    ids=["a table", "dots", "box drawing", "black queens", "white queens", "FEN", "EPD"],
)
def test_a_drawn_board_is_read(text: str) -> None:
    assert squares(text) == GIVEN


# --- files


def test_a_file_has_boards_of_one_line_and_of_n() -> None:
    lines = ["# a", "", *ROWS, "", *ROWS, *ROWS, "% b", " g7 a4\n", "1 5 8 6 3 7 2 4", '{"queens": []}', "x"]
    block = "\n".join(ROWS)
    one_line = [(29, "g7 a4"), (30, "1 5 8 6 3 7 2 4"), (31, '{"queens": []}'), (32, "x")]
    assert [*TASK.split(lines)] == [(3, block), (12, block), (20, block), *one_line]


def test_rulers_between_rows_belong_to_no_board() -> None:
    found = [*TASK.split(drawn(" {} ", "+---" * 8 + "+", "|").splitlines() * 2)]
    assert [number for number, _ in found] == [2, 19]
    assert all(squares(text) == GIVEN for _, text in found)


def test_a_board_that_ends_early_is_a_puzzle_that_says_so() -> None:
    found = [*TASK.split([*ROWS[:7], "", "g7"])]
    assert found == [(1, "\n".join(ROWS[:7])), (9, "g7")]
    assert "has 56 squares" in refusal(found[0][1])


def test_facts_of_a_program_stand_together_and_answer_sets_one_a_line() -> None:
    lines = ["queen(2,7).", "queen(5,1).", "", "queen(1,1).", "queen(2,7) queen(5,1)", "queen(3,3)", "queen(4,4)"]
    assert [*TASK.split(lines)] == [
        (1, "queen(2,7).\nqueen(5,1)."),
        (4, "queen(1,1)."),
        (5, "queen(2,7) queen(5,1)"),
        (6, "queen(3,3)"),
        (7, "queen(4,4)"),
    ]


# --- anything at all

symbols = st.text("0123456789Qq.,;_-+|/()% \n♛│─wbnul", max_size=120)
numbers = st.lists(st.none() | st.integers(-1, 9) | st.booleans() | st.integers(), min_size=7, max_size=9)


@given(symbols | numbers | st.lists(st.sampled_from(["queen(1,2)", "q(0,8)", ".", "(", " ", "% "])).map("".join))
@example("\u00b2" * 8)
@example([10**4000] * 8)
@settings(max_examples=300)
def test_whatever_is_sent_is_a_board_or_a_puzzle_error(puzzle: object) -> None:
    try:
        tokens = TASK.read(puzzle)
    except PuzzleError:
        return
    assert np.array_equal(TASK.read(TASK.text(tokens)), tokens)


@pytest.mark.parametrize("unit", [" ", "+-", "q(", "q( ", "a1 ", "queen(1,2).", "| ", "%", "8/", "1 ", "\n", "w - "], ids=repr)
def test_the_time_is_linear_in_the_length(unit: str) -> None:
    for text in (unit * 50_000, "q" + unit * 50_000, "+" + unit * 50_000 + "x"):
        began = time.process_time()
        with pytest.raises(PuzzleError):
            TASK.read(text)
        assert time.process_time() - began < 2
