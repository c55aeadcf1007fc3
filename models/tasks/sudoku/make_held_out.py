"""The command that makes the held-out Sudoku puzzles which are bundled: python -m gram.models.tasks.sudoku.make_held_out."""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gram.models.tasks.base import Tokens
from gram.models.tasks.sudoku.codec import BLANK
from gram.models.tasks.sudoku.pairs import CLIMB_IMAGES, HARD_GUESSES, add_clues
from gram.models.tasks.sudoku.solver import EXTREME_GUESSES
from gram.models.tasks.sudoku.task import DATA, KINDS, Sudoku

_SEED = 1
_CLUES = range(22, 37)
_MOST_DRAWS = 1000
"""Draws after which a number of clues is passed over: none of its few classes is held out."""


def make_test_sets(task: Sudoku) -> dict[str, tuple[int, Iterator[Tokens]]]:
    """The sets of a size: for each the number of its puzzles, and a series that begins with them."""
    any_clues = f"0-{task.seq_len} clues"
    if task.size == 9:
        return {
            f"{_CLUES[0]}-{_CLUES[-1]} clues": (1000, _by_clues(task)),
            any_clues: (8 * (task.seq_len + 1), _any_clues(task)),
            "hard": (500, _minimal(task, HARD_GUESSES)),
            "extreme": (200, _climbed(task)),
        }
    minimal = _images(task) if task.size == 4 else _minimal(task)
    return {"minimal": (1000, minimal), any_clues: (20 * (task.seq_len + (task.size > 4)), _any_clues(task))}


def _minimal(task: Sudoku, least_guesses: int = 0) -> Iterator[Tokens]:
    for puzzles, _, guesses in task.solver.minimal_series(_SEED):
        yield from puzzles[(guesses >= least_guesses) & task.is_held_out(puzzles)]


def _climbed(task: Sudoku) -> Iterator[Tokens]:
    """The hardest held-out puzzle that each climb finds. It is measured on other images: a climb is partial to its own."""
    orders = task.cell_orders(_SEED, 64)
    for puzzles, _, _ in task.solver.climbed_series(_SEED, task.cell_orders(0, CLIMB_IMAGES)):
        held_out = [(task.solver.mean_guesses(puzzle, orders), puzzle) for puzzle in puzzles[task.is_held_out(puzzles)]]
        guesses, hardest = max(held_out, key=lambda pair: pair[0], default=(0.0, task.blank))
        if guesses >= EXTREME_GUESSES:
            yield hardest


def _by_clues(task: Sudoku) -> Iterator[Tokens]:
    """Puzzles of each number of clues in turn: minimal ones with no more, and clues added."""
    rng = np.random.default_rng(_SEED)
    series = task.solver.minimal_series(_SEED)
    pairs = ((puzzle, board) for chunk in series for puzzle, board in zip(chunk.puzzles, chunk.boards, strict=True))
    for clues in itertools.cycle(_CLUES):
        for puzzle, board in pairs:
            if np.sum(puzzle != BLANK) <= clues:
                wanted = add_clues(rng, puzzle[None], board[None], np.array([clues]))[0]
                if task.is_held_out(wanted):
                    yield wanted
                    break


def _any_clues(task: Sudoku) -> Iterator[Tokens]:
    """Random cells of random boards, of each number of clues in turn. Most of those with few clues have many solutions.

    Training has no full board, so all of them are new to a model.
    """
    rng = np.random.default_rng(_SEED)
    for clues in itertools.cycle(range(task.seq_len + 1)):
        for _ in range(_MOST_DRAWS):
            board = task.random_boards(rng, 1)
            puzzle = add_clues(rng, np.zeros_like(board), board, np.array([clues]))[0]
            if clues < task.least_split or clues == task.seq_len or task.is_held_out(puzzle):
                yield puzzle
                break


def _images(task: Sudoku) -> Iterator[Tokens]:
    """Distinct puzzles of each held-out class in turn, for as long as the smallest class has them."""
    puzzles = task.pairs.minimal.puzzles[task.is_held_out(task.pairs.minimal.puzzles)]
    puzzles = np.random.default_rng(_SEED).permutation(puzzles)
    hashes = task.solver.class_hashes(puzzles)
    for images in zip(*(puzzles[hashes == one] for one in np.unique(hashes)), strict=False):
        yield from images


def main() -> None:
    """Write the held-out puzzles."""
    program = "python -m gram.models.tasks.sudoku.make_held_out"
    parser = argparse.ArgumentParser(prog=program, description="Write the held-out Sudoku puzzles.")
    parser.add_argument("--sizes", type=int, nargs="+", choices=KINDS, default=[*KINDS], help="default: all")
    parser.add_argument("--folder", type=Path, default=DATA, help="where to; default: %(default)s")
    options = parser.parse_args()
    for size in options.sizes:
        task = Sudoku(size, paper={})
        lines = []
        for name, (count, series) in make_test_sets(task).items():
            lines.append(f"# {name}: {count} puzzles, written by {program} --sizes {size}")
            puzzles = tqdm(itertools.islice(series, count), desc=f"{task.name}, {name}", total=count, unit="puzzle")
            lines.extend(task.text(puzzle).replace("\n", "") for puzzle in puzzles)
        options.folder.mkdir(exist_ok=True)
        (options.folder / f"{task.name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
