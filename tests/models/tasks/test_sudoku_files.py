"""Sudokus as programs and people write them: with comments, in sections, several in a file, and with other boxes."""

import re
from typing import Any

import numpy as np
import pytest

from gram.models.tasks import PuzzleError
from gram.models.tasks.sudoku import Sudoku

TASK = Sudoku(9, paper={})
SIX = Sudoku(6, paper={})
PUZZLE, OTHER = TASK.held_out[:2]
BOARD = TASK.text(PUZZLE)
ROWS = BOARD.split("\n")
D, E = ("".join(TASK.text(puzzle).split("\n")) for puzzle in (PUZZLE, OTHER))
S = "".join(map(str, TASK.solutions(PUZZLE)[0]))
BOXED = "\n".join(f"{r[:3]}|{r[3:6]}|{r[6:]}" + ("\n---+---+---" if i in (2, 5) else "") for i, r in enumerate(ROWS))
BAND = "+-------+-------+-------+\n"
"""What a Python generator prints around a board, in which a space is a blank."""
PRINTED = "---------------------------\n9x9 (3x3) SUDOKU PUZZLE\nDifficulty: 0.50\n---------------------------\n"
PRINTED += BAND + "".join(
    "".join(f"| {' '.join(row[i : i + 3])} " for i in (0, 3, 6)).replace(".", " ") + "|\n" + (BAND if number % 3 == 2 else "")
    for number, row in enumerate(ROWS)
)
OPEN_SUDOKU = f"""<?xml version="1.0" encoding="UTF-8"?>
<opensudoku version="2">
  <name>mine</name>
  <game created="0" state="0"
    data="{D.replace(".", "0")}" />
  <game data="{E.replace(".", "0")}"/>
</opensudoku>
"""


@pytest.mark.parametrize(
    "text",
    [
        f"# from a book\n{D}\n",
        f"% from a generator\n{BOARD}",
        f"{D} # 1.2",
        f"{D}:1:{S}",
        f"{D},{S}",
        f"0f3a77 {D} 8.9 ED=10.0/1.2",
        f":0000:x:{D}:::",
        f":0702:9:{'+'.join(re.split('(?=[1-9])', D, maxsplit=3))}:321:",
        f"[Puzzle]\n{BOARD}\n[State]\n{'123456789' + chr(10)}{ROWS[1]}\n",
        f"#AAuthor\n#DFor a friend\n#B01-01-2020\n{BOARD}\n",
        f"[Puzzle]\n{BOXED}\n",
        f"Grid 01\n{BOARD}",
        BOARD.replace(".", " "),
        "\n".join(",".join(row.replace(".", " ")) for row in ROWS),
        PRINTED,
        BAND + "".join("|" + "|".join(row).replace(".", " ") + "|\n" + BAND for row in ROWS),
        BOARD.replace(".", "-"),
        f"{S},{D}",
    ],
    ids=lambda text: text[:12],
)
def test_a_puzzle_is_found_in_what_stands_around_it(text: str) -> None:
    assert np.array_equal(TASK.read(text), PUZZLE)
    ((_, found),) = TASK.split(text.splitlines(keepends=True))
    assert np.array_equal(TASK.read(found), PUZZLE)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (f"{D}\n{E}\n", [1, 2]),
        (f"# two\n\n{D} # easy\n{E} # hard\n", [3, 4]),
        (f"Grid 01\n{BOARD}\nGrid 02\n{TASK.text(OTHER)}\n", [2, 12]),
        (f"{BOXED}\n\n{TASK.text(OTHER)}", [1, 13]),
        (f"{TASK.grid(PUZZLE)}\n{np.array(TASK.grid(OTHER))!s}\n", [1, 2]),
        (OPEN_SUDOKU, [4, 6]),
    ],
    ids=["lines", "comments", "titles", "boards", "arrays", "OpenSudoku"],
)
def test_several_puzzles_of_a_text_are_several_puzzles(text: str, numbers: list[int]) -> None:
    found = [*TASK.split(text.splitlines(keepends=True))]
    assert [number for number, _ in found] == numbers
    assert np.array_equal([TASK.read(puzzle) for _, puzzle in found], [PUZZLE, OTHER])
    if "[" not in text:
        with pytest.raises(PuzzleError, match="has 2 puzzles; send one"):
            TASK.read(text)


def test_what_is_no_puzzle_stays_in_its_place_to_be_answered_by_its_error() -> None:
    text = f"{D}\nnonsense\n{ROWS[0]}\n{ROWS[1]}\n{D}{D}\n0x0:0\n{E}\n"
    assert [number for number, _ in TASK.split(text.splitlines())] == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3x3j:a9", "another kind"),
        ("2x3:a9", "boxes of 2 rows"),
        ("3x3:" + "z" * 4000, "more than 81"),
        ("3x3:a9", "has 2 symbols"),
    ],
)
def test_a_game_id_of_another_game_is_refused(text: str, said: str) -> None:
    with pytest.raises(PuzzleError, match=said):
        TASK.read(text)


