"""A task: a codec, an exact checker and a source of training pairs. It needs no torch, so the API process can use it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from gram.models.tasks.spelling import plain
from gram.models.tasks.symmetry import Symmetries

Tokens = NDArray[np.int64]
"""A puzzle or an answer as symbols [N], or several of them [..., N]."""

Grid = list[int] | list[list[int]]
"""A puzzle or an answer as numbers, in rows if it has rows."""


MOST_COUNTED = 1000
"""The number at which the counting of a puzzle's solutions ends."""


class PuzzleError(ValueError):
    """A puzzle can't be read, or can't have a solution. The message says what is wrong and how to fix it, `place` where."""

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place

    def add(self, hint: str) -> None:
        """Add to the message."""
        self.args = (f"{self}{hint}",)


class ContradictionError(PuzzleError):
    """A puzzle has been read, and can't be answered: it has no solution, or there are several puzzles."""


def cell_name(row: int, column: int) -> str:
    """The name of a cell in errors; row and column are given from 0."""
    return f"row {row + 1}, column {column + 1}"


def cell_entropy(boards: Tokens) -> float:
    """The entropy of a cell's symbol over boards [n, N], n at least 1, averaged over the cells, in nats."""
    shares = np.stack([np.mean(boards == symbol, axis=0) for symbol in np.unique(boards)])
    return float(np.sum(shares * np.log(1 / np.where(shares > 0, shares, 1)), axis=0).mean())


