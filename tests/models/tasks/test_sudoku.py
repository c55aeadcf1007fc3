import itertools
import math
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gram.models.tasks import MOST_COUNTED, PuzzleError, Tokens, cell_entropy
from gram.models.tasks.sudoku import Sudoku
from gram.models.tasks.sudoku.make_held_out import main, make_test_sets
from gram.models.tasks.sudoku.pairs import add_clues
from gram.models.tasks.sudoku.task import DATA

TASKS = {size: Sudoku(size, paper={}) for size in (4, 6, 9)}
for smaller in TASKS.values():
    smaller.pool_size = 2000
    smaller.climbed_size = 40

DRAWN = """
5 3 . | . 7 . | . . .
6 . . | 1 9 5 | . . .
. 9 8 | . . . | . 6 .
------+-------+------
8 . . | . 6 . | . . 3
4 . . | 8 . 3 | . . 1
7 . . | . 2 . | . . 6
------+-------+------
. 6 . | . . . | 2 8 .
. . . | 4 1 9 | . . 5
. . . | . 8 . | . 7 9
"""
LINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
ROWS = [LINE[i : i + 9] for i in range(0, 81, 9)]


def refusal(puzzle: object, size: int = 9) -> PuzzleError:
    with pytest.raises(PuzzleError) as caught:
        TASKS[size].parse(puzzle)
    return caught.value


def orbit(puzzle: Tokens) -> set[bytes]:
    """All symmetric images of a 4x4 puzzle."""
    orders = [
        [*band, *other] for a, b in (((0, 1), (2, 3)), ((2, 3), (0, 1))) for band in (a, a[::-1]) for other in (b, b[::-1])
    ]
    found = set()
    for rows, columns in itertools.product(orders, orders):
        grid = puzzle.reshape(4, 4)[rows][:, columns]
        for side in (grid, grid.T):
            for names in itertools.permutations(range(1, 5)):
                found.add(np.array([0, *names], dtype=np.uint8)[side].tobytes())
    return found


def as_set(puzzles: Tokens) -> set[bytes]:
    return {puzzle.astype(np.uint8).tobytes() for puzzle in puzzles}


def clue_counts(puzzles: Tokens) -> Tokens:
    return np.asarray(np.sum(puzzles != 0, axis=-1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10) | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=30,
)
numbers = st.integers(-1, 7) | st.booleans() | st.none() | st.floats() | st.sampled_from(["1", ".", "-", "10", ""])
almost_puzzles = st.one_of(
    st.text("123456.0_*-+|/ \n", max_size=60),
    st.text("1234.", min_size=15, max_size=17),
    st.text("123456..........", min_size=36, max_size=36),
    st.lists(st.text("123456...-| ", min_size=5, max_size=7), min_size=5, max_size=7),
    st.lists(st.lists(st.integers(0, 6) | numbers, min_size=6, max_size=6), min_size=6, max_size=6),
)


# --- reading and writing


@pytest.mark.parametrize(("size", "boxes"), [(4, "2x2"), (6, "2x3"), (9, "3x3")])
def test_three_sizes_say_what_they_are(size: int, boxes: str) -> None:
    task = TASKS[size]
    assert (task.name, task.seq_len, task.vocab_size) == (f"sudoku-{size}x{size}", size * size, size + 1)
    assert f"{size}x{size}" in task.title
    assert f"{boxes} box" in task.title


@pytest.mark.parametrize("size", TASKS)
def test_every_accepted_spelling_of_the_example_is_one_puzzle_with_one_solution(size: int) -> None:
    task = TASKS[size]
    assert len(task.examples) == len(task.formats) >= 3
    first, *others = (task.read(spelling) for spelling in task.examples)
    assert all(np.array_equal(first, other) for other in others)
    assert len(task.solutions(first)) == 1
    assert task.is_held_out(first), "so that a model shown with it can't know it"


