import hashlib
import itertools
import math
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gram.models.tasks import TASKS, PuzzleError, Tokens, cell_entropy
from gram.models.tasks.nqueens import NQueens
from gram.models.tasks.nqueens.codec import EMPTY, QUEEN, UNKNOWN

TASK = NQueens(8, paper={})
SQUARES = list(itertools.product(range(8), range(8)))


def apart(columns: tuple[int, ...]) -> bool:
    """Whether queens in these columns, row by row and no two alike, share no diagonal either."""
    rising, falling = ({column + sign * row for row, column in enumerate(columns)} for sign in (1, -1))
    return len(rising) == len(falling) == len(columns)


PERMUTATIONS = list(itertools.permutations(range(8)))
WHOLE = [columns for columns in PERMUTATIONS if apart(columns)]


def board(queens: dict[int, int] | tuple[int, ...], rest: int = UNKNOWN) -> Tokens:
    """Tokens with queens at row: column."""
    tokens = np.full((8, 8), rest)
    for row, column in queens.items() if isinstance(queens, dict) else enumerate(queens):
        tokens[row, column] = QUEEN
    return tokens.reshape(-1)


def images(puzzles: Tokens) -> set[bytes]:
    """All symmetric images of puzzles [n, 64]."""
    boards = puzzles.reshape(-1, 8, 8).astype(np.uint8)
    sides = (boards, boards[:, ::-1])
    return {turned.tobytes() for side in sides for turns in range(4) for turned in np.rot90(side, turns, axes=(1, 2))}


def as_bytes(puzzles: Tokens) -> set[bytes]:
    return {puzzle.tobytes() for puzzle in puzzles.astype(np.uint8)}


def refusal(puzzle: object) -> PuzzleError:
    with pytest.raises(PuzzleError) as caught:
        TASK.parse(puzzle)
    return caught.value


@st.composite
def partial_boards(draw: st.DrawFn) -> dict[int, int]:
    """The queens, row: column, of a puzzle that can be solved."""
    columns = draw(st.sampled_from(WHOLE))
    return {row: columns[row] for row in draw(st.sets(st.integers(0, 7)))}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.sampled_from(["queens", "board", ""]), inner, max_size=2),
    max_leaves=30,
)
coordinates = st.integers(0, 7) | st.integers(-1, 8) | st.booleans() | st.floats() | st.none()
almost_boards = st.one_of(
    st.text("Qq1*.0_-/ \n", max_size=80),
    st.text("abh18iQ9.; ,\n", max_size=30),
    st.lists(st.text("Qq1*.0_- ", min_size=7, max_size=9), min_size=7, max_size=9),
    st.lists(st.lists(st.integers(0, 1) | coordinates, min_size=7, max_size=9), min_size=7, max_size=9),
    st.fixed_dictionaries({"queens": st.lists(st.lists(coordinates, min_size=1, max_size=3), max_size=8)}),
)


# --- reading and writing


def test_the_registry_serves_8_queens() -> None:
    task = TASKS["nqueens-8"]
    assert (task.name, task.seq_len, task.vocab_size) == ("nqueens-8", 64, 3)


def test_every_accepted_spelling_gives_the_same_tokens() -> None:
    assert len(TASK.examples) == len(TASK.formats) == 7
    for spelling in TASK.examples:
        assert np.array_equal(TASK.parse(spelling), board({1: 6, 4: 0})), spelling


@pytest.mark.parametrize(
    "text",
    [
        "." * 6 + "Q" + "." * 57,
        "......q./" + "/".join(["........"] * 7),
        "\n  0 0 0 0 0 0 1 0\r\n" + "0 0 0 0 0 0 0 0\n" * 7,
        "______*_|" + "|".join(["--------"] * 7),
        "g8",
        " G8\n",
        "g8;",
    ],
)
def test_symbols_case_and_separators_are_free(text: str) -> None:
    assert np.array_equal(TASK.parse(text), board({0: 6}))


@pytest.mark.parametrize(
    "empty",
    [{"queens": []}, "." * 64, "0" * 64, ["." * 8] * 8, [[0] * 8] * 8],
    ids=["queens", "dots", "zeros", "rows", "numbers"],
)
def test_the_empty_board_is_a_puzzle(empty: object) -> None:
    assert np.array_equal(TASK.parse(empty), board({}))


@pytest.mark.parametrize(
    "spelling",
    [
        ["g7", "A4"],
        "8/6Q1/8/8/Q7/8/8/8",
        "44/6q1/8/8/Q7/8/8/8\n",
        [["Q" if (row, column) in ((1, 6), (4, 0)) else "_" for column in range(8)] for row in range(8)],
        "......../......1./......../......../1......./......../......../........",
    ],
)
def test_lists_of_squares_or_symbols_and_fen_are_read(spelling: object) -> None:
    assert np.array_equal(TASK.parse(spelling), board({1: 6, 4: 0}))


