import hashlib
import itertools
import os
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gram.models.tasks import Tokens
from gram.models.tasks.sudoku import Sudoku
from gram.models.tasks.sudoku.compiled import compiled
from gram.models.tasks.sudoku.solver import CHUNK, Minimal, Solver

SOLVERS = {size: Sudoku(size, paper={}).solver for size in (4, 6, 9)}
BOX_ROWS = {4: 2, 6: 2, 9: 3}


def tokens(text: str) -> Tokens:
    return np.array([int(symbol) if symbol.isdigit() else 0 for symbol in text], dtype=np.int64)


def blank(size: int) -> Tokens:
    return np.zeros(size * size, dtype=np.int64)


def units(size: int) -> list[list[int]]:
    rows, columns = BOX_ROWS[size], size // BOX_ROWS[size]
    lines = [[row * size + column for column in range(size)] for row in range(size)]
    corners = itertools.product(range(0, size, rows), range(0, size, columns))
    boxes = [[(r + i) * size + c + j for i in range(rows) for j in range(columns)] for r, c in corners]
    return [*lines, *map(list, zip(*lines, strict=True)), *boxes]


UNITS = {size: units(size) for size in BOX_ROWS}


def is_valid(board: tuple[int, ...] | Tokens, size: int) -> bool:
    return all({board[cell] for cell in unit} == set(range(1, size + 1)) for unit in UNITS[size])


def singles(candidates: list[set[int]], size: int) -> bool:
    """Naked and hidden singles until nothing changes, as plainly as can be; False is a contradiction."""
    before = None
    while before != candidates:
        before = [set(one) for one in candidates]
        for unit in UNITS[size]:
            for cell in unit:
                if len(candidates[cell]) == 1:
                    for other in unit:
                        if other != cell:
                            candidates[other] -= candidates[cell]
            for digit in range(1, size + 1):
                places = [cell for cell in unit if digit in candidates[cell]]
                if not places:
                    return False
                if len(places) == 1:
                    candidates[places[0]] &= {digit}
    return all(candidates)


def search(candidates: list[set[int]], size: int) -> tuple[list[Tokens], int]:
    """All solutions and the guesses that it took, by the definition."""
    if not singles(candidates, size):
        return [], 0
    if all(len(one) == 1 for one in candidates):
        return [np.array([min(one) for one in candidates])], 0
    cell = min((len(one), cell) for cell, one in enumerate(candidates) if len(one) > 1)[1]
    found, guesses = [], 0
    for digit in sorted(candidates[cell]):
        solutions, more = search([{digit} if i == cell else set(one) for i, one in enumerate(candidates)], size)
        found += solutions
        guesses += 1 + more
    return found, guesses


def slow_solve(board: Tokens) -> tuple[list[Tokens], int]:
    size = int(board.size**0.5)
    return search([{int(digit)} if digit else set(range(1, size + 1)) for digit in board], size)


ROWS = list(itertools.permutations(range(1, 5)))
BANDS = [(*a, *b) for a, b in itertools.product(ROWS, ROWS) if len({*a[:2], *b[:2]}) == 4 == len({*a[2:], *b[2:]})]
ALL_4X4 = np.array([(*top, *bottom) for top, bottom in itertools.product(BANDS, BANDS) if is_valid(top + bottom, 4)])

KNOWN = {
    "an easy one": (
        "530070000600195000098000060800060003400803001700020006060000280000419005000080079",
        "534678912672195348198342567859761423426853791713924856961537284287419635345286179",
    ),
    "17 clues": (
        "000000010400000000020000000000050407008000300001090000300400200050100000000806000",
        "693784512487512936125963874932651487568247391741398625319475268856129743274836159",
    ),
    "a hard one": (
        "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
        "812753649943682175675491283154237896369845721287169534521974368438526917796318452",
    ),
}

boards_4x4 = st.lists(st.sampled_from([0, 0, 1, 2, 3, 4]), min_size=16, max_size=16).map(lambda d: np.array(d, dtype=np.int64))


def keeping(boards: Tokens, clues: Tokens) -> Tokens:
    return boards[np.all((clues == 0) | (boards == clues), axis=1)]


def as_set(boards: Tokens) -> set[bytes]:
    return {board.astype(np.uint8).tobytes() for board in boards}


# --- solving


def test_the_empty_4x4_board_has_the_288_solutions_of_brute_force() -> None:
    found = SOLVERS[4].solve(blank(4), 1000)
    assert len(found) == len(ALL_4X4) == 288
    assert as_set(found) == as_set(ALL_4X4)


