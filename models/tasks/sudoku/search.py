"""The exact search, random boards and minimal puzzles, compiled.

The search knows the candidates of each cell, as a bit mask, and two rules, naked and hidden singles, which it applies until
nothing more follows. Then it guesses in the cell with the fewest candidates. What the rules leave does not depend on their
order, so the number of guesses is a property of the puzzle as it is written. Images of it, whose cells and digits come in
another order, may take more or fewer. Random draws come from a splitmix64 stream of integers for each item, so they repeat on
every machine and with any number of threads.

Functions here take boards int64 [N] of n digits on N = n * n cells; peers [N, P]: the cells that share a unit with each cell;
units [3n, n]: the cells of each row, column and box. They stand in one module because numba's cache on disk does not notice a
change of a function in another one.
"""

import numpy as np

from gram.models.tasks.base import Tokens
from gram.models.tasks.sudoku.compiled import Hashes, compiled, mix

_COUNT = np.array([mask.bit_count() for mask in range(1 << 9)])
"""The number of candidates in each mask."""

_WISH_BUDGET = 1000
"""Guesses after which a wish is dropped."""


@compiled
def propagate(candidates: Tokens, queue: Tokens, queued: int, peers: Tokens, units: Tokens) -> bool:
    """Follow naked and hidden singles to the end, from the queued cells that have one candidate left.

    Returns False for a contradiction. A cell enters the queue when its second last candidate goes, so it enters once.
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


@compiled
def load_candidates(board: Tokens, candidates: Tokens, queue: Tokens, units: Tokens) -> int:
    """Write the candidates that the clues leave. Returns the number of queued cells, or -1 for a contradiction."""
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


@compiled
def fewest_candidates(candidates: Tokens) -> int:
    """The first cell with the fewest candidates above one; -1 if all cells are decided."""
    best, fewest = -1, 99
    for cell in range(candidates.size):
        count = _COUNT[candidates[cell]]
        if 1 < count < fewest:
            best, fewest = cell, count
            if count == 2:
                break
    return best


@compiled
def lowest_digit(mask: int) -> int:
    """The lowest digit in a mask of candidates."""
    return int(_COUNT[(mask & -mask) - 1]) + 1


@compiled
def search(
    stack: Tokens, queue: Tokens, queued: int, solutions: Tokens, budget: int, peers: Tokens, units: Tokens
) -> tuple[int, int]:
    """Search depth first from the candidates in stack[0]; stack is [N + 1, N].

    Fills solutions [limit, N] and returns (solutions found, guesses made). It gives up after `budget` guesses; -1: never.
    """
    guesses, found = 0, 0
    cells = np.empty(stack.shape[0], dtype=np.int64)
    left = np.empty(stack.shape[0], dtype=np.int64)
    depth = -1
    sound = propagate(stack[0], queue, queued, peers, units)
    while True:
        if sound:
            cell = fewest_candidates(stack[depth + 1])
            if cell >= 0:
                depth += 1
                cells[depth] = cell
                left[depth] = stack[depth, cell]
            else:
                for k in range(stack.shape[1]):
                    solutions[found, k] = lowest_digit(stack[depth + 1, k])
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
        sound = propagate(stack[depth + 1], queue, 1, peers, units)


@compiled
def solve_board(board: Tokens, solutions: Tokens, budget: int, peers: Tokens, units: Tokens) -> tuple[int, int]:
    """Fill solutions [limit, N] with the first solutions of a board, by `search`; returns (solutions found, guesses made)."""
    stack = np.empty((board.size + 1, board.size), dtype=np.int64)
    queue = np.empty(board.size, dtype=np.int64)
    queued = load_candidates(board, stack[0], queue, units)
    if queued < 0 or solutions.shape[0] == 0:
        return 0, 0
    return search(stack, queue, queued, solutions, budget, peers, units)


@compiled
def complete_board(board: Tokens, cells: Tokens, digits: Tokens, full: Tokens, peers: Tokens, units: Tokens) -> bool:
    """Write the completed board to `full`, which is a valid board with the wishes kept so far at every moment."""
    stack = np.empty((board.size + 1, board.size), dtype=np.int64)
    queue = np.empty(board.size, dtype=np.int64)
    witness = np.empty((1, board.size), dtype=np.int64)
    found, _ = solve_board(board, witness, -1, peers, units)
    if not found:
        return False
    kept = np.empty(board.size, dtype=np.int64)
    propagate(kept, queue, load_candidates(board, kept, queue, units), peers, units)
    full[:] = witness[0]
    for wish in range(cells.size):
        cell, bit = cells[wish], 1 << (digits[wish] - 1)
        if kept[cell] == bit or not kept[cell] & bit:
            continue
        queue[0] = cell
        if full[cell] != digits[wish]:
            stack[0] = kept
            stack[0, cell] = bit
            found, _ = search(stack, queue, 1, witness, _WISH_BUDGET, peers, units)
            if not found:
                continue
            full[:] = witness[0]
            queue[0] = cell
        kept[cell] = bit
        propagate(kept, queue, 1, peers, units)
    return True


# --- random boards and puzzles


@compiled
def random_below(state: Hashes, bound: int) -> int:
    """The next random integer from 0 to bound - 1 of a stream; advances its state [1]."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    return int(((mix(state[0]) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@compiled