@pytest.mark.parametrize(
    "spelling",
    [
        LINE,
        LINE.replace(".", "0"),
        LINE.replace(".", "_"),
        LINE.replace(".", "*"),
        LINE.replace(".", "x"),
        LINE.replace(".", "X"),
        LINE.replace(".", "?"),
        LINE.replace(".", "-"),
        LINE.replace(".", " ") + "\n",
        " ".join(LINE),
        ", ".join(LINE),
        ",".join(LINE).replace(".", ""),
        "\n".join(ROWS).replace(".", " "),
        f"{LINE} # 1.2",
        f"# an easy one\n{LINE}\n",
        "# an easy one\n" + "\n".join(ROWS),
        f"{LINE}:1:{SOLVED}",
        f"{LINE},{SOLVED}",
        f"  3 {LINE}  {SOLVED} 0.5",
        f":0000:x:{LINE}:::",
        f"0a1b2c3d,{LINE.replace('.', '0')},7.1",
        "\n".join(",".join(row).replace(".", "") for row in ROWS),
        "\n".join("; ".join(row).replace(".", " ") for row in ROWS),
        "/".join(ROWS),
        "|".join(ROWS),
        "\n".join(ROWS),
        "\r\n\r\n".join(ROWS) + "\r\n",
        "\n".join([LINE[:40], LINE[40:]]),
        DRAWN,
        DRAWN.replace("-", "="),
        DRAWN.replace("+", "*"),
        DRAWN.replace("+", "."),
        f"*---*---*---*\n{DRAWN}\n'-----------'",
        DRAWN.replace("-", "═").replace("|", "║").replace("+", "╬"),
        DRAWN.replace("-", "─").replace("|", "│").replace("+", "┼"),
        "+---+---+---+\n" + "\n".join(f"|{row}|" for row in ROWS) + "\n+---+---+---+",
        DRAWN.strip().split("\n"),
        [[int(symbol) if symbol != "." else None for symbol in row] for row in ROWS],
        [[int(symbol) if symbol != "." else 0 for symbol in row] for row in ROWS],
        [[int(symbol) if symbol != "." else -1 for symbol in row] for row in ROWS],
        [list(row) for row in ROWS],
    ],
)
def test_symbols_rulers_and_separators_are_free(spelling: object) -> None:
    tokens = TASKS[9].parse(spelling)
    assert tokens.dtype == np.int64
    assert TASKS[9].text(tokens) == "\n".join(ROWS)


@pytest.mark.parametrize("size", TASKS)
def test_the_empty_board_is_a_puzzle(size: int) -> None:
    for spelling in ("." * size**2, ["0" * size] * size, [[0] * size] * size, [[None] * size] * size):
        assert np.array_equal(TASKS[size].parse(spelling), TASKS[size].blank)


@pytest.mark.parametrize("size", TASKS)
def test_puzzles_and_answers_read_back_from_what_is_written(size: int) -> None:
    task = TASKS[size]
    for tokens in [*task.held_out[:50], *(task.solutions(puzzle)[0] for puzzle in task.held_out[:5])]:
        for spelling in (task.text(tokens), task.text(tokens).split("\n"), task.grid(tokens)):
            assert np.array_equal(task.parse(spelling), tokens)
        assert len(task.grid(tokens)) == size


@given(json_values | almost_puzzles | st.text())
@example([[[[[[]]]]]] * 6)
@example([[float("nan")] * 6] * 6)
@example([[10**5000] * 6] * 6)
@example([[0, 0, 0, 0, 0, "1" * 10**5]] * 6)
@example("²" * 36)
@example("-" * 10**5 + "x")
@settings(max_examples=100)
def test_whatever_is_sent_is_a_puzzle_or_a_puzzle_error(puzzle: object) -> None:
    for size in (4, 6):
        try:
            tokens = TASKS[size].parse(puzzle)
        except PuzzleError:
            continue
        assert tokens.shape == (size * size,)
        assert tokens.dtype == np.int64
        assert set(tokens.tolist()) <= set(range(size + 1))


@given(st.lists(st.integers(0, 4), min_size=16, max_size=16))
def test_clues_are_accepted_exactly_when_no_unit_repeats_one(digits: list[int]) -> None:
    grid = np.array(digits).reshape(4, 4)
    boxes = [grid[r : r + 2, c : c + 2].reshape(-1) for r in (0, 2) for c in (0, 2)]
    repeats = any(len(clues) > len(set(clues)) for unit in (*grid, *grid.T, *boxes) for clues in [unit[unit > 0].tolist()])
    if repeats:
        assert "change or clear one" in str(refusal(grid.tolist(), 4))
    else:
        assert TASKS[4].parse(grid.tolist()).tolist() == digits


# --- refusals