@given(boards_4x4)
@settings(max_examples=100)
def test_any_4x4_clues_have_the_solutions_of_brute_force(clues: Tokens) -> None:
    found = SOLVERS[4].solve(clues, 1000)
    assert len(found) == len(as_set(found))
    assert as_set(found) == as_set(keeping(ALL_4X4, clues))


@given(st.sampled_from(list(ALL_4X4)), st.sets(st.integers(0, 15)), st.integers(0, 300))
def test_a_search_stops_at_its_limit(board: Tokens, blanked: set[int], limit: int) -> None:
    clues = np.where(np.isin(np.arange(16), list(blanked)), 0, board)
    assert len(SOLVERS[4].solve(clues, limit)) == min(limit, len(keeping(ALL_4X4, clues)))


@pytest.mark.parametrize(("puzzle", "solution"), KNOWN.values(), ids=KNOWN)
def test_known_puzzles_have_their_known_solution_alone(puzzle: str, solution: str) -> None:
    assert np.array_equal(SOLVERS[9].solve(tokens(puzzle), 10), [tokens(solution)])
    assert np.array_equal(slow_solve(tokens(puzzle))[0], [tokens(solution)])


@pytest.mark.parametrize("repeats", ["11", "1........1", "1" + "0" * 17 + "1", "550055"])
def test_clues_that_repeat_a_digit_have_no_solution_and_take_no_guess(repeats: str) -> None:
    board = tokens(repeats.ljust(81, "."))
    assert SOLVERS[9].solve(board, 10).shape == (0, 81)
    assert SOLVERS[9].guesses(board) == 0


def test_the_empty_9x9_board_has_as_many_solutions_as_asked_for() -> None:
    found = SOLVERS[9].solve(blank(9), 500)
    assert len(as_set(found)) == 500
    assert all(is_valid(board, 9) for board in found)


# --- difficulty


def test_puzzles_that_singles_solve_take_no_guess() -> None:
    assert SOLVERS[9].guesses(tokens(KNOWN["an easy one"][0])) == 0
    assert SOLVERS[9].guesses(tokens(KNOWN["an easy one"][1])) == 0
    assert SOLVERS[9].guesses(tokens(KNOWN["a hard one"][0])) >= 20


@pytest.mark.parametrize(("size", "count"), [(4, 30), (6, 30), (9, 6)])
def test_guesses_are_counted_as_defined(size: int, count: int) -> None:
    made = SOLVERS[size].minimal_puzzles(seed=2, count=count)
    for puzzle, board, guesses in zip(*made, strict=True):
        solutions, expected = slow_solve(puzzle)
        assert guesses == SOLVERS[size].guesses(puzzle) == expected
        assert np.array_equal(solutions, [board])


def test_mean_guesses_are_those_of_the_images_whatever_the_digits_are_called() -> None:
    orders = Sudoku(9, paper={}).cell_orders(0, 16)
    rng = np.random.default_rng(0)
    for puzzle in SOLVERS[9].minimal_puzzles(seed=2, count=20).puzzles:
        mean = SOLVERS[9].mean_guesses(puzzle, orders)
        assert mean == np.mean([SOLVERS[9].guesses(puzzle[order]) for order in orders])
        assert mean == SOLVERS[9].mean_guesses(np.array([0, *rng.permutation(9) + 1])[puzzle], orders)


# --- the board nearest to wishes


@given(st.sampled_from(list(ALL_4X4)), st.integers(0, 2**16 - 1), st.lists(st.integers(0, 63), max_size=40))
@settings(max_examples=100)
def test_a_completed_4x4_board_keeps_greedily_what_some_board_can_keep(board: Tokens, shown: int, wishes: list[int]) -> None:
    clues = board * (shown >> np.arange(16) & 1)
    cells, digits = np.array(wishes, dtype=np.int64) // 4, np.array(wishes, dtype=np.int64) % 4 + 1
    possible = keeping(ALL_4X4, clues)
    for cell, digit in zip(cells, digits, strict=True):
        agreeing = possible[possible[:, cell] == digit]
        possible = agreeing if len(agreeing) else possible
    assert as_set(SOLVERS[4].complete(clues, cells, digits)[None]) <= as_set(possible)


