"""The registry of tasks: a new task is one file here and one line below."""

from collections.abc import Iterable

from gram.models.config import CheckpointConfig, CheckpointError
from gram.models.tasks.base import MOST_COUNTED, ContradictionError, Grid, PuzzleError, Task, Tokens, cell_entropy
from gram.models.tasks.coloring import Coloring
from gram.models.tasks.maze import Maze
from gram.models.tasks.nqueens import NQueens
from gram.models.tasks.plain import Plain
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
        Maze(8),
        Maze(30, held_out_count=100),
    )
}


def task_of(config: CheckpointConfig) -> Task:
    """The task of a checkpoint: a registered one, or one without code. Raises CheckpointError."""
    if config.checked:
        if config.task in TASKS:
            return TASKS[config.task]
        raise CheckpointError(
            f"unknown task {config.task!r}; known tasks: {', '.join(TASKS)}; a task without code needs checked: false"
        )
    if config.task in TASKS:
        raise CheckpointError(f"{config.task} has a checker; leave checked out, or give the task another name")
    return Plain(config.task, config.model.seq_len, config.model.vocab_size)


def readings(puzzle: object, tasks: Iterable[Task]) -> dict[str, str]:
    """What each of the tasks reads in a puzzle, by their names: the puzzle as it writes it, or how it contradicts itself.

    Tasks that can't read it are left out.
    """
    found = {}
    for task in tasks:
        try:
            view, tokens = task.pose(puzzle)
            found[task.name] = view.text(tokens)
        except ContradictionError as error:
            found[task.name] = str(error)
        except PuzzleError:
            continue
    return found


def only_one(found: dict[str, str]) -> str:
    """The name of the task that is meant: the only one of `readings`, or the first one if all read the same.

    Raises PuzzleError if there is none, or if several read different puzzles.
    """
    if not found:
        raise PuzzleError("no task reads this puzzle; name its task to learn what is wrong with it")
    if len(set(found.values())) > 1:
        raise PuzzleError(f"this can be a puzzle of {', '.join(found)}; name the task that is meant")
    return next(iter(found))


def pose(puzzle: object, task: Task) -> tuple[Task, Tokens]:
    """Let a task read a puzzle, as `Task.pose` does. Its PuzzleError names the tasks that could read it."""
    try:
        return task.pose(puzzle)
    except ContradictionError:
        raise
    except PuzzleError as error:
        if others := readings(puzzle, TASKS.values()):
            error.add(f"; {' and '.join(others)} can read this puzzle")
        raise


__all__ = [
    "MOST_COUNTED",
    "TASKS",
    "Grid",
    "Plain",
    "PuzzleError",
    "Task",
    "Tokens",
    "cell_entropy",
    "only_one",
    "pose",
    "readings",
    "task_of",
]