@pytest.mark.parametrize(
    ("puzzle", "place", "said"),
    [
        pytest.param("." * 80, None, ["80 symbols", "9 rows of 9", "81 in all"], id="a symbol too few"),
        pytest.param("." * 82, None, ["82 symbols", "81 in all"], id="a symbol too many"),
        pytest.param("", None, ["0 symbols", "81 in all"], id="nothing"),
        pytest.param(
            "\n".join(["." * 9] * 4 + ["." * 8] + ["." * 9] * 4), "row 5", ["8 symbols", "write 9"], id="a short line"
        ),
        pytest.param(
            [[None, 0, 1, 2, 3, 4, 5, 6, 7], *[[None] * 9] * 8], None, ["0 and null", "add one"], id="digits from 0 to 8"
        ),
        pytest.param(["." * 9] * 8, None, ["8 rows", "write 9"], id="a row too few"),
        pytest.param(["." * 9] * 2 + ["." * 10] + ["." * 9] * 6, "row 3", ["10 symbols", "write 9"], id="a long row"),
        pytest.param([[0] * 9] * 4 + [[0] * 8] + [[0] * 9] * 4, "row 5", ["8 symbols", "write 9"], id="a short list"),
        pytest.param("." * 11 + "z" + "." * 69, "row 2, column 3", ["'z'", "1 to 9", "'.'"], id="an unknown symbol"),
        pytest.param("53--7----\n" + "." * 72, "row 1, column 3", ["'-'", "rulers", "write '.'"], id="a dash for a blank"),
        pytest.param(" ".join("." * 41), None, ["41 symbols", "81 in all"], id="41 symbols and 40 spaces"),
        pytest.param(["." * 9] * 8 + ["...²....."], "row 9, column 4", ["'²'", "1 to 9"], id="a digit of another kind"),
        pytest.param([[0] * 9] * 8 + [[0, 10] + [0] * 7], "row 9, column 2", ["1 to 9", "0 for a blank"], id="ten"),
        pytest.param([[0] * 9] * 8 + [[-2] + [0] * 8], "row 9, column 1", ["1 to 9"], id="a negative number"),
        pytest.param([[0] * 9] * 8 + [[-1] + [0] * 8], None, ["0 and -1", "one blank"], id="two kinds of blanks"),
        pytest.param([[0] * 9] * 8 + [[2.0] + [0] * 8], "row 9, column 1", ["1 to 9"], id="a fraction"),
        pytest.param([[True] + [0] * 8] + [[0] * 9] * 8, "row 1, column 1", ["True", "not a number", "1 to 9"], id="true"),
        pytest.param([[0] * 9] * 8 + [[0] * 8 + [False]], "row 9, column 9", ["False", "0 for a blank"], id="false"),
        pytest.param([["12"] + [0] * 8] + [[0] * 9] * 8, "row 1, column 1", ["'12'", "1 to 9"], id="two symbols in one"),
        pytest.param([[[]] + [0] * 8] + [[0] * 9] * 8, "row 1, column 1", ["a list", "1 to 9"], id="a list in a row"),
        pytest.param("." * 18 + "7.......7" + "." * 54, "row 3", ["two 7s", "change or clear one"], id="one row"),
        pytest.param("777" + "." * 78, "row 1", ["several 7s", "change or clear one"], id="three in a row"),
        pytest.param("...2" + "." * 26 + "2" + "." * 50, "column 4", ["two 2s", "change or clear one"], id="one column"),
        pytest.param(
            "." * 30 + "5" + "." * 10 + "5" + "." * 39,
            "the box of rows 4-6, columns 4-6",
            ["two 5s", "change or clear one"],
            id="one box",
        ),
    ],
)
def test_a_bad_puzzle_is_refused_with_the_place_and_the_fix(puzzle: object, place: str | None, said: list[str]) -> None:
    error = refusal(puzzle)
    assert error.place == place
    assert str(error).startswith(f"{place}: " if place else "")
    assert all(part in str(error) for part in said), str(error)


@pytest.mark.parametrize(
    ("size", "puzzle", "place", "said"),
    [
        (4, "...." * 3 + "..5.", "row 4, column 3", ["5 is too large", "1 to 4"]),
        (6, "9" + "." * 35, "row 1, column 1", ["9 is too large", "1 to 6"]),
        (6, [[7] + [0] * 5] + [[0] * 6] * 5, "row 1, column 1", ["1 to 6"]),
        (6, "." * 15 + "4" + "." * 7 + "4" + "." * 12, "the box of rows 3-4, columns 4-6", ["two 4s"]),
        (6, "." * 81, None, ["81 symbols", "6 rows of 6"]),
        (4, "1..." + "." * 8 + "1...", "column 1", ["two 1s"]),
    ],
)
def test_smaller_sizes_refuse_what_is_not_theirs(size: int, puzzle: object, place: str | None, said: list[str]) -> None:
    error = refusal(puzzle, size)
    assert error.place == place
    assert all(part in str(error) for part in said)