@pytest.mark.parametrize("text", ["8/6Q/8/8/8/8/8/8", "8/6Q11/8/8/8/8/8/8", "8/8/8", "9/8/8/8/8/8/8/8"])
def test_fen_of_another_size_is_refused(text: str) -> None:
    assert refusal(text)


@given(partial_boards())
def test_a_puzzle_reads_back_from_every_spelling_of_it(queens: dict[int, int]) -> None:
    puzzle = board(queens)
    squares = " ".join(f"{string.ascii_lowercase[column]}{8 - row}" for row, column in queens.items())
    spellings = [TASK.text(puzzle), TASK.text(puzzle).split("\n"), TASK.grid(puzzle), {"queens": [*map(list, queens.items())]}]
    for spelling in [*spellings, squares] if squares else spellings:
        tokens = TASK.parse(spelling)
        assert np.array_equal(tokens, puzzle)
        assert tokens.dtype == np.int64


@pytest.mark.parametrize("columns", WHOLE[::13])
def test_an_answer_reads_back_as_its_queens(columns: tuple[int, ...]) -> None:
    answer = board(columns, rest=EMPTY)
    assert np.array_equal(TASK.parse(TASK.text(answer)), board(columns))
    assert np.array_equal(TASK.parse(TASK.grid(answer)), board(columns))


@given(json_values | almost_boards | st.text())
@example([[[[[[]]]]]] * 8)
@example([[float("nan")] * 8] * 8)
@example({"queens": [[2**70, 0]]})
@settings(max_examples=100)
def test_whatever_is_sent_is_a_puzzle_or_a_puzzle_error(puzzle: object) -> None:
    try:
        tokens = TASK.parse(puzzle)
    except PuzzleError:
        return
    assert tokens.shape == (64,)
    assert tokens.dtype == np.int64
    assert set(tokens.tolist()) <= {UNKNOWN, QUEEN}
    assert np.sum(tokens == QUEEN) <= 8
    if isinstance(puzzle, dict):
        assert np.sum(tokens == QUEEN) == len(puzzle["queens"]), "no queen is dropped or made up"


@given(st.sets(st.sampled_from(SQUARES), max_size=9))
def test_queens_are_accepted_exactly_when_none_attacks_another(queens: set[tuple[int, int]]) -> None:
    peaceful = all(r != s and c != d and abs(r - s) != abs(c - d) for (r, c), (s, d) in itertools.combinations(queens, 2))
    spelled = {"queens": [[row, column] for row, column in queens]}
    if peaceful:
        assert {divmod(int(i), 8) for i in np.flatnonzero(TASK.parse(spelled) == QUEEN)} == queens
    else:
        assert "attacks the queen on" in str(refusal(spelled))


# --- refusals


@pytest.mark.parametrize(
    ("puzzle", "place", "said"),
    [
        pytest.param("." * 63, None, ["63 squares", "8 rows of 8", "64 in all"], id="a square too few"),
        pytest.param("." * 65, None, ["65 squares", "64 in all"], id="a square too many"),
        pytest.param("", None, ["0 squares", "64 in all"], id="nothing"),
        pytest.param(["." * 8] * 7, None, ["56 squares", "8 rows of 8"], id="a row too few"),
        pytest.param(["." * 8] * 2 + ["." * 9] + ["." * 8] * 5, "row 3", ["9 symbols", "write 8"], id="a long row"),
        pytest.param([[0] * 8] * 4 + [[0] * 7] + [[0] * 8] * 3, "row 5", ["7 symbols", "write 8"], id="a short list"),
        pytest.param("." * 10 + "x" + "." * 53, "row 2, column 3", ["'x'", "'Q'", "'.'"], id="an unknown symbol"),
        pytest.param(["." * 8] * 7 + ["...♞...."], "row 8, column 4", ["'♞'", "'Q'", "'.'"], id="a chess piece"),
        pytest.param([[0] * 8] * 7 + [[0, 2] + [0] * 6], "row 8, column 2", ["2", "not 0 or 1"], id="an unknown number"),
        pytest.param([[0] * 8] * 7 + [[None] * 8], "row 8, column 1", ["None", "not 0 or 1"], id="a missing number"),
        pytest.param("a1 h1", "the queen on row 8, column 1", ["row 8, column 8", "a row", "remove"], id="one row"),
        pytest.param("a1 a8", "the queen on row 8, column 1", ["row 1, column 1", "a column", "remove"], id="one column"),
        pytest.param("a1 h8", "the queen on row 8, column 1", ["row 1, column 8", "a diagonal", "remove"], id="diagonal"),
        pytest.param("a3 c1", "the queen on row 6, column 1", ["row 8, column 3", "a diagonal"], id="the other diagonal"),
        pytest.param("b2 B2", "row 7, column 2", ["twice", "once"], id="one square twice"),
        pytest.param({"queens": [[0, 4], [0, 4]]}, "row 1, column 5", ["twice", "once"], id="one pair twice"),
        pytest.param("a1 i3", "'i3'", ["a1 to h8"], id="a file off the board"),
        pytest.param("a1 c9", "'c9'", ["a1 to h8"], id="a rank off the board"),
        pytest.param("a0", "'a0'", ["a1 to h8"], id="rank 0"),
        pytest.param("a1 queen", "'queen'", ["a1 to h8"], id="a word among squares"),
        pytest.param({"queens": [[1, 2], [8, 0]]}, "queens[1]", ["[8, 0]", "from 0 to 7"], id="a row off the board"),
        pytest.param({"queens": [[0, -1]]}, "queens[0]", ["[0, -1]", "from 0 to 7"], id="a column off the board"),
        pytest.param({"queens": [[0]]}, "queens[0]", ["[0]", "[row, column]"], id="half a pair"),
        pytest.param({"queens": ["a1"]}, "queens[0]", ["'a1'", "[row, column]"], id="a name for a pair"),
        pytest.param({"queens": [[0.0, 1.0]]}, "queens[0]", ["[0.0, 1.0]", "[row, column]"], id="fractions"),
    ],
)
def test_a_bad_board_is_refused_with_the_place_and_the_fix(puzzle: object, place: str | None, said: list[str]) -> None:
    error = refusal(puzzle)
    assert error.place == place
    assert str(error).startswith(f"{place}: " if place else "")
    assert all(part in str(error) for part in said), str(error)


