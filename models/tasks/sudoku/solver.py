"""The Sudoku solver: exact solutions, random boards, minimal puzzles, and hashes of symmetry classes. It needs numba."""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from gram.models.tasks.base import Tokens
from gram.models.tasks.sudoku.classes import hash_classes
from gram.models.tasks.sudoku.climb import climb, mean_guesses
from gram.models.tasks.sudoku.compiled import Hashes, plain
from gram.models.tasks.sudoku.search import (
    complete_board,
    fill_minimal_puzzles,
    fill_random_boards,
    random_stream,
    solve_board,
)

CHUNK = 256
CLIMB_STEPS = 20_000
EXTREME_GUESSES = 100
"""A climb gives the puzzles whose images take this many guesses on average. Hard random ones take 17, and the famous "AI
Escargot", "Easter Monster" and "Golden Nugget" 119, 345 and 500."""
_MOST_WAYS = {4: 384.0, 6: 79626240.0, 9: 5e22}
"""The number of ways to the rarest board, as `random_board` assumes it. For n of 4 and 6 it is the rarest one in a million
draws. 9x9 has boards four times as rare, which are drawn too seldom, so that a draw takes 0.2 ms: 4 % of the probability goes
to other boards."""


class Minimal(NamedTuple):
    """Minimal puzzles: each has one solution, and more than one without any of its clues."""

    puzzles: Tokens
    """[n, N]"""
    boards: Tokens
    """Their solutions [n, N]."""
    guesses: Tokens
    """Their difficulty [n]."""


class Solver:
    """Sudoku of n digits on N = n * n cells. Boards are int64 [N]; 0 is a blank and 1 to n are digits."""

    def __init__(self, units: Tokens, box_rows: int) -> None:
        """Units [3n, n] are the cells of each row, then of each column, then of each box; boxes are `box_rows` high."""
        self.size = units.shape[1]
        self.box_rows = box_rows
        self._units = units
        related = np.zeros((units.shape[1] ** 2,) * 2, dtype=bool)
        for unit in units:
            related[np.ix_(unit, unit)] = True
        np.fill_diagonal(related, False)
        self._peers = np.nonzero(related)[1].reshape(len(related), -1)

    def solve(self, board: Tokens, limit: int) -> Tokens:
        """The first solutions of a board [N], in the order of the search and at most `limit` -> [m, N]."""
        solutions = np.empty((limit, board.size), dtype=np.int64)
        found, _ = solve_board(plain(board), solutions, -1, self._peers, self._units)
        return solutions[:found]

    def count(self, board: Tokens, limit: int, budget: int) -> int | None:
        """The number of solutions of a board [N], at most `limit`; None if so many guesses are not enough to tell."""
        solutions = np.empty((limit, board.size), dtype=np.int64)
        found, guesses = solve_board(plain(board), solutions, budget, self._peers, self._units)
        return found if found == limit or guesses < budget else None

    def guesses(self, board: Tokens) -> int:
        """The difficulty: guesses (assignments tried) until the search for two solutions of a board [N] is exhausted."""
        two = np.empty((2, board.size), dtype=np.int64)
        return solve_board(plain(board), two, -1, self._peers, self._units)[1]

    def complete(self, board: Tokens, cells: Tokens, digits: Tokens) -> Tokens:
        """The valid full board [N] that keeps a board's clues [N] and, greedily, ranked wishes: digits [W] in cells [W].

        A wish, the most confident first, is kept if some valid board has it with the clues and all wishes kept before.
        (One for which no board is found in 1000 guesses is dropped.) Raises ValueError if the clues have no solution.
        """
        full = np.empty(board.size, dtype=np.int64)
        if not complete_board(plain(board), plain(cells), plain(digits), full, self._peers, self._units):
            raise ValueError("no valid board keeps these clues")
        return full

    def random_boards(self, seed: int, count: int) -> Tokens:
        """Random full boards [count, N]: uniform for n of 4 and 6, within 5 % of the probability for 9 (see `_MOST_WAYS`)."""
        boards = np.zeros((count, self.size**2), dtype=np.int64)
        fill_random_boards(np.uint64(seed), boards, _MOST_WAYS[self.size], self._peers, self._units)
        return boards

    def minimal_puzzles(self, seed: int, count: int, first: int = 0) -> Minimal:
        """Minimal puzzles `first` to `first + count` of the endless series of this seed.

        Each is a random board from which clues are taken, in a random order, wherever the solution stays the only one.
        """
        puzzles = np.zeros((count, self.size**2), dtype=np.int64)
        boards, guesses = np.zeros_like(puzzles), np.zeros(count, dtype=np.int64)
        most_ways = _MOST_WAYS[self.size]
        fill_minimal_puzzles(np.uint64(seed), np.uint64(first), puzzles, boards, guesses, most_ways, self._peers, self._units)
        return Minimal(puzzles, boards, guesses)

    def minimal_series(self, seed: int) -> Iterator[Minimal]:
        """The endless series of a seed in chunks of 256."""
        return _in_threads(lambda chunk: self.minimal_puzzles(seed, CHUNK, CHUNK * chunk))

    def mean_guesses(self, puzzle: Tokens, orders: Tokens) -> float:
        """The difficulty of a puzzle [N], however it is written: the mean over images with the cells in the orders [R, N]."""
        return mean_guesses(plain(puzzle), plain(orders), 0.0, self._peers, self._units)

    def climbed_puzzles(self, seed: int, chunk: int, orders: Tokens, steps: int = CLIMB_STEPS) -> Minimal:
        """What a climb finds that starts from the hardest puzzle of a chunk: minimal puzzles of EXTREME_GUESSES or more.

        They come from one another and share clues. Their difficulty is that of `mean_guesses`, rounded down.
        """
        start = self.minimal_puzzles(seed, CHUNK, CHUNK * chunk)
        puzzle = start.puzzles[np.argmax(start.guesses)].copy()
        puzzles, guesses = np.empty((steps, puzzle.size), dtype=np.int64), np.empty(steps, dtype=np.int64)
        state = random_stream(np.uint64(seed), np.uint64(chunk))
        found = climb(state, puzzle, float(EXTREME_GUESSES), plain(orders), puzzles, guesses, self._peers, self._units)
        boards = np.array([self.solve(one, 1)[0] for one in puzzles[:found]]).reshape(found, puzzle.size)
        return Minimal(puzzles[:found].copy(), boards, guesses[:found].copy())

    def climbed_series(self, seed: int, orders: Tokens) -> Iterator[Minimal]:
        """The endless series of the climbs of a seed."""
        return _in_threads(lambda chunk: self.climbed_puzzles(seed, chunk, orders))

    def class_hashes(self, boards: Tokens) -> Hashes:
        """A hash for each board [..., N] that is the same for all its symmetric images -> [...].

        The symmetries are those of Sudoku.symmetries. Boards that are not images of each other nearly always have different
        hashes, but equal hashes are no proof of a symmetry.
        """
        flat = boards.reshape(-1, self.size**2)
        return hash_classes(plain(flat), self.size, self.box_rows).reshape(boards.shape[:-1])


def _in_threads(make: Callable[[int], Minimal]) -> Iterator[Minimal]:
    """make(0), make(1) and so on without end, by as many threads as there are cores."""
    workers = os.cpu_count() or 1  # numba.get_num_threads() would set torch's number of threads, too
    with ThreadPoolExecutor(workers) as pool:
        for start in itertools.count(step=workers):
            yield from pool.map(make, range(start, start + workers))