@pytest.mark.parametrize(
    "puzzle",
    [None, True, 8, 0.5, [], {}, [1, 2], ["a", 1], [[0] * 9, "." * 9], {"rows": []}, [0] * 80],
    ids=lambda puzzle: str(puzzle)[:30],
)
def test_what_is_no_spelling_at_all_is_answered_with_the_spellings(puzzle: object) -> None:
    assert all(spelling in str(refusal(puzzle)) for spelling in TASKS[9].formats)


# --- checking and solving


@pytest.mark.parametrize("size", TASKS)
def test_check_accepts_the_solution_and_nothing_a_cell_away(size: int) -> None:
    task = TASKS[size]
    for puzzle in task.held_out[:10]:
        (answer,) = task.solutions(puzzle)
        assert task.check(puzzle, answer) is True
        for cell in range(size * size):
            for digit in range(size + 1):
                changed = answer.copy()
                changed[cell] = digit
                assert task.check(puzzle, changed) is bool(digit == answer[cell])


def test_check_accepts_exactly_the_valid_boards_that_keep_the_clues() -> None:
    task = TASKS[4]
    boards = task.solutions(TASKS[4].blank)
    for puzzle in TASKS[4].held_out[:20]:
        kept = [board for board in boards if np.all(board[puzzle > 0] == puzzle[puzzle > 0])]
        assert [board.tolist() for board in boards if task.check(puzzle, board)] == [board.tolist() for board in kept]
        assert len(kept) == 1


@pytest.mark.parametrize(
    "grid",
    [
        [[1, 2, 3, 4]] * 4,
        [[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2], [4, 1, 2, 3]],
        [[1, 2, 1, 2], [3, 4, 3, 4], [2, 1, 2, 1], [4, 3, 4, 3]],
        [[5, 2, 3, 4], [3, 4, 5, 2], [2, 3, 4, 5], [4, 5, 2, 3]],
    ],
    ids=["columns repeat", "boxes repeat", "rows repeat", "other digits"],
)
def test_check_looks_at_rows_columns_boxes_and_digits(grid: list[list[int]]) -> None:
    assert not TASKS[4].check(TASKS[4].blank, np.array(grid).reshape(-1))


def test_solutions_are_all_or_the_first_thousand() -> None:
    assert len(TASKS[4].solutions(TASKS[4].blank)) == 288
    for size in (6, 9):
        found = TASKS[size].solutions(TASKS[size].blank)
        assert len(as_set(found)) == MOST_COUNTED == 1000
        assert all(TASKS[size].check(TASKS[size].blank, board) for board in found[::50])
    assert TASKS[4].solutions(TASKS[4].parse("123....4........")).shape == (0, 16)


def test_the_boards_of_4x4_are_listed_and_those_of_larger_ones_are_too_many() -> None:
    assert TASKS[4].boards is not None
    assert len(as_set(TASKS[4].boards)) == len(TASKS[4].boards) == 288
    assert all(TASKS[4].check(TASKS[4].blank, board) for board in TASKS[4].boards)
    assert TASKS[6].boards is TASKS[9].boards is None


def test_the_entropy_of_full_boards_is_that_of_their_digits() -> None:
    assert TASKS[4].boards is not None
    assert TASKS[4].board_entropy == pytest.approx(cell_entropy(TASKS[4].boards))
    for size, task in TASKS.items():
        drawn = cell_entropy(task.random_boards(np.random.default_rng(0), 20_000))
        assert drawn == pytest.approx(task.board_entropy, rel=1e-3) == pytest.approx(math.log(size))


# --- training pairs


@pytest.mark.parametrize("size", TASKS)
def test_pairs_of_the_pool_are_puzzles_with_their_only_solution(size: int) -> None:
    puzzles, answers = TASKS[size].pairs.draw(np.random.default_rng(0), 300)
    assert puzzles.shape == answers.shape == (300, size * size)
    assert puzzles.dtype == answers.dtype == np.int64
    for puzzle, answer in zip(puzzles, answers, strict=True):
        assert TASKS[size].check(puzzle, answer)
        assert np.array_equal(TASKS[size].solutions(puzzle), [answer])


