"""The registry of tasks: a new task is one file here and one line below."""

from gram.models.tasks.base import MOST_COUNTED, Grid, PuzzleError, Task, Tokens, cell_entropy
from gram.models.tasks.coloring import Coloring
from gram.models.tasks.nqueens import NQueens
from gram.models.tasks.sudoku import Sudoku

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        NQueens(8, paper={"lprm": 0.997, "coverage": 0.903}),
        NQueens(10, paper={"lprm": 0.897, "coverage": 0.575}, held_out_every=43),
        Coloring(8, paper={"conflicts": 2.7, "coverage": 0.858}),
        Coloring(10, paper={"conflicts": 3.3, "coverage": 0.513}),
        Sudoku(4, paper={}),
        Sudoku(6, paper={}),
        Sudoku(9, paper={"lprm": 0.97, "valid": 0.9905, "distinct": 1.0}),
    )
}

__all__ = ["MOST_COUNTED", "TASKS", "Grid", "PuzzleError", "Task", "Tokens", "cell_entropy"]