@pytest.mark.parametrize("pair", [[True, False], [True, True], [0, True], [False, 5]])
def test_true_and_false_are_not_coordinates(pair: list[object]) -> None:
    assert refusal({"queens": [pair]}).place == "queens[0]"


def test_a_rank_of_thousands_of_digits_is_a_square_off_the_board() -> None:
    assert "squares are a1 to h8" in str(refusal("a" + "1" * 5000))


@pytest.mark.parametrize(
    "puzzle",
    [
        None,
        True,
        8,
        0.5,
        [],
        {},
        [1, 2],
        ["a", 1],
        [[0] * 8, "." * 8],
        {"queen": []},
        {"queens": [], "size": 8},
        {"queens": "a1"},
    ],
    ids=str,
)
def test_what_is_no_spelling_at_all_is_answered_with_the_spellings(puzzle: object) -> None:
    assert all(spelling in str(refusal(puzzle)) for spelling in TASK.formats)


@given(st.lists(json_values, min_size=1, max_size=8))
def test_garbage_in_place_of_a_row_is_never_a_board(rows: list[Any]) -> None:
    assume(not all(isinstance(row, list | str) for row in rows))
    refusal([*["." * 8] * (8 - len(rows)), *rows])


# --- checking and solving


def test_the_boards_are_the_92_that_brute_force_finds() -> None:
    assert len(WHOLE) == 92
    assert as_bytes(TASK.boards) == as_bytes(np.array([board(columns, rest=EMPTY) for columns in WHOLE]))
    assert len(TASK.boards) == 92


def test_the_entropy_is_that_of_queen_or_none_in_each_square() -> None:
    assert cell_entropy(TASK.boards[:1]) == 0
    shares = np.array([board(columns, rest=EMPTY) == QUEEN for columns in WHOLE]).mean(0)
    by_hand = np.mean([-p * math.log(p) - (1 - p) * math.log(1 - p) for p in shares])
    assert TASK.board_entropy == pytest.approx(by_hand)


def test_check_accepts_exactly_the_92_boards_among_all_permutations() -> None:
    nothing = board({})
    accepted = [columns for columns in PERMUTATIONS if TASK.check(nothing, board(columns, rest=EMPTY))]
    assert accepted == WHOLE


@given(st.sampled_from(WHOLE), st.sampled_from(WHOLE), st.integers(0, 7))
def test_check_accepts_a_board_exactly_when_it_keeps_the_given_queens(
    given_from: tuple[int, ...], answered: tuple[int, ...], row: int
) -> None:
    puzzle = board({row: given_from[row]})
    assert TASK.check(puzzle, board(answered, rest=EMPTY)) is (answered[row] == given_from[row])


@given(st.sampled_from(WHOLE), st.integers(0, 63), st.integers(0, 2))
def test_check_refuses_a_board_with_any_one_square_changed(columns: tuple[int, ...], square: int, symbol: int) -> None:
    answer = board(columns, rest=EMPTY)
    changed = answer.copy()
    changed[square] = symbol
    assert TASK.check(board({}), changed) is bool(symbol == answer[square])


