"""The shortest paths of a maze: their length, their number, all of them, and the one that is nearest to a model's opinion.

All of it is exact. Breadth-first search from the goal gives each cell its distance; a step that lowers the distance by one is a
step of a shortest path, so these steps make a graph without circles, on which dynamic programmes count and choose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Tokens

WALL, SPACE, START, GOAL, PATH = range(5)


@lru_cache
def neighbours(size: int) -> list[list[int]]:
    """The cells beside each cell of a square grid, the numbers of the cells counted row by row."""
    cells = np.pad(np.arange(size * size).reshape(size, size), 1, constant_values=-1)
    sides = np.stack([cells[:-2, 1:-1], cells[1:-1, :-2], cells[1:-1, 2:], cells[2:, 1:-1]], axis=-1).reshape(-1, 4)
    return [[cell for cell in beside if cell >= 0] for beside in sides.tolist()]


def distances(size: int, is_open: list[bool], start: int) -> dict[int, int]:
    """The number of steps from a cell to each cell that can be reached through open cells, nearest first."""
    beside = neighbours(size)
    found = {start: 0}
    queue = [start]
    for cell in queue:
        for other in beside[cell]:
            if is_open[other] and other not in found:
                found[other] = found[cell] + 1
                queue.append(other)
    return found


@dataclass(frozen=True)
class ShortestPaths:
    """The shortest paths of a maze [N] with one start and one goal.

    after: for each cell of a shortest path but the goal, nearest to the start first, the cells that a shortest path may go on
    to. It is empty if no path reaches the goal, and for a maze in which a path is drawn already.
    """

    maze: Tokens
    start: int
    goal: int
    after: dict[int, list[int]]

    @classmethod
    def of(cls, maze: Tokens) -> "ShortestPaths":
        """Find them, by a search from the goal and a walk back from the start."""
        size = round(len(maze) ** 0.5)
        symbols = maze.tolist()
        start, goal = symbols.index(START), symbols.index(GOAL)
        left = distances(size, [symbol != WALL for symbol in symbols], goal)
        after: dict[int, list[int]] = {}
        level = [start] if start in left and PATH not in symbols else []
        while level and level != [goal]:
            for cell in level:
                after[cell] = [other for other in neighbours(size)[cell] if left.get(other) == left[cell] - 1]
            level = [*dict.fromkeys(other for cell in level for other in after[cell])]
        return cls(maze, start, goal, after)

    @property
    def length(self) -> int:
        """The number of steps from the start to the goal; 0 if the goal can't be reached."""
        steps, cell = 0, self.start
        while cell in self.after:
            steps, cell = steps + 1, self.after[cell][0]
        return steps

    @property
    def ways(self) -> dict[int, int]:
        """The number of shortest paths from each cell of one to the goal, as exact integers. Empty if there is no path."""
        ways = {self.goal: 1} if self.after else {}
        for cell in reversed(self.after):
            ways[cell] = sum(ways[other] for other in self.after[cell])
        return ways

    @property
    def count(self) -> int:
        """The number of shortest paths."""
        return self.ways.get(self.start, 0)

    def answers(self, most: int) -> Tokens:
        """The maze with each of its shortest paths drawn [n, N]; the first `most` of them, if they are more."""
        drawn = [self.drawn(path) for path, _ in zip(self._walks(), range(most), strict=False)]
        return np.array(drawn, dtype=np.int64).reshape(-1, len(self.maze))

    def _walks(self) -> Iterator[list[int]]:
        """Every shortest path as its cells between the start and the goal."""
        path, choices = [self.start], [iter(self.after.get(self.start, ()))]
        while choices:
            cell = next(choices[-1], None)
            if cell is None:
                path.pop()
                choices.pop()
            elif cell == self.goal:
                yield path[1:]
            else:
                path.append(cell)
                choices.append(iter(self.after[cell]))

    def likeliest(self, gain: NDArray[np.float64]) -> Tokens:
        """The answer [N] whose path has the largest sum of `gain` [N] over its cells. There must be a path."""
        worth = gain.tolist()
        best = {self.goal: 0.0}
        choice: dict[int, int] = {}
        for cell in reversed(self.after):
            choice[cell] = max(self.after[cell], key=best.__getitem__)
            best[cell] = worth[cell] + best[choice[cell]]
        path = [cell := choice[self.start]]
        while cell != self.goal:
            path.append(cell := choice[cell])
        return self.drawn(path[:-1])

    def random(self, rng: np.random.Generator) -> Tokens:
        """An answer [N], uniform over all shortest paths. There must be a path."""
        ways = self.ways
        path = [cell := self.start]
        while cell != self.goal:
            others = self.after[cell]
            shares = np.array([ways[other] / ways[cell] for other in others])
            path.append(cell := others[rng.choice(len(others), p=shares / shares.sum())])
        return self.drawn(path[1:-1])

    def drawn(self, path: list[int]) -> Tokens:
        """The maze [N] with a path drawn through these cells."""
        answer = self.maze.copy()
        answer[path] = PATH
        return answer


def is_shortest(maze: Tokens, answer: Tokens) -> bool:
    """Whether the answer [N] is the maze [N] with one of its shortest paths drawn, and with nothing else changed.

    As many cells are drawn as a shortest path has, and through them alone the goal is as near as it is in the maze.
    """
    drawn = answer == PATH
    if not np.array_equal(np.where(drawn, SPACE, answer), maze):
        return False
    steps = paths_of(maze).length
    size = round(len(maze) ** 0.5)
    on_way = np.isin(answer, (START, GOAL, PATH)).tolist()
    goal = int(np.argmax(maze == GOAL))
    reached = distances(size, on_way, int(np.argmax(maze == START))).get(goal)
    return steps == reached == int(drawn.sum()) + 1


def paths_of(maze: Tokens) -> ShortestPaths:
    """The shortest paths of a maze [N]; those of the last mazes are kept."""
    return _paths_of(maze.astype(np.uint8).tobytes())


@lru_cache(maxsize=4096)
def _paths_of(maze: bytes) -> ShortestPaths:
    return ShortestPaths.of(np.frombuffer(maze, dtype=np.uint8).astype(np.int64))
