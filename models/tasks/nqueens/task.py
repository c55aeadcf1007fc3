"""N-Queens completion: given some queens, place the others so that no two share a row, a column or a diagonal."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Task, Tokens
from gram.models.tasks.nqueens.codec import EMPTY, QUEEN, UNKNOWN, Codec, attack
from gram.models.tasks.nqueens.files import find_boards
from gram.models.tasks.symmetry import Symmetries


class NQueens(Task):
    """A puzzle is an n x n board with some queens given; every other square is unknown.

    The puzzles of the benchmark, as in the paper, have 1 to 3 queens given. Training also sees the empty board, from which the
    model generates, and a few with more queens, so that the model answers any board that a user may send.
    """

    files = [
        "Boards of n lines, one below the other, with drawn lines or without.",
        "Facts of a program, a line each: queen(ROW, COLUMN).",
        "Comments, which begin with '#' or '%'.",
    ]
    vocab_size = 3
    num_draws = 1
    benchmark_given = (1, 2, 3)
    empty_share, other_share = 0.1, 0.1
    """The shares of training puzzles that are the empty board, and that are others outside of the benchmark."""

    def __init__(self, size: int, paper: dict[str, float], held_out_every: int = 7) -> None:
        """One orbit of puzzles in `held_out_every` is held out."""
        self.size = size
        self.held_out_every = held_out_every
        self.name = f"nqueens-{size}"
        self.title = f"{size}x{size} N-Queens: complete the board to {size} queens, none attacking another."
        self.seq_len = size * size
        self.paper = paper
        self.codec = Codec(size)
        self.formats = self.codec.formats
        self.examples = self.codec.spellings([(1, 6), (4, 0)])

    @property
    def blank(self) -> Tokens:
        return np.full(self.seq_len, UNKNOWN)

    def parse(self, puzzle: object) -> Tokens:
        return self.codec.parse(puzzle)

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        return find_boards(self.codec, lines)

    def text(self, tokens: Tokens) -> str:
        return self.codec.text(tokens)

    def grid(self, tokens: Tokens) -> list[list[int]]:
        return self.codec.grid(tokens)

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        squares = [divmod(int(i), self.size) for i in np.flatnonzero(answer == QUEEN)]
        whole = len(squares) == self.size and not np.any(answer == UNKNOWN)
        given_stand = np.all(answer[puzzle == QUEEN] == QUEEN)
        return bool(whole and given_stand) and not any(attack(a, b) for a, b in itertools.combinations(squares, 2))

    def solutions(self, puzzle: Tokens) -> Tokens:
        return self.boards[self._queens[:, puzzle == QUEEN].all(axis=1)]

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:
        """The board's rotations and mirror images."""
        return replace(super().symmetries(puzzles, draws), cells=self._images[(draws[:, 0] * len(self._images)).astype(int)])

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        benchmark, others = self._benchmark_split[0], self._other_puzzles
        puzzles = benchmark[rng.integers(len(benchmark), size=count)]
        kind = rng.random(count)
        puzzles[kind < self.empty_share] = self.blank
        for i in np.flatnonzero(kind >= 1 - self.other_share):
            group = others[rng.integers(len(others))]
            puzzles[i] = group[rng.integers(len(group))]
        answers = [rng.choice(self.solutions(puzzle)) for puzzle in puzzles]
        return puzzles, np.stack(answers)

    @cached_property
    def held_out(self) -> Tokens:
        return self._benchmark_split[1]

    @cached_property
    def boards(self) -> Tokens:
        """All complete boards [n, N], in lexical order."""
        found: list[list[int]] = []

        def place(columns: list[int]) -> None:
            row = len(columns)
            if row == self.size:
                found.append(columns)
                return
            taken = {c + step * (row - r) for r, c in enumerate(columns) for step in (-1, 0, 1)}
            for column in sorted(set(range(self.size)) - taken):
                place([*columns, column])

        place([])
        boards = np.full((len(found), self.size, self.size), EMPTY)
        boards[np.arange(len(found))[:, None], np.arange(self.size), np.array(found)] = QUEEN
        return boards.reshape(len(found), -1)

    @cached_property
    def _benchmark_split(self) -> tuple[Tokens, Tokens]:
        """The puzzles of the benchmark: those to train on, and those held out, both [n, N].

        They are split by orbit, so a puzzle and its symmetric images stay together. The orbits are ordered by given queens,
        then by number of solutions, then by a hash, and one in `held_out_every` is held out. So both sides are equally
        difficult.
        """
        orbits: dict[bytes, list[Tokens]] = {}
        for given in self.benchmark_given:
            puzzles = self._puzzles(given)
            for puzzle, orbit in zip(puzzles.astype(np.int64), self._orbits(puzzles), strict=True):
                orbits.setdefault(orbit, []).append(puzzle)

        def rank(orbit: bytes) -> tuple[int, int, bytes]:
            puzzle = orbits[orbit][0]
            return int(np.sum(puzzle == QUEEN)), len(self.solutions(puzzle)), hashlib.sha256(orbit).digest()

        train: list[Tokens] = []
        held_out: list[Tokens] = []
        for i, orbit in enumerate(sorted(orbits, key=rank)):
            (held_out if i % self.held_out_every == self.held_out_every // 2 else train).extend(orbits[orbit])
        return np.stack(train), np.stack(held_out)

    @cached_property
    def _other_puzzles(self) -> list[NDArray[np.uint8]]:
        """The solvable puzzles outside the benchmark, [n, N] for each number of given queens; as bytes, since they are many."""
        return [self._puzzles(given) for given in range(self.size) if given not in self.benchmark_given]

    @cached_property
    def _queens(self) -> NDArray[np.bool_]:
        """Where the queens of each complete board stand [n, N]."""
        queens: NDArray[np.bool_] = self.boards == QUEEN
        return queens

    def _puzzles(self, given: int) -> NDArray[np.uint8]:
        """All solvable puzzles with this many queens given [n, N], in the order of their squares."""
        squares = np.nonzero(self._queens)[1].reshape(len(self.boards), self.size)
        base = self.seq_len ** np.arange(given)[::-1]
        chosen = [np.array(queens, int) for queens in itertools.combinations(range(self.size), given)]
        numbers = np.unique(np.concatenate([squares[:, queens] @ base for queens in chosen]))  # one number for each puzzle
        puzzles = np.full((len(numbers), self.seq_len), UNKNOWN, np.uint8)
        np.put_along_axis(puzzles, numbers[:, None] // base % self.seq_len, QUEEN, axis=1)
        return puzzles

    def _orbits(self, puzzles: NDArray[np.uint8]) -> list[bytes]:
        """The smallest of the eight symmetric images of each puzzle [n, N], which names its orbit."""
        return [min(image.tobytes() for image in puzzle[self._images]) for puzzle in puzzles]

    @cached_property
    def _images(self) -> Tokens:
        """The square that each square shows in each of the board's eight images [8, N]."""
        board = np.arange(self.seq_len).reshape(self.size, self.size)
        return np.stack([np.rot90(side, turns).ravel() for side in (board, board.T) for turns in range(4)])