def random_stream(seed: np.uint64, index: np.uint64) -> Hashes:
    """The state [1] of the random stream of an item of a seed."""
    state = np.empty(1, dtype=np.uint64)
    state[0] = mix(mix(seed + np.uint64(0x9E3779B97F4A7C15)) + index)
    return state


@compiled
def random_board(state: Hashes, board: Tokens, most_ways: float, peers: Tokens, units: Tokens) -> None:
    """Write a random full board: guess at random, and start again after a contradiction.

    The next cell to guess follows from the board so far, so each board comes from exactly one sequence of guesses, with
    probability 1 / ways, where ways is the product of the numbers of candidates. Keeping it with a probability proportional to
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
            for _ in range(random_below(state, _COUNT[mask])):
                mask &= mask - 1
            candidates[cell] = mask & -mask
            queue[0] = cell
            if not propagate(candidates, queue, 1, peers, units):
                break
            cell = fewest_candidates(candidates)
        if cell < 0 and random_below(state, 1 << 30) < ways / most_ways * (1 << 30):
            for k in range(board.size):
                board[k] = lowest_digit(candidates[k])
            return


@compiled
def fill_random_boards(seed: np.uint64, boards: Tokens, most_ways: float, peers: Tokens, units: Tokens) -> None:
    """Fill boards [n, N] with random full boards."""
    for i in range(boards.shape[0]):
        random_board(random_stream(seed, np.uint64(i)), boards[i], most_ways, peers, units)


@compiled
def remove_clues(state: Hashes, puzzle: Tokens, peers: Tokens, units: Tokens) -> None:
    """Take clues from a puzzle [N] with one solution, in place and in a random order, wherever no second one appears."""
    stack = np.empty((puzzle.size + 1, puzzle.size), dtype=np.int64)
    queue = np.empty(puzzle.size, dtype=np.int64)
    other = np.empty((1, puzzle.size), dtype=np.int64)
    order = np.arange(puzzle.size)
    for i in range(puzzle.size):
        j = i + random_below(state, puzzle.size - i)
        order[i], order[j] = order[j], order[i]
        cell = order[i]
        digit = puzzle[cell]
        if digit == 0:
            continue
        puzzle[cell] = 0
        queued = load_candidates(puzzle, stack[0], queue, units)
        mask = stack[0, cell] ^ (1 << (digit - 1))  # with this clue there was one solution, so a second one differs here
        if mask == 0:
            continue
        stack[0, cell] = mask
        if mask & (mask - 1) == 0:
            queue[queued] = cell
            queued += 1
        found, _ = search(stack, queue, queued, other, -1, peers, units)
        if found:
            puzzle[cell] = digit


@compiled
def fill_minimal_puzzles(
    seed: np.uint64,
    first: np.uint64,
    puzzles: Tokens,
    boards: Tokens,
    guesses: Tokens,
    most_ways: float,
    peers: Tokens,
    units: Tokens,
) -> None:
    """Fill puzzles and boards [n, N], and guesses [n], with the minimal puzzles of a seed from `first` on."""
    two = np.empty((2, puzzles.shape[1]), dtype=np.int64)
    for i in range(puzzles.shape[0]):
        state = random_stream(seed, first + np.uint64(i))
        random_board(state, boards[i], most_ways, peers, units)
        puzzles[i] = boards[i]
        remove_clues(state, puzzles[i], peers, units)
        _, guesses[i] = solve_board(puzzles[i], two, -1, peers, units)