@pytest.mark.parametrize("size", TASKS)
@given(seed=st.integers(0, 2**62))
@settings(max_examples=20)
def test_sampled_puzzles_and_their_images_are_never_held_out(size: int, seed: int) -> None:
    task, rng = TASKS[size], np.random.default_rng(seed)
    puzzles, _ = task.sample(rng, 64)
    assert not task.is_held_out(puzzles).any()
    assert not task.is_held_out(task.images(rng, puzzles[:, None])[:, 0]).any()
    held_out = task.images(rng, task.held_out[:64, None])[:, 0]
    assert task.is_held_out(held_out).all()


def test_no_4x4_puzzle_drawn_is_any_of_the_images_of_a_held_out_one() -> None:
    task = TASKS[4]
    hashes = task.solver.class_hashes(task.held_out)
    images = [orbit(task.held_out[hashes == one][0]) for one in np.unique(hashes)]
    drawn = as_set(task.sample(np.random.default_rng(1), 20_000)[0])
    assert len(drawn) > 15_000
    assert all(not drawn & orbit_of_one for orbit_of_one in images)
    assert as_set(task.held_out) <= set.union(*images)


@pytest.mark.parametrize("size", TASKS)
def test_sampling_repeats_with_its_generator(size: int) -> None:
    first, again, other = (TASKS[size].sample(np.random.default_rng(seed), 50) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("size", "fewest", "most"), [(4, 4, 10), (6, 8, 20), (9, 20, 36)])
def test_the_pool_has_puzzles_from_minimal_to_many_clues(size: int, fewest: int, most: int) -> None:
    puzzles, _ = TASKS[size].pairs.draw(np.random.default_rng(0), 3000)
    counts = np.bincount(clue_counts(puzzles))
    assert fewest <= np.flatnonzero(counts)[0] <= fewest + 3
    assert len(counts) == most + 1
    assert counts[-5:].min() > 30


def test_half_of_the_9x9_pool_are_images_of_hard_puzzles_and_a_third_of_these_of_climbed_ones() -> None:
    task = TASKS[9]
    pool = task.pairs
    hard, climbed = pool.minimal.puzzles[pool.minimal.guesses >= 20], pool.climbed.puzzles
    puzzles, _ = pool.draw(np.random.default_rng(0), 2000)
    hard_drawn, climbed_drawn = (
        np.isin(task.solver.class_hashes(puzzles), task.solver.class_hashes(of)) for of in (hard, climbed)
    )
    assert climbed_drawn.mean() == pytest.approx(1 / 6, abs=0.03)
    assert hard_drawn.mean() == pytest.approx(1 / 3 + 0.03 / 2, abs=0.05)
    guesses = np.array([task.solver.guesses(puzzle) for puzzle in puzzles])
    assert guesses[climbed_drawn].mean() > 3 * guesses[hard_drawn].mean()
    assert guesses[hard_drawn].mean() > 3 * guesses[~hard_drawn & ~climbed_drawn].mean()


def test_full_boards_are_drawn_uniformly() -> None:
    boards, counts = np.unique(Sudoku(4, paper={}).random_boards(np.random.default_rng(0), 10_000), axis=0, return_counts=True)
    assert len(boards) == 288
    expected = 10_000 / 288
    assert np.sum((counts - expected) ** 2 / expected) == pytest.approx(287, abs=4 * (2 * 287) ** 0.5)


@pytest.mark.parametrize("size", [6, 9])
def test_full_boards_of_other_sizes_are_valid(size: int) -> None:
    task = TASKS[size]
    boards = task.random_boards(np.random.default_rng(0), 200)
    assert len(as_set(boards)) == 200
    assert all(task.check(task.blank, board) for board in boards)


@pytest.mark.parametrize("size", [6, 9])
@given(seed=st.integers(0, 2**32), clues=st.integers(0, 36), certain=st.integers(0, 81))
@settings(max_examples=20)
def test_the_nearest_solution_keeps_the_clues_and_what_is_certain(size: int, seed: int, clues: int, certain: int) -> None:
    task, rng = TASKS[size], np.random.default_rng(seed)
    board = task.solver.random_boards(seed, 1)[0]
    puzzle = np.where(rng.permutation(task.seq_len) < clues, board, 0)
    log_p = np.log(rng.dirichlet(np.ones(task.vocab_size), size=task.seq_len))
    cells = rng.permutation(task.seq_len)[:certain]
    log_p[cells, board[cells]] = 0.0
    nearest = task.nearest_solution(puzzle, log_p)
    assert task.check(puzzle, nearest)
    assert np.array_equal(nearest[cells], board[cells])