@pytest.mark.parametrize("size", SOLVERS)
def test_wishes_for_a_valid_board_are_granted_in_any_order(size: int) -> None:
    rng = np.random.default_rng(0)
    for board in SOLVERS[size].random_boards(seed=3, count=20):
        cells = rng.permutation(size * size)
        assert np.array_equal(SOLVERS[size].complete(blank(size), cells, board[cells]), board)


def test_confident_wishes_outweigh_the_wrong_ones_after_them() -> None:
    rng = np.random.default_rng(0)
    for board in SOLVERS[9].random_boards(seed=4, count=20):
        cells = rng.permutation(81)
        wishes = np.where(np.arange(81) < 60, board[cells], rng.integers(1, 10, 81))
        completed = SOLVERS[9].complete(blank(9), cells, wishes)
        assert np.array_equal(completed[cells[:60]], board[cells[:60]])
        assert is_valid(completed, 9)


@pytest.mark.parametrize("size", SOLVERS)
def test_any_wishes_lead_to_a_valid_board_with_the_clues(size: int) -> None:
    rng = np.random.default_rng(size)
    made = SOLVERS[size].minimal_puzzles(seed=5, count=10)
    for puzzle, board in zip(made.puzzles, made.boards, strict=True):
        cells, digits = rng.integers(size * size, size=200), rng.integers(1, size + 1, 200)
        assert is_valid(SOLVERS[size].complete(blank(size), cells, digits), size)
        assert np.array_equal(SOLVERS[size].complete(puzzle, cells, digits), board)


def test_impossible_clues_cannot_be_completed() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="no valid board"):
        SOLVERS[4].complete(tokens("123....4........"), nothing, nothing)
    with pytest.raises(ValueError, match="no valid board"):
        SOLVERS[4].complete(tokens("11.............."), nothing, nothing)


# --- random boards and puzzles


@pytest.mark.parametrize("size", SOLVERS)
def test_random_boards_are_valid_and_repeat_with_their_seed(size: int) -> None:
    boards, again, other = (SOLVERS[size].random_boards(seed, 200) for seed in (7, 7, 8))
    assert all(is_valid(board, size) for board in boards)
    assert np.array_equal(boards, again)
    assert not np.array_equal(boards, other)
    assert len(as_set(boards)) > (100 if size == 4 else 198)


def test_random_4x4_boards_are_uniform() -> None:
    boards, counts = np.unique(SOLVERS[4].random_boards(seed=1, count=28_800), axis=0, return_counts=True)
    assert len(boards) == 288
    assert np.sum((counts - 100) ** 2 / 100) == pytest.approx(287, abs=4 * (2 * 287) ** 0.5)


def test_random_6x6_boards_repeat_as_seldom_as_uniform_ones_of_28_million_do() -> None:
    count, boards = 40_000, 28_200_960
    repeats = count - len(as_set(SOLVERS[6].random_boards(seed=1, count=count)))
    expected = count**2 / 2 / boards
    assert repeats == pytest.approx(expected, abs=3 * expected**0.5)


@pytest.mark.parametrize("size", SOLVERS)
def test_minimal_puzzles_have_one_solution_and_lose_it_with_any_clue(size: int) -> None:
    made = SOLVERS[size].minimal_puzzles(seed=1, count=50)
    for puzzle, board in zip(made.puzzles, made.boards, strict=True):
        assert is_valid(board, size)
        assert np.array_equal(SOLVERS[size].solve(puzzle, 2), [board])
        for cell in np.flatnonzero(puzzle):
            less = puzzle.copy()
            less[cell] = 0
            assert len(SOLVERS[size].solve(less, 2)) == 2


def test_a_climb_finds_minimal_puzzles_of_a_hundred_guesses_and_repeats_with_its_seed() -> None:
    solver, orders = SOLVERS[9], Sudoku(9, paper={}).cell_orders(0, 16)
    found = solver.climbed_puzzles(seed=7, chunk=0, orders=orders, steps=3_000)
    assert len(found.puzzles) > 0
    for puzzle, board, guesses in zip(*found, strict=True):
        assert int(solver.mean_guesses(puzzle, orders)) == guesses >= 100
        assert np.array_equal(solver.solve(puzzle, 2), [board])
        for cell in np.flatnonzero(puzzle):
            assert len(solver.solve(np.where(np.arange(81) == cell, 0, puzzle), 2)) == 2
    again = solver.climbed_puzzles(seed=7, chunk=0, orders=orders, steps=3_000)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