@given(partial_boards())
def test_solutions_are_the_boards_that_brute_force_leaves(queens: dict[int, int]) -> None:
    found = TASK.solutions(board(queens))
    kept = [columns for columns in WHOLE if all(columns[row] == column for row, column in queens.items())]
    assert as_bytes(found) == as_bytes(np.array([board(columns, rest=EMPTY) for columns in kept]))
    assert len(found) == len(kept)
    assert all(TASK.check(board(queens), answer) for answer in found)


def test_a_puzzle_without_a_solution_has_none() -> None:
    assert TASK.solutions(board({0: 0, 1: 2, 2: 5, 3: 1})).shape == (0, 64)


# --- the split


def test_the_benchmark_has_all_5148_solvable_inputs_with_1_to_3_queens() -> None:
    train, held_out = TASK._benchmark_split
    brute = {
        tuple((row, columns[row]) for row in rows)
        for columns in WHOLE
        for given_queens in (1, 2, 3)
        for rows in itertools.combinations(range(8), given_queens)
    }
    assert len(train) + len(held_out) == len(brute) == 5148
    assert as_bytes(train) | as_bytes(held_out) == as_bytes(np.array([board(dict(queens)) for queens in brute]))


def test_about_a_seventh_is_held_out_with_every_number_of_given_queens() -> None:
    train, held_out = TASK._benchmark_split
    assert len(held_out) / 5148 == pytest.approx(1 / 7, abs=0.01)
    for queens in (1, 2, 3):
        kept, all_of_them = (np.sum((part == QUEEN).sum(1) == queens) for part in (held_out, np.concatenate([train, held_out])))
        assert 0 < kept < 0.3 * all_of_them


def test_a_held_out_puzzle_and_its_mirror_images_are_never_trained_on() -> None:
    train, held_out = TASK._benchmark_split
    assert np.array_equal(held_out, TASK.held_out)
    assert not images(held_out) & as_bytes(train)
    assert images(held_out) == as_bytes(held_out), "all images of a held-out puzzle are held out with it"


def test_sampling_never_draws_a_held_out_puzzle_or_an_image_of_one() -> None:
    puzzles, answers = TASK.sample(np.random.default_rng(0), 10_000)
    assert not images(TASK.held_out) & as_bytes(puzzles)
    assert all(TASK.check(puzzle, answer) for puzzle, answer in zip(puzzles[:1000], answers[:1000], strict=True))
    counts = np.bincount((puzzles == QUEEN).sum(1), minlength=8) / len(puzzles)
    assert (counts > 0).all(), "puzzles of every size are trained on"
    assert counts[1:4].sum() == pytest.approx(1 - TASK.empty_share - TASK.other_share, abs=0.02)
    assert counts[0] == pytest.approx(TASK.empty_share + TASK.other_share / 5, abs=0.02)
    assert len(as_bytes(puzzles[:1000])) > 700


def test_sampling_draws_every_solution_of_a_puzzle() -> None:
    puzzles, answers = TASK.sample(np.random.default_rng(1), 10_000)
    empty = answers[(puzzles == QUEEN).sum(1) == 0]
    assert len(empty) > 100
    assert len(as_bytes(empty)) > 50


def test_sampling_repeats_with_its_generator() -> None:
    first, again, other = (TASK.sample(np.random.default_rng(seed), 50) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_the_held_out_puzzles_are_those_that_the_bundled_weights_never_saw() -> None:
    digest = hashlib.sha256(TASK.held_out.astype(np.uint8).tobytes()).hexdigest()
    assert digest == "d5d4d449045cd2b439ae2b555c9e5398a38d2259e09c629b9eff39ca861d0f3b"


def test_20_even_draws_find_99_74_percent_and_the_held_out_puzzles_are_as_hard() -> None:
    train, held_out = TASK._benchmark_split

    def limit(puzzles: Tokens) -> float:
        return float(np.mean([1 - (1 - 1 / len(TASK.solutions(puzzle))) ** 20 for puzzle in puzzles]))

    assert limit(np.concatenate([train, held_out])) == pytest.approx(0.9974, abs=5e-5)
    assert limit(held_out) == pytest.approx(0.9974, abs=0.003)


@pytest.mark.parametrize(("size", "boards"), [(7, 40), (9, 352)])
def test_other_sizes_are_as_exact(size: int, boards: int) -> None:
    task = NQueens(size, paper={})
    assert len(task.boards) == boards
    assert all(task.check(np.full(size * size, UNKNOWN), answer) for answer in task.boards)
    assert task.name == f"nqueens-{size}"
