"""The registry of tasks: a new task is one file here and one line below."""

from models.tasks.base import PuzzleError, Task, Tokens
from models.tasks.nqueens import NQueens

TASKS: dict[str, Task] = {task.name: task for task in (NQueens(8, paper={"lprm": 0.997, "coverage": 0.903}),)}

__all__ = ["TASKS", "PuzzleError", "Task", "Tokens"]
