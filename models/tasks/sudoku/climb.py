"""Minimal puzzles far harder than random ones, found by climbing from these; compiled.

A step exchanges clues, and is kept if the puzzle is at least half as hard as the hardest so far (record-to-record travel). The
difficulty is the mean number of guesses over images that have the cells in given orders [R, N], so it hardly depends on how the
puzzle is written. (The names of the digits make no difference to a search that goes on to its end.)

After a change of search.py, touch this file: numba's cache on disk does not notice a change of a function in another one.
"""

import numpy as np

from gram.models.tasks.base import Tokens
from gram.models.tasks.sudoku.compiled import Hashes, compiled
from gram.models.tasks.sudoku.search import load_candidates, propagate, random_below, remove_clues, solve_board

_KEPT = 0.5
"""A step may fall to this share of the record."""
_GIVE_UP = 0.2
"""A measurement ends when the images so far are easier than this share of what is needed."""


@compiled
def mean_guesses(puzzle: Tokens, orders: Tokens, least: float, peers: Tokens, units: Tokens) -> float:
    """The mean number of guesses on a puzzle [N] over the orders; or, early, 0 if it will hardly reach `least`."""
    two = np.empty((2, puzzle.size), dtype=np.int64)
    total = 0
    for i in range(orders.shape[0]):
        total += solve_board(puzzle[orders[i]], two, -1, peers, units)[1]
        if total < _GIVE_UP * least * (i + 1):
            return 0.0
    return float(total / orders.shape[0])


@compiled
def random_solution(state: Hashes, puzzle: Tokens, board: Tokens, peers: Tokens, units: Tokens) -> None:
    """Write to board [1, N] a solution of a puzzle [N] with several: one with a random candidate in a random cell."""
    candidates, queue = np.empty(puzzle.size, dtype=np.int64), np.empty(puzzle.size, dtype=np.int64)
    propagate(candidates, queue, load_candidates(puzzle, candidates, queue, units), peers, units)
    undecided = np.flatnonzero(candidates & (candidates - 1))
    trial, found = puzzle.copy(), 0
    while not found:
        cell, digit = undecided[random_below(state, undecided.size)], random_below(state, units.shape[1]) + 1
        if candidates[cell] >> (digit - 1) & 1:
            trial[cell] = digit
            found, _ = solve_board(trial, board, -1, peers, units)
            trial[cell] = 0


@compiled
def exchange_clues(state: Hashes, puzzle: Tokens, peers: Tokens, units: Tokens) -> None:
    """Take a random clue from a minimal puzzle, choose a solution, and add clues of it until it is the only one; in place."""
    board, two = np.empty((1, puzzle.size), dtype=np.int64), np.empty((2, puzzle.size), dtype=np.int64)
    clues = np.flatnonzero(puzzle)
    puzzle[clues[random_below(state, clues.size)]] = 0
    random_solution(state, puzzle, board, peers, units)
    while solve_board(puzzle, two, -1, peers, units)[0] > 1:
        other = two[1] if np.all(two[0] == board[0]) else two[0]
        differing = np.flatnonzero(other != board[0])
        cell = differing[random_below(state, differing.size)]
        puzzle[cell] = board[0, cell]


@compiled
def climb(
    state: Hashes, puzzle: Tokens, least: float, orders: Tokens, found: Tokens, guesses: Tokens, peers: Tokens, units: Tokens
) -> int:
    """Climb from a minimal puzzle [N], in place, by n steps.

    Fills the first rows of found [n, N] with the minimal puzzles on the way that take `least` mean guesses or more, and of
    guesses [n] with their means, rounded down. Returns their number.
    """
    record, count = mean_guesses(puzzle, orders, 0.0, peers, units), 0
    trial = puzzle.copy()
    for _ in range(found.shape[0]):
        trial[:] = puzzle
        exchange_clues(state, trial, peers, units)
        needed = _KEPT * record
        if mean_guesses(trial, orders[:1], needed, peers, units) == 0.0:
            continue
        remove_clues(state, trial, peers, units)
        reached = mean_guesses(trial, orders, needed, peers, units)
        if reached < needed or np.all(trial == puzzle):
            continue
        puzzle[:] = trial
        record = max(record, reached)
        if reached >= least:
            found[count] = puzzle
            guesses[count] = int(reached)
            count += 1
    return count