def test_a_series_is_the_same_from_any_start_and_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(some: Minimal, others: Minimal) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))

    solver = SOLVERS[6]
    whole = solver.minimal_puzzles(seed=1, count=4 * CHUNK)
    assert same(solver.minimal_puzzles(seed=1, count=10, first=700), Minimal(*(part[700:710] for part in whole)))
    for threads in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        for i, chunk in enumerate(itertools.islice(solver.minimal_series(seed=1), 4)):
            assert same(chunk, Minimal(*(part[i * CHUNK : (i + 1) * CHUNK] for part in whole)))


@pytest.mark.parametrize(("size", "digest"), [(4, "306071f29bfdce1e"), (6, "d5f4b94b9df10823"), (9, "0d4d164cafdf12d1")])
def test_a_series_is_the_same_on_every_machine(size: int, digest: str) -> None:
    made = SOLVERS[size].minimal_puzzles(seed=0, count=50)
    parts = b"".join(part.astype("<i8").tobytes() for part in made)
    hashes = SOLVERS[size].class_hashes(made.puzzles).astype("<u8").tobytes()
    assert hashlib.sha256(parts + hashes).hexdigest()[:16] == digest


# --- symmetry classes


@st.composite
def symmetries(draw: st.DrawFn, size: int) -> tuple[list[int], list[int], list[int], bool]:
    """Orders of rows and columns, new names of the digits (0 stays) and whether to transpose."""
    rows, columns = BOX_ROWS[size], size // BOX_ROWS[size]

    def order(thickness: int) -> list[int]:
        bands = draw(st.permutations(range(size // thickness)))
        return [band * thickness + line for band in bands for line in draw(st.permutations(range(thickness)))]

    names = [0, *draw(st.permutations(range(1, size + 1)))]
    return order(rows), order(columns), names, rows == columns and draw(st.booleans())


def image(board: Tokens, symmetry: tuple[list[int], list[int], list[int], bool]) -> Tokens:
    rows, columns, names, transposed = symmetry
    grid = np.array(names)[board].reshape(len(rows), -1)[rows][:, columns]
    return (grid.T if transposed else grid).reshape(-1)


@pytest.mark.parametrize("size", SOLVERS)
@given(data=st.data())
@settings(max_examples=100)
def test_all_images_of_a_puzzle_have_its_hash_and_one_solution(size: int, data: st.DataObject) -> None:
    solver = SOLVERS[size]
    made = solver.minimal_puzzles(seed=data.draw(st.integers(0, 2**62)), count=1)
    shown = data.draw(st.sets(st.integers(0, size * size - 1)))
    puzzle = np.where(np.isin(np.arange(size * size), list(shown)), made.boards[0], made.puzzles[0])
    other = image(puzzle, data.draw(symmetries(size)))
    assert solver.class_hashes(other) == solver.class_hashes(puzzle)
    assert len(solver.solve(other, 2)) == 1


@pytest.mark.parametrize("size", [6, 9])
def test_other_puzzles_have_other_hashes(size: int) -> None:
    solver = SOLVERS[size]
    puzzles = solver.minimal_puzzles(seed=6, count=300).puzzles
    hashes = solver.class_hashes(puzzles)
    assert hashes.shape == (300,)
    assert len(np.unique(hashes)) == 300
    last_clue = puzzles * (np.arange(size * size) == (puzzles != 0).cumsum(1).argmax(1)[:, None])
    assert not np.any(solver.class_hashes(puzzles - last_clue) == hashes)
    torn = puzzles.reshape(-1, size, size)[:, [*range(1, size), 0]].reshape(puzzles.shape)  # a row leaves its band
    assert np.mean(solver.class_hashes(torn) == hashes) < 0.02


def test_6x6_puzzles_are_not_mixed_up_with_their_transposed_ones() -> None:
    puzzles = SOLVERS[6].minimal_puzzles(seed=6, count=100).puzzles
    transposed = puzzles.reshape(-1, 6, 6).swapaxes(1, 2).reshape(-1, 36)
    assert not np.any(SOLVERS[6].class_hashes(puzzles) == SOLVERS[6].class_hashes(transposed))


# --- compiling


def test_functions_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_a_cache(**options: Any) -> Any:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_a_cache)

    def twice(number: int) -> int:
        return 2 * number

    assert compiled(twice)(21) == 42


def test_a_solver_is_made_of_its_units() -> None:
    solver = Solver(np.array(units(6)), box_rows=2)
    assert np.array_equal(solver.random_boards(1, 5), SOLVERS[6].random_boards(1, 5))