def test_a_long_run_of_blanks_in_a_game_id_has_several_letters() -> None:
    assert np.array_equal(TASK.read("3x3:" + "z" * 3 + "b" + "9"), np.eye(81, dtype=int)[80] * 9)


@pytest.mark.parametrize("added", [0, 1])
def test_a_flat_list_is_read_with_one_added_or_without(added: int) -> None:
    assert np.array_equal(TASK.read((PUZZLE + added).tolist()), PUZZLE)


def test_a_flat_list_that_can_mean_two_things_is_refused() -> None:
    with pytest.raises(PuzzleError, match="if 1 is a blank here, subtract one"):
        TASK.read(np.where(PUZZLE == 9, 1, PUZZLE + 1).tolist())


# --- boxes of 3 rows and 2 columns

UPRIGHT = ["1234..", "......", "......", "......", "......", "..4321"]


@pytest.mark.parametrize(
    "puzzle",
    [
        {"box_rows": 3, "board": UPRIGHT},
        {"box_rows": 3, "board": "".join(UPRIGHT)},
        "# box rows: 3\n" + "\n".join(UPRIGHT),
        "3x2:1_2_3_4zb4_3_2_1",
        "3x2a:1_2_3_4zb4_3_2_1",
    ],
    ids=["rows", "one text", "comment", "game ID", "game ID with a symmetry"],
)
def test_boxes_may_lie_the_other_way(puzzle: Any) -> None:
    """The model's board is transposed; people see theirs, also in the text that the server shows, which says it again."""
    view, tokens = SIX.pose(puzzle)
    assert view.grid(tokens) == [[int(symbol) if symbol != "." else 0 for symbol in row] for row in UPRIGHT]
    assert view.text(tokens) == "# box rows: 3\n" + "\n".join(UPRIGHT)
    again, same = SIX.pose({"text": view.text(tokens), "grid": view.grid(tokens)})
    assert (again.text(same), same.tolist()) == (view.text(tokens), tokens.tolist())
    board = np.array(view.grid(SIX.solutions(tokens)[0]))
    boxes = board.reshape(2, 3, 3, 2).swapaxes(1, 2).reshape(6, 6)
    for unit in (*board, *board.T, *boxes):
        assert sorted(unit) == [1, 2, 3, 4, 5, 6]


def test_a_board_without_one_of_its_rows_takes_none_of_the_next() -> None:
    text = "\n".join([*ROWS[:8], "", *TASK.text(OTHER).split("\n")])
    (broken, _), (number, other) = TASK.split(text.splitlines())
    assert (broken, number) == (1, 10)
    assert np.array_equal(TASK.read(other), OTHER)


def test_what_is_left_beside_a_small_board_is_not_passed_over() -> None:
    with pytest.raises(PuzzleError, match="has 52 symbols"):
        Sudoku(4, paper={}).read("1....2....3....4\n" + "." * 36)


def test_a_famous_puzzle_that_takes_long_to_refute_is_refuted() -> None:
    hard = ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."
    with pytest.raises(PuzzleError, match="this puzzle has no solution"):
        TASK.solvable(TASK.read(hard))


def test_a_file_says_once_how_its_boxes_lie() -> None:
    text = "# box rows: 3\n" + "".join(UPRIGHT) + "\n" + "".join(UPRIGHT[::-1])
    puzzles = [SIX.pose(found)[0].text(SIX.read(found)) for _, found in SIX.split(text.splitlines())]
    assert puzzles == ["# box rows: 3\n" + "\n".join(rows) for rows in (UPRIGHT, UPRIGHT[::-1])]


def test_a_puzzle_that_is_solvable_with_the_other_boxes_alone_is_told_so() -> None:
    with pytest.raises(PuzzleError, match=r"column 1: has two 1s; change or clear one$"):
        SIX.read(["1.....", "1.....", *["......"] * 4])
    with pytest.raises(
        PuzzleError, match=r"the box of rows 1-2, columns 1-3: has two 1s.*with boxes of 3 rows it has one"
    ) as told:
        SIX.read(["1.....", "..1...", *["......"] * 4])
    assert '{"box_rows": 3, "board": ...}' in str(told.value)
    with pytest.raises(PuzzleError, match="with boxes of 2 rows it has one"):
        SIX.read({"box_rows": 3, "board": ["1.....", "......", ".1....", *["......"] * 3]})


@pytest.mark.parametrize(("task", "rows"), [(SIX, 4), (SIX, 0), (TASK, 2), (SIX, True)])
def test_boxes_that_do_not_fit_are_refused(task: Sudoku, rows: int) -> None:
    with pytest.raises(PuzzleError, match="don't fit"):
        task.read({"box_rows": rows, "board": "." * task.seq_len})
