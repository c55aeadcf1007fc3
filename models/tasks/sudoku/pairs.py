"""Training pairs of Sudoku: a pool of minimal puzzles, and how a pair is drawn from it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gram.models.tasks.base import Tokens
from gram.models.tasks.sudoku.codec import BLANK

if TYPE_CHECKING:
    from gram.models.tasks.sudoku.solver import Minimal, Solver

_POOL_SEED = 0
HARD_GUESSES = 20
"""A puzzle is hard if the solver makes this many guesses on it as it was made. Its images take another number: 17 on average,
where the images of any minimal puzzle take 4."""
_CLIMBED_SHARE = 1 / 3
"""The share of the hard pairs whose puzzles come from climbs."""
_OF_A_CLIMB = 32
"""The most puzzles of one climb in the pool. They share clues."""
CLIMB_IMAGES = 32
"""The images over which a climb averages a puzzle's guesses."""


@dataclass
class PairPool:
    """Minimal puzzles with their boards, and the share of each kind of pair.

    `hard_share` of the pairs are hard puzzles, a third of which come from climbs. Half of the others are minimal ones, and half
    are minimal ones with clues added back, up to `most_clues`. `name` is for the progress bar; `boards`: all boards [n, N] of a
    size that has few, else None; `orders`: the orders of the cells [R, N] in which climbs measure puzzles.
    """

    name: str
    solver: "Solver"
    boards: Tokens | None
    size: int
    hard_share: float
    most_clues: int
    climbed_size: int
    orders: Tokens

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Puzzles and their boards, both [count, N], held-out ones included."""
        kind = rng.random(count)
        index = rng.integers(len(self.minimal.puzzles), size=count)
        hard = np.flatnonzero(kind < self.hard_share)
        if len(hard):
            index[hard] = self._hard[rng.integers(len(self._hard), size=len(hard))]
        puzzles, boards = self.minimal.puzzles[index].astype(np.int64), self.minimal.boards[index].astype(np.int64)
        extreme = np.flatnonzero(kind < self.hard_share * _CLIMBED_SHARE)
        if len(extreme):
            index = rng.integers(len(self.climbed.puzzles), size=len(extreme))
            puzzles[extreme], boards[extreme] = self.climbed.puzzles[index], self.climbed.boards[index]
        clues = np.sum(puzzles != BLANK, axis=1)
        more = kind > (1 + self.hard_share) / 2
        wanted = np.where(more, rng.integers(clues, self.most_clues, endpoint=True), clues)
        return add_clues(rng, puzzles, boards, wanted), boards

    @cached_property
    def minimal(self) -> "Minimal":
        """The minimal puzzles of the pool, made on first use and the same in every process; bytes if they are many."""
        from tqdm import tqdm

        from gram.models.tasks.sudoku.solver import CHUNK, Minimal

        if self.boards is not None:
            return _all_minimal(self.boards)
        chunks = -(-self.size // CHUNK)
        series = itertools.islice(self.solver.minimal_series(_POOL_SEED), chunks)
        bar = tqdm(series, desc=f"{self.name}: minimal puzzles", total=chunks, unit="puzzle", unit_scale=CHUNK)
        parts = [(puzzles.astype(np.uint8), boards.astype(np.uint8), guesses) for puzzles, boards, guesses in bar]
        return Minimal(*(np.concatenate(part)[: self.size] for part in zip(*parts, strict=True)))

    @cached_property
    def climbed(self) -> "Minimal":
        """The pool's puzzles from climbs, made on first use and the same in every process."""
        from tqdm import tqdm

        from gram.models.tasks.sudoku.solver import Minimal

        rows = itertools.islice(self._climbs(), self.climbed_size)
        bar = tqdm(rows, desc=f"{self.name}: climbed puzzles", total=self.climbed_size, unit="puzzle")
        return Minimal(*(np.array(column) for column in zip(*bar, strict=True)))

    def _climbs(self) -> Iterator[tuple[Tokens, Tokens, np.int64]]:
        """Puzzles from climbs, without end: of each climb a few, spread over it, with their boards and guesses."""
        for climb in self.solver.climbed_series(_POOL_SEED, self.orders):
            found = len(climb.puzzles)
            for place in np.linspace(0, found, min(found, _OF_A_CLIMB), endpoint=False, dtype=int):
                yield climb.puzzles[place], climb.boards[place], climb.guesses[place]

    @cached_property
    def _hard(self) -> Tokens:
        """The places of the hard puzzles in the pool."""
        return np.flatnonzero(self.minimal.guesses >= HARD_GUESSES)


def _all_minimal(full: Tokens) -> "Minimal":
    """All minimal puzzles of a size as small as 4x4, whose boards are `full` [n, N].

    A set of cells singles a board out unless another board agrees with it in all of them.
    """
    from gram.models.tasks.sudoku.solver import Minimal

    bits = 1 << np.arange(full.shape[1])
    puzzles, boards = [], []
    for board in full:
        unique = np.ones(1 << full.shape[1], dtype=bool)
        agreeing = (full == board) @ bits
        unique[agreeing[agreeing < len(unique) - 1]] = False
        for bit in bits:
            without, having = unique.reshape(-1, 2, bit).swapaxes(0, 1)
            without &= having
        minimal = unique.copy()
        for bit in bits:
            minimal.reshape(-1, 2, bit)[:, 1] &= ~unique.reshape(-1, 2, bit)[:, 0]
        clues = (np.flatnonzero(minimal)[:, None] & bits) > 0
        puzzles.append(board * clues)
        boards.append(np.broadcast_to(board, clues.shape))
    return Minimal(np.concatenate(puzzles), np.concatenate(boards), np.zeros(sum(map(len, puzzles)), dtype=np.int64))


def add_clues(rng: np.random.Generator, puzzles: Tokens, boards: Tokens, clues: Tokens) -> Tokens:
    """Add random cells of the solutions [B, N] to puzzles [B, N] until they have the given numbers of clues [B]."""
    order = rng.random(puzzles.shape) - (puzzles != BLANK)  # the clues come first
    return np.where(order.argsort(axis=1).argsort(axis=1) < clues[:, None], boards, BLANK)
