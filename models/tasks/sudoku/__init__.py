"""Sudoku: the task, its spellings, its training pairs, its held-out sets, and the solver behind them."""

from gram.models.tasks.sudoku.task import Sudoku

__all__ = ["Sudoku"]
