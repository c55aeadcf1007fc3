"""N-Queens: the task, the spellings of a board, and its training pairs."""

from gram.models.tasks.nqueens.task import NQueens

__all__ = ["NQueens"]