class Task(ABC):
    """One kind of puzzle. A new task is one file that implements this, a line in the registry and a checkpoint."""

    name: str
    """The name in the API and the zoo, such as "nqueens-8"."""
    title: str
    """A sentence that explains the task to people."""
    formats: list[str]
    """The accepted spellings of a puzzle, a sentence each."""
    examples: list[JsonValue]
    """One and the same puzzle in each accepted spelling, in the order of `formats`."""
    files: list[str] = []
    """What `split` finds in a file beside a puzzle a line, a sentence each."""
    seq_len: int
    vocab_size: int
    checked: bool = True
    """Whether `check` tells right from wrong. If not, the server shows answers as neither, and `check` is never called."""
    lists_solutions: bool = True
    """Whether `solutions` gives all solutions of every puzzle, the empty input included. If not, they can be too many."""
    evaluation_depth: int = 32
    """The depth, in supervision steps, to which evaluation follows trajectories without halting."""
    paper: dict[str, float]
    """The paper's figures for this task, by their names in the evaluation; `distinct` is a share of the valid boards."""

    @property
    def blank(self) -> Tokens | None:
        """The empty input [N], from which the model generates; None if the task has none."""
        return None

    @property
    def boards(self) -> Tokens | None:
        """All full boards [n, N], which are the solutions of `blank`; None if there are too many to list."""
        return None

    @property
    def board_entropy(self) -> float:
        """The `cell_entropy` of full boards uniform over all that exist. Only for tasks with a `blank`."""
        if self.boards is None:
            raise NotImplementedError(f"{self.name} does not list its boards")
        return cell_entropy(self.boards)

    @abstractmethod
    def parse(self, puzzle: object) -> Tokens:
        """Read a puzzle in any accepted spelling -> [N]. Raises PuzzleError."""

    def read(self, puzzle: object) -> Tokens:
        """Read what a user sends -> [N]. Raises PuzzleError."""
        return self.pose(puzzle)[1]

    def pose(self, puzzle: object) -> tuple["Task", Tokens]:
        """Read what a user sends -> the task as that user sees it, and the puzzle [N]. Raises PuzzleError.

        The puzzle is in any accepted spelling, also as arrays or tensors, or printed, or a board as the server shows it,
        {"text": ..., "grid": ...}.
        """
        puzzle = plain(puzzle)
        match puzzle:
            case {"text": str(text), "grid": list(grid), **others} if not others:
                task, tokens = self.posed(text)
                if grid != task.grid(tokens):
                    raise PuzzleError("`text` and `grid` show different boards; send one of them")
                return task, tokens
        return self.posed(puzzle)

    def posed(self, puzzle: object) -> tuple["Task", Tokens]:
        """Parse a puzzle -> the task as its writer sees it, and the puzzle [N]. Raises PuzzleError.

        The writer may, for example, have named the vertices of a graph: that task writes the puzzle and its answers in the
        writer's terms. The tokens are the model's, as always.
        """
        return self, self.parse(puzzle)

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        """The puzzles of a text file: for each the number of the line in which it begins, from 1, and its text.

        Without another rule that is each line which is not empty. Lines are taken as they come, so a file may be of any length.
        """
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line.strip()

    @abstractmethod
    def text(self, tokens: Tokens) -> str:
        """A puzzle or an answer [N] as people write it. `parse` reads what it writes."""

    @abstractmethod
    def grid(self, tokens: Tokens) -> Grid:
        """A puzzle or an answer [N] as numbers."""

    def given(self, puzzle: Tokens) -> NDArray[np.bool_]:
        """Which cells of a puzzle [N] are given -> [N]. Every answer has them as they are."""
        return np.zeros(self.seq_len, dtype=bool) if self.blank is None else puzzle != self.blank

    @abstractmethod
    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        """Whether the answer [N] is a valid solution of exactly this puzzle [N]."""

    def conflicts(self, puzzle: Tokens, answer: Tokens) -> int:
        """How many constraints the answer [N] breaks: 0 if it is valid; otherwise 1, unless the task counts them."""
        return int(not self.check(puzzle, answer))

    @abstractmethod
    def solutions(self, puzzle: Tokens) -> Tokens:
        """All solutions [n, N] of the puzzle [N], each in its canonical form; n is 0 for a puzzle without a solution."""

    def listed(self, puzzle: Tokens) -> Tokens | None:
        """All solutions [n, N] of the puzzle [N], or None if they are too many for training to choose among them."""
        return self.solutions(puzzle) if self.lists_solutions else None

    def count_solutions(self, puzzle: Tokens) -> int | None:
        """How many solutions the puzzle [N] has; MOST_COUNTED for as many or more, None if counting takes too long."""
        return min(len(self.solutions(puzzle)), MOST_COUNTED)

    def contradiction(self, puzzle: Tokens) -> str:  # noqa: ARG002
        """What to tell a person whose puzzle [N] has no solution."""
        return "this puzzle has no solution"

    def solvable(self, puzzle: Tokens) -> int | None:
        """The `count_solutions` of a puzzle [N]. Raises PuzzleError if it is 0."""
        solutions = self.count_solutions(puzzle)
        if solutions == 0:
            raise ContradictionError(self.contradiction(puzzle))
        return solutions

    def is_ambiguous(self, puzzles: Tokens) -> NDArray[np.bool_]:
        """Whether each of the puzzles [B, N] has more than one solution -> [B]."""
        return np.array([len(self.solutions(puzzle)) > 1 for puzzle in puzzles], dtype=bool)

    def nearest_solution(self, puzzle: Tokens, log_p: NDArray[np.float64]) -> Tokens:
        """A solution [N] of the puzzle [N] that is likely under log-probabilities [N, V]: the likeliest, if all are listed."""
        solutions = self.solutions(puzzle)
        likeliest: Tokens = solutions[log_p[np.arange(self.seq_len), solutions].sum(1).argmax()]
        return likeliest

    def canonical(self, answer: Tokens) -> Tokens:
        """The answer [N] in the form that all answers with the same meaning share, so that equal ones can be counted."""
        return answer

    num_draws: int = 0
    """The number of uniform draws that make a symmetry."""

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:  # noqa: ARG002
        """A random symmetry for each of the puzzles [B, N], from draws [B, num_draws] in [0, 1).

        The image of a puzzle must be as likely in training as the puzzle. A task without known symmetries returns identities.
        """
        return Symmetries.identity(len(puzzles), self.seq_len, self.vocab_size)

    def strata(self, puzzle: Tokens) -> dict[str, str]:  # noqa: ARG002
        """The band of the puzzle [N] for each trait that evaluation looks at. A band begins with a number, as "5-19" does."""
        return {}

    @abstractmethod
    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Draw training pairs: puzzles and solutions, both [count, N], never a held-out puzzle."""

    @cached_property
    @abstractmethod
    def held_out(self) -> Tokens:
        """The puzzles [n, N] that evaluation uses. Training sees neither them nor any symmetric image of them."""

    @property
    def test_sets(self) -> dict[str, Tokens]:
        """The held-out puzzles by the name of their set. The first set is `held_out`."""
        return {"held-out": self.held_out}

    def held_out_puzzle(self, rng: np.random.Generator) -> Tokens:
        """A random held-out puzzle [N] of a random set."""
        sets = [*self.test_sets.values()]
        puzzle: Tokens = rng.choice(sets[rng.integers(len(sets))])
        return puzzle
