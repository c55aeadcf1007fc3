"""What a task is: a codec, an exact checker and a source of training pairs. Without torch, so that the API can use it."""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks.symmetry import Symmetries

Tokens = NDArray[np.int64]
"""Puzzle or answer as symbols; [N], or [..., N] for several."""

Grid = list[int] | list[list[int]]
"""An answer or puzzle as numbers, in rows where it has rows."""


class PuzzleError(ValueError):
    """A puzzle that can't be read or can't be right. `place` points at it, the message says what is wrong and the mend."""

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place


def cell_name(row: int, column: int) -> str:
    """How errors name a cell, given from 0."""
    return f"row {row + 1}, column {column + 1}"


def cell_entropy(boards: Tokens) -> float:
    """The entropy of a cell's symbol among boards [n, N], n at least 1: its mean over the cells, in nats."""
    shares = np.stack([np.mean(boards == symbol, axis=0) for symbol in np.unique(boards)])
    return float(np.sum(shares * np.log(1 / np.where(shares > 0, shares, 1)), axis=0).mean())


class Task(ABC):
    """One kind of puzzle. A new task is one file that implements this, a line in the registry and a checkpoint."""

    name: str
    """As in the API and the zoo: "nqueens-8"."""
    title: str
    """A sentence for people."""
    formats: list[str]
    """The accepted spellings, a sentence each."""
    examples: list[JsonValue]
    """One puzzle in each accepted spelling, in the order of `formats`; all are the same puzzle."""
    seq_len: int
    vocab_size: int
    one_solution: bool = False
    """Whether the solution in a training pair is the puzzle's only one."""
    evaluation_depth: int = 32
    """Supervision steps to which evaluation follows trajectories that don't halt."""
    paper: dict[str, float]
    """The paper's figures for this task, by the names that the evaluation uses; `distinct` as a share of the valid boards."""

    @property
    def blank(self) -> Tokens | None:
        """The empty input [N], from which the model generates; None if the task has none."""
        return None

    @property
    def boards(self) -> Tokens | None:
        """All full boards [n, N], the solutions of `blank`; None where they are too many to list."""
        return None

    @property
    def board_entropy(self) -> float:
        """`cell_entropy` of full boards that are uniform over all that there are. Only of tasks with a `blank`."""
        if self.boards is None:
            raise NotImplementedError(f"{self.name} does not list its boards")
        return cell_entropy(self.boards)

    @abstractmethod
    def parse(self, puzzle: object) -> Tokens:
        """Read a puzzle in any accepted spelling -> [N]. Raises PuzzleError."""

    @abstractmethod
    def text(self, tokens: Tokens) -> str:
        """Puzzle or answer [N] as people write it. What it writes, `parse` reads."""

    @abstractmethod
    def grid(self, tokens: Tokens) -> Grid:
        """Puzzle or answer [N] as numbers."""

    @abstractmethod
    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        """Whether the answer [N] is a valid solution of exactly this puzzle [N]."""

    def conflicts(self, puzzle: Tokens, answer: Tokens) -> int:
        """How far the answer [N] is from a valid one: 0 if it is valid, else 1 unless the task counts more finely."""
        return int(not self.check(puzzle, answer))

    @abstractmethod
    def solutions(self, puzzle: Tokens) -> Tokens:
        """All solutions [n, N] of the puzzle [N], each in its canonical form; n is 0 for a puzzle without one."""

    def canonical(self, answer: Tokens) -> Tokens:
        """The answer [N] in the form that all answers of the same meaning share, so that equal ones can be counted."""
        return answer

    num_draws: int = 0
    """Uniform draws that make a symmetry."""

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:  # noqa: ARG002
        """For each of the puzzles [B, N] a random symmetry, from draws [B, num_draws] in [0, 1): under it the puzzle is as
        likely in training as it is. Without one that is known, what leaves all as it is.
        """
        return Symmetries.identity(len(puzzles), self.seq_len, self.vocab_size)

    def strata(self, puzzle: Tokens) -> dict[str, str]:  # noqa: ARG002
        """The band of the puzzle [N] by each trait that evaluation breaks down by. A band begins with a number: "5-19"."""
        return {}

    @abstractmethod
    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Training pairs: puzzles and solutions, both [count, N]. Never a held-out puzzle."""

    def sample_boards(self, rng: np.random.Generator, count: int) -> Tokens:
        """Full boards [count, N], uniform over all that there are: what a generator learns. Only of tasks with a `blank`."""
        raise NotImplementedError(f"{self.name} has no empty input")

    def nearest_board(self, log_p: NDArray[np.float64]) -> Tokens:
        """A full board [N] close to the log-probabilities [N, V] of its symbols. Only where `boards` are too many to list."""
        raise NotImplementedError(f"{self.name} lists its boards, or has none")

    @cached_property
    @abstractmethod
    def held_out(self) -> Tokens:
        """The puzzles [n, N] that evaluation uses and training never sees, nor any symmetric image of theirs."""

    @property
    def test_sets(self) -> dict[str, Tokens]:
        """Held-out puzzles by the name of the set; the first is `held_out`."""
        return {"held-out": self.held_out}

    def held_out_puzzle(self, rng: np.random.Generator) -> Tokens:
        """One of the held-out puzzles [N]: of a random test set a random one."""
        sets = [*self.test_sets.values()]
        puzzle: Tokens = rng.choice(sets[rng.integers(len(sets))])
        return puzzle
