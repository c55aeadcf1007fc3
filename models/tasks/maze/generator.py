"""Random mazes: spanning trees with walls knocked out, and random obstacles, with long shortest paths beside short ones."""

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Tokens
from gram.models.tasks.maze.paths import GOAL, SPACE, START, WALL, distances

_Open = NDArray[np.bool_]

TREE_SHARE = 0.5
MOST_KNOCKED_OUT = 0.4
"""Of the walls between two corridors that a spanning tree leaves, the largest share that is knocked out."""
OBSTACLE_RATES = (0.2, 0.45)
LEAST_STEPS = 3
FAR_SHARE = 0.5
"""The share of mazes in which one end is as far from a random cell as a cell can be."""


def random_maze(rng: np.random.Generator, size: int) -> Tokens:
    """A maze [N] with a goal that can be reached. All eight images of a maze in the square are equally likely."""
    while True:
        is_open = _tree(rng, size) if rng.random() < TREE_SHARE else rng.random((size, size)) > rng.uniform(*OBSTACLE_RATES)
        cells = np.flatnonzero(is_open)
        if not len(cells):
            continue
        start = int(rng.choice(cells))
        found = distances(size, is_open.ravel().tolist(), start)
        if rng.random() < FAR_SHARE:
            start = [*found][-1]
            found = distances(size, is_open.ravel().tolist(), start)
        most = max(found.values())
        if most < LEAST_STEPS:
            continue
        steps = rng.integers(LEAST_STEPS, most + 1)
        goal = rng.choice([cell for cell, distance in found.items() if distance == steps])
        maze = np.where(is_open.ravel(), SPACE, WALL)
        maze[rng.permutation([start, goal])] = START, GOAL
        return maze


def _tree(rng: np.random.Generator, size: int) -> _Open:
    """Corridors on every second row and column, joined to a random tree, with some of the other walls knocked out.

    A border of walls is on two sides of an even square, on all or none of an odd one.
    """
    first = rng.integers(2, size=2) if size % 2 == 0 else np.repeat(rng.integers(2), 2)
    is_open = np.zeros((size, size), dtype=bool)
    rooms = is_open[first[0] :: 2, first[1] :: 2]
    rooms[:] = True
    rows, columns = rooms.shape
    walls = [(0, r, c) for r in range(rows - 1) for c in range(columns)] + [
        (1, r, c) for r in range(rows) for c in range(columns - 1)
    ]
    root = [*range(rows * columns)]

    def find(room: int) -> int:
        while root[room] != room:
            root[room] = room = root[root[room]]
        return room

    rate = rng.uniform(0, MOST_KNOCKED_OUT)
    for wall in rng.permutation(len(walls)):
        across, r, c = walls[wall]
        one = find(r * columns + c)
        other = find((r + 1) * columns + c if across == 0 else r * columns + c + 1)
        if one != other or rng.random() < rate:
            root[one] = other
            is_open[first[0] + 2 * r + (across == 0), first[1] + 2 * c + (across == 1)] = True
    return is_open