@given(seed=st.integers(0, 2**32), clues=st.integers(0, 16))
@settings(max_examples=20)
def test_the_nearest_solution_of_a_4x4_puzzle_is_the_likeliest(seed: int, clues: int) -> None:
    task, rng = TASKS[4], np.random.default_rng(seed)
    puzzle = np.where(rng.permutation(16) < clues, task.random_boards(rng, 1)[0], 0)
    log_p = np.log(rng.dirichlet(np.ones(task.vocab_size), size=16))
    likelihoods = {board.tobytes(): sum(log_p[i, board[i]] for i in range(16)) for board in task.solutions(puzzle)}
    nearest = task.nearest_solution(puzzle, log_p)
    assert likelihoods[nearest.tobytes()] == pytest.approx(max(likelihoods.values()))


@pytest.mark.parametrize("size", TASKS)
def test_images_take_a_puzzle_and_its_solution_along(size: int) -> None:
    task, rng = TASKS[size], np.random.default_rng(0)
    puzzles = task.held_out[:100]
    answers = np.concatenate([task.solutions(puzzle) for puzzle in puzzles])
    images = task.images(rng, np.stack([puzzles, answers], axis=1))
    assert all(task.check(*pair) for pair in images)
    assert np.array_equal(clue_counts(images[:, 0]), clue_counts(puzzles))
    assert np.mean(np.any(images[:, 0] != puzzles, axis=1)) > 0.9


def test_images_of_a_4x4_puzzle_are_its_whole_orbit() -> None:
    puzzle = TASKS[4].held_out[0]
    images = TASKS[4].images(np.random.default_rng(0), np.tile(puzzle, (40_000, 1, 1)))[:, 0]
    assert as_set(images) == orbit(puzzle)


def test_clues_are_added_up_to_the_number_wanted() -> None:
    task, rng = TASKS[6], np.random.default_rng(0)
    puzzles = task.held_out[:30]
    boards = np.concatenate([task.solutions(puzzle) for puzzle in puzzles])
    wanted = np.arange(30) % 20 + 14
    more = add_clues(rng, puzzles, boards, wanted)
    assert np.array_equal(clue_counts(more), wanted)
    assert np.all((puzzles == 0) | (more == puzzles))
    assert np.all((more == 0) | (more == boards))
    assert np.array_equal(add_clues(rng, puzzles, boards, clue_counts(puzzles)), puzzles)


# --- the split and the bundled sets


def all_clues(size: int) -> str:
    """The name of the set of puzzles of every number of clues."""
    return f"0-{size * size} clues"


def test_5_of_the_36_classes_of_minimal_4x4_puzzles_are_held_out() -> None:
    task = TASKS[4]
    puzzles = task.pairs.minimal.puzzles
    assert np.bincount(clue_counts(puzzles)).tolist() == [0, 0, 0, 0, 25728, 58368, 1536]
    assert len(as_set(puzzles)) == 85632
    assert len(np.unique(task.solver.class_hashes(puzzles))) == 36
    held_out = puzzles[task.is_held_out(puzzles)]
    assert len(np.unique(task.solver.class_hashes(held_out))) == 5
    assert np.bincount(clue_counts(held_out)).tolist()[4:] == [7680, 6144]


@pytest.mark.parametrize("size", [6, 9])
def test_about_an_eighth_is_held_out(size: int) -> None:
    assert TASKS[size].is_held_out(TASKS[size].pairs.minimal.puzzles).mean() == pytest.approx(1 / 8, abs=0.025)


@pytest.mark.parametrize("size", TASKS)
def test_the_bundled_sets_are_held_out_puzzles_which_have_one_solution_but_in_the_set_of_all_clues(size: int) -> None:
    task = TASKS[size]
    sets = task.test_sets
    assert np.array_equal(next(iter(sets.values())), task.held_out)
    for name, puzzles in sets.items():
        split = (clue_counts(puzzles) >= 4) & (clue_counts(puzzles) < size * size)  # training has no full board
        assert task.is_held_out(puzzles[split]).all()
        assert all(np.array_equal(task.parse(task.text(puzzle)), puzzle) for puzzle in puzzles[:20])
        if name != all_clues(size):
            assert len(as_set(puzzles)) == len(puzzles)
            assert not task.is_ambiguous(puzzles).any()


