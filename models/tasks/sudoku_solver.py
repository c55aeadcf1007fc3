"""Sudoku, compiled: an exact solver, random boards, minimal puzzles and the hash that names a puzzle's symmetry class.

The solver knows candidates (a bit mask for each cell) and two rules, naked and hidden singles, applied until nothing more
follows; then it guesses in the cell of fewest candidates. What the rules leave does not depend on their order, so the count
of guesses is a property of the puzzle as written; images of it, whose cells and digits come in another order, may take more
or fewer. All random draws come from a splitmix64 stream of integers for each item, so they repeat on every machine and with
any number of threads.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Tokens

Hashes = NDArray[np.uint64]

_Function = TypeVar("_Function", bound=Callable[..., Any])
CHUNK = 256
_WISH_BUDGET = 1000
_HASH_ROUNDS = 6
_COUNT = np.array([mask.bit_count() for mask in range(1 << 9)])
_MOST_WAYS = {4: 384.0, 6: 79626240.0, 9: 5e22}
"""What `_random_board` takes for the rarest board. For n of 4 and 6 it is the rarest one found in a million draws; 9x9 has
boards four times as rare, which are drawn too seldom so that a draw takes 0.2 ms: 4 % of the probability goes elsewhere."""


def _compiled(function: _Function) -> _Function:
    """Compiled without the interpreter's lock, and kept on disk where a folder for that can be written."""
    try:
        return cast(_Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(_Function, numba.njit(nogil=True)(function))


class Minimal(NamedTuple):
    """Minimal puzzles: each has one solution and loses that with any clue."""

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
        found, _ = _solve(_plain(board), solutions, self._peers, self._units)
        return solutions[:found]

    def guesses(self, board: Tokens) -> int:
        """The difficulty: guesses (assignments tried) until the search for two solutions of a board [N] is exhausted."""
        two = np.empty((2, board.size), dtype=np.int64)
        return _solve(_plain(board), two, self._peers, self._units)[1]

    def complete(self, board: Tokens, cells: Tokens, digits: Tokens) -> Tokens:
        """The valid full board [N] that keeps a board's clues [N] and, greedily, ranked wishes: digits [W] in cells [W].

        A wish, the most confident first, is kept if some valid board has it with the clues and all wishes kept before.
        (One for which no board is found in 1000 guesses is dropped.) Raises ValueError where the clues have no solution.
        """
        full = np.empty(board.size, dtype=np.int64)
        if not _complete(_plain(board), _plain(cells), _plain(digits), full, self._peers, self._units):
            raise ValueError("no valid board keeps these clues")
        return full

    def random_boards(self, seed: int, count: int) -> Tokens:
        """Random full boards [count, N]: uniform for n of 4 and 6, within 5 % of the probability for 9 (see `_MOST_WAYS`)."""
        boards = np.zeros((count, self.size**2), dtype=np.int64)
        _random_boards(np.uint64(seed), boards, _MOST_WAYS[self.size], self._peers, self._units)
        return boards

    def minimal_puzzles(self, seed: int, count: int, first: int = 0) -> Minimal:
        """Minimal puzzles `first` to `first + count` of the endless series of this seed.

        Each is a random board from which clues are taken, in a random order, wherever the solution stays the only one.
        """
        puzzles = np.zeros((count, self.size**2), dtype=np.int64)
        boards, guesses = np.zeros_like(puzzles), np.zeros(count, dtype=np.int64)
        most_ways = _MOST_WAYS[self.size]
        _minimal_puzzles(np.uint64(seed), np.uint64(first), puzzles, boards, guesses, most_ways, self._peers, self._units)
        return Minimal(puzzles, boards, guesses)

    def minimal_series(self, seed: int) -> Iterator[Minimal]:
        """The endless series of a seed in chunks of 256, made by as many threads as there are cores."""
        workers = os.cpu_count() or 1  # numba.get_num_threads() would set torch's number of threads, too
        with ThreadPoolExecutor(workers) as pool:
            for chunk in itertools.count(step=workers):
                starts = [CHUNK * (chunk + worker) for worker in range(workers)]
                yield from pool.map(lambda start: self.minimal_puzzles(seed, CHUNK, start), starts)

    def class_hashes(self, boards: Tokens) -> Hashes:
        """A hash for each board [..., N] that is the same for all its symmetric images -> [...].

        The symmetries: other names for the digits, the bands and the rows in a band in another order, the stacks and
        columns likewise and, where boxes are square, the transposition. (Boards that are no images of each other nearly
        always differ, but it is no proof of a symmetry.)
        """
        flat = boards.reshape(-1, self.size**2)
        return _class_hashes(_plain(flat), self.size, self.box_rows).reshape(boards.shape[:-1])


def _plain(array: Tokens) -> Tokens:
    """Of the one type and layout that is compiled for."""
    return np.ascontiguousarray(array, dtype=np.int64)


# --- search


@_compiled
def _propagate(candidates: Tokens, queue: Tokens, queued: int, peers: Tokens, units: Tokens) -> bool:
    """Follow naked and hidden singles to the end, from the queued cells of one candidate; False is a contradiction.

    A cell enters the queue when its second last candidate goes, so it enters once.
    """
    size = units.shape[1]
    full = (1 << size) - 1
    while True:
        while queued:
            queued -= 1
            cell = queue[queued]
            bit = candidates[cell]
            for k in range(peers.shape[1]):
                peer = peers[cell, k]
                if candidates[peer] & bit:
                    rest = candidates[peer] ^ bit
                    candidates[peer] = rest
                    if rest == 0:
                        return False
                    if rest & (rest - 1) == 0:
                        queue[queued] = peer
                        queued += 1
        for unit in range(units.shape[0]):
            once, twice, placed = 0, 0, 0
            for k in range(size):
                mask = candidates[units[unit, k]]
                twice |= once & mask
                once |= mask
                if mask & (mask - 1) == 0:
                    placed |= mask
            if once != full:
                return False
            hidden = once & ~twice & ~placed
            if hidden:
                for k in range(size):
                    cell = units[unit, k]
                    bit = candidates[cell] & hidden
                    if bit:
                        if bit & (bit - 1):
                            return False
                        candidates[cell] = bit
                        queue[queued] = cell
                        queued += 1
                break
        if queued == 0:
            return True


@_compiled
def _load(board: Tokens, candidates: Tokens, queue: Tokens, units: Tokens) -> int:
    """Write the candidates that the clues leave; returns how many cells it queued, or -1 where clues repeat a digit."""
    size = units.shape[1]
    full = (1 << size) - 1
    candidates[:] = full
    for unit in range(units.shape[0]):
        used = 0
        for k in range(size):
            digit = board[units[unit, k]]
            if digit:
                bit = 1 << (digit - 1)
                if used & bit:
                    return -1
                used |= bit
        for k in range(size):
            candidates[units[unit, k]] &= ~used
    queued = 0
    for cell in range(board.size):
        mask = candidates[cell]
        if board[cell]:
            candidates[cell] = 1 << (board[cell] - 1)
        elif mask == 0:
            return -1
        elif mask & (mask - 1) == 0:
            queue[queued] = cell
            queued += 1
    return queued


@_compiled
def _fewest(candidates: Tokens) -> int:
    """The cell of the fewest candidates above one, the first of such; -1 if all are decided."""
    best, fewest = -1, 99
    for cell in range(candidates.size):
        count = _COUNT[candidates[cell]]
        if 1 < count < fewest:
            best, fewest = cell, count
            if count == 2:
                break
    return best


@_compiled
def _digit(mask: int) -> int:
    """The lowest digit of a mask."""
    return int(_COUNT[(mask & -mask) - 1]) + 1


@_compiled
def _search(
    stack: Tokens, queue: Tokens, queued: int, solutions: Tokens, budget: int, peers: Tokens, units: Tokens
) -> tuple[int, int]:
    """Depth first from the candidates in stack[0] [N + 1, N]; fills solutions [limit, N] and returns (found, guesses)."""
    guesses, found = 0, 0
    cells = np.empty(stack.shape[0], dtype=np.int64)
    left = np.empty(stack.shape[0], dtype=np.int64)
    depth = -1
    sound = _propagate(stack[0], queue, queued, peers, units)
    while True:
        if sound:
            cell = _fewest(stack[depth + 1])
            if cell >= 0:
                depth += 1
                cells[depth] = cell
                left[depth] = stack[depth, cell]
            else:
                for k in range(stack.shape[1]):
                    solutions[found, k] = _digit(stack[depth + 1, k])
                found += 1
                if found == solutions.shape[0]:
                    return found, guesses
        while depth >= 0 and left[depth] == 0:
            depth -= 1
        if depth < 0 or guesses == budget:
            return found, guesses
        bit = left[depth] & -left[depth]
        left[depth] ^= bit
        guesses += 1
        for k in range(stack.shape[1]):
            stack[depth + 1, k] = stack[depth, k]
        stack[depth + 1, cells[depth]] = bit
        queue[0] = cells[depth]
        sound = _propagate(stack[depth + 1], queue, 1, peers, units)


@_compiled
def _solve(board: Tokens, solutions: Tokens, peers: Tokens, units: Tokens) -> tuple[int, int]:
    stack = np.empty((board.size + 1, board.size), dtype=np.int64)
    queue = np.empty(board.size, dtype=np.int64)
    queued = _load(board, stack[0], queue, units)
    if queued < 0 or solutions.shape[0] == 0:
        return 0, 0
    return _search(stack, queue, queued, solutions, -1, peers, units)


@_compiled
def _complete(board: Tokens, cells: Tokens, digits: Tokens, full: Tokens, peers: Tokens, units: Tokens) -> bool:
    """Write the completed board to `full`, which at every moment is a valid board with all that is kept so far."""
    stack = np.empty((board.size + 1, board.size), dtype=np.int64)
    queue = np.empty(board.size, dtype=np.int64)
    witness = np.empty((1, board.size), dtype=np.int64)
    found, _ = _solve(board, witness, peers, units)
    if not found:
        return False
    kept = np.empty(board.size, dtype=np.int64)
    _propagate(kept, queue, _load(board, kept, queue, units), peers, units)
    full[:] = witness[0]
    for wish in range(cells.size):
        cell, bit = cells[wish], 1 << (digits[wish] - 1)
        if kept[cell] == bit or not kept[cell] & bit:
            continue
        queue[0] = cell
        if full[cell] != digits[wish]:
            stack[0] = kept
            stack[0, cell] = bit
            found, _ = _search(stack, queue, 1, witness, _WISH_BUDGET, peers, units)
            if not found:
                continue
            full[:] = witness[0]
            queue[0] = cell
        kept[cell] = bit
        _propagate(kept, queue, 1, peers, units)
    return True


# --- random boards and puzzles


@_compiled
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@_compiled
def _below(state: Hashes, bound: int) -> int:
    """The next random integer from 0 to bound - 1 of a stream, whose state [1] moves on."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    return int(((_mix(state[0]) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@_compiled
def _stream(seed: np.uint64, index: np.uint64) -> Hashes:
    state = np.empty(1, dtype=np.uint64)
    state[0] = _mix(_mix(seed + np.uint64(0x9E3779B97F4A7C15)) + index)
    return state


@_compiled
def _random_board(state: Hashes, board: Tokens, most_ways: float, peers: Tokens, units: Tokens) -> None:
    """Write a random full board: guess at random, start again at a contradiction.

    The next cell to guess follows from the board so far, so each board comes of one row of guesses, with the probability
    1 / ways, where ways is the product of their numbers of candidates. To keep it with a probability proportional to
    ways makes all boards of up to `most_ways` equally likely.
    """
    full = (1 << units.shape[1]) - 1
    candidates = np.empty(board.size, dtype=np.int64)
    queue = np.empty(board.size, dtype=np.int64)
    while True:
        candidates[:] = full
        ways = 1.0
        cell = 0
        while cell >= 0:
            mask = candidates[cell]
            ways *= _COUNT[mask]
            for _ in range(_below(state, _COUNT[mask])):
                mask &= mask - 1
            candidates[cell] = mask & -mask
            queue[0] = cell
            if not _propagate(candidates, queue, 1, peers, units):
                break
            cell = _fewest(candidates)
        if cell < 0 and _below(state, 1 << 30) < ways / most_ways * (1 << 30):
            for k in range(board.size):
                board[k] = _digit(candidates[k])
            return


@_compiled
def _random_boards(seed: np.uint64, boards: Tokens, most_ways: float, peers: Tokens, units: Tokens) -> None:
    for i in range(boards.shape[0]):
        _random_board(_stream(seed, np.uint64(i)), boards[i], most_ways, peers, units)


@_compiled
def _dig(state: Hashes, puzzle: Tokens, peers: Tokens, units: Tokens) -> None:
    """Take clues from a full board [N], in place, in a random order, wherever no second solution appears."""
    stack = np.empty((puzzle.size + 1, puzzle.size), dtype=np.int64)
    queue = np.empty(puzzle.size, dtype=np.int64)
    other = np.empty((1, puzzle.size), dtype=np.int64)
    order = np.arange(puzzle.size)
    for i in range(puzzle.size):
        j = i + _below(state, puzzle.size - i)
        order[i], order[j] = order[j], order[i]
        cell = order[i]
        digit = puzzle[cell]
        puzzle[cell] = 0
        queued = _load(puzzle, stack[0], queue, units)
        mask = stack[0, cell] ^ (1 << (digit - 1))  # a second solution differs here, since with this clue there was one
        if mask == 0:
            continue
        stack[0, cell] = mask
        if mask & (mask - 1) == 0:
            queue[queued] = cell
            queued += 1
        found, _ = _search(stack, queue, queued, other, -1, peers, units)
        if found:
            puzzle[cell] = digit


@_compiled
def _minimal_puzzles(
    seed: np.uint64,
    first: np.uint64,
    puzzles: Tokens,
    boards: Tokens,
    guesses: Tokens,
    most_ways: float,
    peers: Tokens,
    units: Tokens,
) -> None:
    two = np.empty((2, puzzles.shape[1]), dtype=np.int64)
    for i in range(puzzles.shape[0]):
        state = _stream(seed, first + np.uint64(i))
        _random_board(state, boards[i], most_ways, peers, units)
        puzzles[i] = boards[i]
        _dig(state, puzzles[i], peers, units)
        _, guesses[i] = _solve(puzzles[i], two, peers, units)


# --- symmetry classes


@_compiled
def _class_hashes(boards: Tokens, size: int, box_rows: int) -> Hashes:
    """Colour refinement: rows, columns, boxes and digits take colours from the clues in them, and clues from those.

    Colours are added up over the things that a symmetry may permute, so their order does not count.
    """
    box_columns = size // box_rows
    sides = 2 if box_rows == box_columns else 1
    hashes = np.zeros(boards.shape[0], dtype=np.uint64)
    for i in range(boards.shape[0]):
        for side in range(sides):
            colours = np.ones((4, size), dtype=np.uint64)
            for _ in range(_HASH_ROUNDS):
                sums = np.zeros((4, size), dtype=np.uint64)
                for cell in range(boards.shape[1]):
                    if boards[i, cell] == 0:
                        continue
                    row, column = cell // size, cell % size
                    if side:
                        row, column = column, row
                    box = row // box_rows * box_rows + column // box_columns
                    digit = boards[i, cell] - 1
                    clue = _mix(colours[0, row] + np.uint64(1))
                    clue = _mix(clue + colours[1, column])
                    clue = _mix(clue + colours[2, box])
                    clue = _mix(clue + colours[3, digit])
                    sums[0, row] += clue
                    sums[1, column] += clue
                    sums[2, box] += clue
                    sums[3, digit] += clue
                for kind in range(4):
                    for k in range(size):
                        colours[kind, k] = _mix(sums[kind, k] + colours[kind, k])
                for kind, height in ((0, box_rows), (1, box_columns)):
                    for start in range(0, size, height):
                        together = np.uint64(0)
                        for k in range(start, start + height):
                            together += _mix(colours[kind, k])
                        for k in range(start, start + height):
                            colours[kind, k] = _mix(colours[kind, k] + together)
            total = np.uint64(0)
            for kind in range(4):
                for k in range(size):
                    total += _mix(colours[kind, k] + np.uint64(kind))
            hashes[i] += _mix(total)
    return hashes
