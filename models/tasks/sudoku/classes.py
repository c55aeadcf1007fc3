"""The hash that names a puzzle's symmetry class, compiled."""

import numpy as np

from gram.models.tasks.base import Tokens
from gram.models.tasks.sudoku.compiled import Hashes, compiled, mix

_HASH_ROUNDS = 6


@compiled
def hash_classes(boards: Tokens, size: int, box_rows: int) -> Hashes:
    """Colour refinement: rows, columns, boxes and digits take colours from their clues, and clues from them.

    Colours are summed over everything that a symmetry may permute, so its order does not count.
    """
    box_columns = size // box_rows
    sides = 2 if box_rows == box_columns else 1
    hashes = np.zeros(boards.shape[0], dtype=np.uint64)
    for i in range(boards.shape[0]):
        for side in range(sides):
            colours = np.ones((4, size), dtype=np.uint64)
            for _ in range(_HASH_ROUNDS):
                sums = np.zeros((4, size), dtype=np.uint64)
                for cell in range(boards.shape[1]):
                    if boards[i, cell] == 0:
                        continue
                    row, column = cell // size, cell % size
                    if side:
                        row, column = column, row
                    box = row // box_rows * box_rows + column // box_columns
                    digit = boards[i, cell] - 1
                    clue = mix(colours[0, row] + np.uint64(1))
                    clue = mix(clue + colours[1, column])
                    clue = mix(clue + colours[2, box])
                    clue = mix(clue + colours[3, digit])
                    sums[0, row] += clue
                    sums[1, column] += clue
                    sums[2, box] += clue
                    sums[3, digit] += clue
                for kind in range(4):
                    for k in range(size):
                        colours[kind, k] = mix(sums[kind, k] + colours[kind, k])
                for kind, height in ((0, box_rows), (1, box_columns)):
                    for start in range(0, size, height):
                        together = np.uint64(0)
                        for k in range(start, start + height):
                            together += mix(colours[kind, k])
                        for k in range(start, start + height):
                            colours[kind, k] = mix(colours[kind, k] + together)
            total = np.uint64(0)
            for kind in range(4):
                for k in range(size):
                    total += mix(colours[kind, k] + np.uint64(kind))
            hashes[i] += mix(total)
    return hashes