@pytest.mark.parametrize(("size", "each"), [(4, 20), (6, 20), (9, 8)])
def test_a_set_has_puzzles_of_every_number_of_clues_with_solutions_from_one_to_more_than_are_counted(
    size: int, each: int
) -> None:
    puzzles = TASKS[size].test_sets[all_clues(size)]
    counts = np.bincount(clue_counts(puzzles), minlength=size * size + 1)
    assert set(np.delete(counts, 15 if size == 4 else []).tolist()) == {each}
    assert size > 4 or counts[15] == 0, "no class of 4x4 boards with one empty cell is held out"
    solutions = [TASKS[size].count_solutions(puzzle) or 0 for puzzle in puzzles]
    assert (min(solutions), max(solutions)) == (1, MOST_COUNTED if size > 4 else 288)


@pytest.mark.parametrize("size", TASKS)
def test_training_sees_no_symmetric_image_of_a_test_puzzle_with_four_clues_or_more(size: int) -> None:
    task = TASKS[size]
    puzzles, answers = task.sample(np.random.default_rng(0), 3000)
    assert all(task.check(*pair) for pair in zip(puzzles, answers, strict=True))
    tested = np.concatenate([*task.test_sets.values()])
    tested = tested[(clue_counts(tested) >= 4) & (clue_counts(tested) < size * size)]
    assert not set(task.solver.class_hashes(tested).tolist()) & set(task.solver.class_hashes(puzzles).tolist())


@pytest.mark.parametrize("size", TASKS)
def test_training_puzzles_have_any_number_of_clues_but_all(size: int) -> None:
    task = TASKS[size]
    puzzles, _ = task.sample(np.random.default_rng(0), 3000)
    counts = np.bincount(clue_counts(puzzles), minlength=size * size + 1)
    assert np.all(counts[: size * size - 3] > 0)
    assert counts[size * size] == 0
    assert 0.15 < task.is_ambiguous(puzzles).mean() < 0.5


def test_the_9x9_sets_are_spread_over_clues_and_hard() -> None:
    sets = TASKS[9].test_sets
    counts = {"22-36 clues": 1000, "0-81 clues": 656, "hard": 500, "extreme": 200}
    assert {name: len(puzzles) for name, puzzles in sets.items()} == counts
    assert set(np.bincount(clue_counts(sets["22-36 clues"]))[22:].tolist()) == {66, 67}
    assert min(TASKS[9].solver.guesses(puzzle) for puzzle in sets["hard"]) >= 20


def test_the_extreme_set_is_hard_in_any_image_and_has_one_puzzle_of_a_class() -> None:
    task = TASKS[9]
    puzzles, orders = task.test_sets["extreme"], task.cell_orders(seed=2, count=64)
    guesses = [task.solver.mean_guesses(puzzle, orders) for puzzle in puzzles]
    assert min(guesses) > 60
    assert np.mean(guesses) > 150
    assert len(np.unique(task.solver.class_hashes(puzzles))) == len(puzzles)
    assert max(task.solver.mean_guesses(puzzle, orders) for puzzle in task.test_sets["hard"][:100]) < 100


def test_the_4x4_set_has_equally_many_puzzles_of_each_held_out_class() -> None:
    _, counts = np.unique(TASKS[4].solver.class_hashes(TASKS[4].held_out), return_counts=True)
    assert counts.tolist() == [200] * 5
    assert {name: len(puzzles) for name, puzzles in TASKS[6].test_sets.items()} == {"minimal": 1000, "0-36 clues": 740}


@pytest.mark.parametrize(("size", "count"), [(4, 1000), (6, 100), (9, 8)])
def test_the_bundled_sets_are_what_the_command_makes(size: int, count: int) -> None:
    task = TASKS[size]
    made = make_test_sets(task)
    assert {name: total for name, (total, _) in made.items()} == {name: len(rows) for name, rows in task.test_sets.items()}
    for name, (total, series) in made.items():
        first = 2 if name == "extreme" else min(total, count)  # a climb takes seconds
        assert np.array_equal(list(itertools.islice(series, first)), task.test_sets[name][:first])


