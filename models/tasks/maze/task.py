"""Mazes: draw a shortest path from the start to the goal."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import MOST_COUNTED, Task, Tokens, cell_name
from gram.models.tasks.maze.codec import Codec
from gram.models.tasks.maze.files import FILES, find_mazes
from gram.models.tasks.maze.generator import random_maze
from gram.models.tasks.maze.paths import PATH, SPACE, is_shortest, paths_of
from gram.models.tasks.symmetry import Symmetries, Words, mix

_SOLUTIONS = {1: "1", 4: "2-4", 19: "5-19", MOST_COUNTED - 1: f"20-{MOST_COUNTED - 1}", MOST_COUNTED: f"{MOST_COUNTED}+"}
"""The bands in which evaluation counts mazes, by the most shortest paths in each."""


class Maze(Task):
    """A square of n x n cells, row by row; N = n * n. Its symbols are HRM's and TRM's without their padding.

    An answer is the maze with the cells of a shortest path between the start and the goal drawn. Any shortest path is right.
    Training mazes are random, and have any number of shortest paths. An eighth of all mazes, told by a hash that a maze shares
    with its images, is held out.
    """

    files = FILES
    lists_solutions = False
    vocab_size = 5
    paper: dict[str, float] = {}
    held_out_every = 8
    most_targets = 64
    """Training spreads the targets of one maze over its shortest paths, if they are no more than this."""
    num_draws = 1

    def __init__(self, size: int, held_out_count: int = 400) -> None:
        self.size = size
        self.held_out_count = held_out_count
        self.name = f"maze-{size}x{size}"
        self.title = f"{size}x{size} maze: draw a shortest path from S to G."
        self.seq_len = size * size
        self.codec = Codec(size)
        self.formats = self.codec.formats
        cells = np.arange(self.seq_len).reshape(size, size)
        turned = [np.rot90(square, turns) for square in (cells, cells.T) for turns in range(4)]
        self._images: Tokens = np.stack(turned).reshape(8, self.seq_len)
        self.examples = self.codec.spellings(random_maze(np.random.default_rng(0), size))

    def parse(self, puzzle: object) -> Tokens:
        return self.codec.parse(puzzle)

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        return find_mazes(self.codec, lines)

    def text(self, tokens: Tokens) -> str:
        return self.codec.text(tokens)

    def grid(self, tokens: Tokens) -> list[list[int]]:
        return self.codec.grid(tokens)

    def given(self, puzzle: Tokens) -> NDArray[np.bool_]:
        """All but the spaces."""
        given: NDArray[np.bool_] = puzzle != SPACE
        return given

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        return is_shortest(puzzle, answer)

    def solutions(self, puzzle: Tokens) -> Tokens:
        """The first MOST_COUNTED, if there are more."""
        return paths_of(puzzle).answers(MOST_COUNTED)

    def listed(self, puzzle: Tokens) -> Tokens | None:
        paths = paths_of(puzzle)
        return paths.answers(self.most_targets) if paths.count <= self.most_targets else None

    def count_solutions(self, puzzle: Tokens) -> int:
        return min(paths_of(puzzle).count, MOST_COUNTED)

    def contradiction(self, puzzle: Tokens) -> str:
        if len(drawn := np.flatnonzero(puzzle == PATH)):
            place = cell_name(*divmod(int(drawn[0]), self.size))
            return f"{place}: a path is drawn here already; write '.' for each 'o'"
        return "no path leads from S to G; open a wall between them"

    def is_ambiguous(self, puzzles: Tokens) -> NDArray[np.bool_]:
        return np.array([paths_of(puzzle).count > 1 for puzzle in puzzles], dtype=bool)

    def nearest_solution(self, puzzle: Tokens, log_p: NDArray[np.float64]) -> Tokens:
        """The likeliest of all, however many there are."""
        return paths_of(puzzle).likeliest(log_p[:, PATH] - log_p[:, SPACE])

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:
        """Turn and mirror the square."""
        return replace(super().symmetries(puzzles, draws), cells=self._images[(draws[:, 0] * 8).astype(int)])

    def strata(self, puzzle: Tokens) -> dict[str, str]:
        paths = paths_of(puzzle)
        least = paths.length // 5 * 5
        return {
            "steps": f"{least}-{least + 4}",
            "solutions": next(band for most, band in _SOLUTIONS.items() if self.count_solutions(puzzle) <= most),
        }

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Training pairs, both [count, N]: random mazes, each with one of its shortest paths, drawn uniformly."""
        puzzles = self._draw(rng, count, held_out=False)
        return puzzles, np.stack([paths_of(puzzle).random(rng) for puzzle in puzzles])

    @cached_property
    def held_out(self) -> Tokens:
        return self._draw(np.random.default_rng(0), self.held_out_count, held_out=True)

    def _draw(self, rng: np.random.Generator, count: int, *, held_out: bool) -> Tokens:
        """Random mazes [count, N] from one side of the split."""
        kept: list[Tokens] = []
        while len(kept) < count:
            maze = random_maze(rng, self.size)
            if self.is_held_out(maze) == held_out:
                kept.append(maze)
        return np.stack(kept)

    def is_held_out(self, puzzle: Tokens) -> bool:
        """Whether a puzzle [N] and its images are held out."""
        return bool(self._hash(puzzle[self._images]).min() % np.uint64(self.held_out_every) == 0)

    @cached_property
    def _places(self) -> Words:
        return mix(np.arange(self.seq_len, dtype=np.uint64) + np.uint64(1))

    def _hash(self, puzzles: Tokens) -> Words:
        """A hash [B] of puzzles [B, N]."""
        total: Words = (mix(puzzles.astype(np.uint64) * self._places)).sum(1, dtype=np.uint64)
        return mix(total)
