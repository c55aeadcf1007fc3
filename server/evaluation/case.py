"""A puzzle to measure on. Without torch, since files of puzzles are read without it."""

from typing import NamedTuple

from gram.models.tasks import Task, Tokens


class Case(NamedTuple):
    """A puzzle, and what its file says of it."""

    number: int
    """Its row or line, from 1."""
    task: Task
    puzzle: Tokens
    answer: Tokens | None
    """The right answer [N], UNSCORED where any symbol is right; None if it is not known."""
    rating: float | None
    """How hard it is said to be."""