def test_the_command_writes_the_bundled_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_held_out", "--sizes", "4", "6", "--folder", str(tmp_path / "data")])
    main()
    for name in ("sudoku-4x4.txt", "sudoku-6x6.txt"):
        assert (tmp_path / "data" / name).read_text() == (DATA / name).read_text()
    assert set((DATA / "sudoku-9x9.txt").read_text()) <= set(string.printable)


# --- puzzles without a solution, and with many


# No row, column or box has a digit twice in them. In the first, no digit is left for row 1, column 3.
def test_a_puzzle_without_a_solution_is_refused_with_the_clue_that_may_be_wrong() -> None:
    with pytest.raises(PuzzleError, match=r"^this puzzle has no solution; without the 1 in row 1, column 1, for example, it"):
        TASKS[4].solvable(TASKS[4].parse("12../..3./..4./...."))
    task = TASKS[9]
    puzzle = task.parse(LINE)
    (board,) = task.solutions(puzzle)
    cell = int(np.flatnonzero(puzzle == 0)[0])
    for digit in set(range(1, 10)) - {int(board[cell])}:
        wrong = puzzle.copy()
        wrong[cell] = digit
        if all(len(set(line)) == len(line) for line in (wrong[unit][wrong[unit] > 0].tolist() for unit in task.codec.units)):
            with pytest.raises(PuzzleError, match=r"^this puzzle has no solution; without the"):
                task.solvable(wrong)


@pytest.mark.parametrize("size", TASKS)
@given(seed=st.integers(0, 2**32), clues=st.integers(0, 81))
@settings(max_examples=30)
def test_a_puzzle_with_a_solution_is_never_refused(size: int, seed: int, clues: int) -> None:
    task, rng = TASKS[size], np.random.default_rng(seed)
    board = task.random_boards(rng, 1)[0]
    puzzle = np.where(rng.permutation(task.seq_len) < clues, board, 0)
    assert task.solvable(puzzle) == len(task.solutions(puzzle)) >= 1


def test_counting_ends_after_so_many_guesses() -> None:
    task = TASKS[9]
    assert task.solver.count(task.blank, 1000, 100) is None
    assert task.solver.count(task.blank, 1, 10_000) == 1
    hard = task.test_sets["hard"][0]
    needed = task.solver.guesses(hard)
    assert task.solver.count(hard, 2, needed - 1) is None
    assert task.solver.count(hard, 2, needed + 1) == 1


# --- what evaluation breaks down by


def test_puzzles_are_counted_by_clues_guesses_and_solutions() -> None:
    task = TASKS[9]
    assert task.strata(task.parse(LINE)) == {"clues": "28-30", "guesses": "0", "solutions": "1"}
    assert task.strata(task.blank) == {"clues": "0", "guesses": "20+", "solutions": "1000+"}
    lowest = {"0": 0, "1-4": 1, "5-19": 5, "20+": 20}
    highest = {"0": 0, "1-4": 4, "5-19": 19, "20+": 10**9}
    seen = set()
    few = {"1": 1, "2-10": 2, "11-999": 11, "1000+": 1000}
    many = {"1": 1, "2-10": 10, "11-999": 999, "1000+": 1000}
    for puzzle in np.concatenate([test_set[1:200] for test_set in task.test_sets.values()]):
        strata = task.strata(puzzle)
        if clue_counts(puzzle):
            least, most = map(int, strata["clues"].split("-"))
            assert least <= clue_counts(puzzle) <= most == least + 2
        assert few[strata["solutions"]] <= len(task.solutions(puzzle)) <= many[strata["solutions"]]
        assert lowest[strata["guesses"]] <= task.solver.guesses(puzzle) <= highest[strata["guesses"]]
        seen.add(strata["guesses"])
    assert seen == set(lowest)
    assert TASKS[4].strata(TASKS[4].held_out[0])["clues"] in {"4", "5"}


# --- what it costs to import


def test_reading_writing_and_checking_need_neither_numba_nor_torch() -> None:
    program = """
import sys
from gram.models.tasks.sudoku import Sudoku
for size in (4, 6, 9):
    task = Sudoku(size, paper={})
    tokens = task.parse(task.examples[0])
    task.text(tokens), task.grid(tokens), task.check(tokens, tokens)
assert not {"numba", "torch", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
