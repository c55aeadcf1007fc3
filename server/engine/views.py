"""How the trajectory in each slot sees its puzzle: as it was sent, or as an image under one of the task's symmetries."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks import Task
from gram.models.tasks.symmetry import Symmetries, draws
from gram.server.engine.slots import Start


class Views:
    """Holds a symmetry for each slot, which depends on the request's seed and the trajectory's index alone.

    A model prefers some solutions of a puzzle, and fails on some ways to write it down. It prefers and fails differently on
    images of the puzzle, so trajectories that each see another image differ by more than their noise.
    """

    def __init__(self, task: Task, num_slots: int) -> None:
        self._task = task
        self._symmetries = Symmetries.identity(num_slots, task.seq_len, task.vocab_size)

    def show(self, starts: Sequence[Start]) -> list[Start]:
        """Change the puzzle of each start to what its trajectory will see, and return the starts."""
        turned = [start for start in starts if start.symmetries]
        if unturned := [start.slot for start in starts if not start.symmetries]:
            identity = Symmetries.identity(1, self._task.seq_len, self._task.vocab_size)
            self._symmetries.cells[unturned], self._symmetries.symbols[unturned] = identity.cells, identity.symbols
        if turned:
            seen = _tokens([start.puzzle for start in turned])
            pairs = np.array([(start.seed, start.index) for start in turned], dtype=np.uint64)
            drawn = self._task.symmetries(seen, draws(pairs[:, 0], pairs[:, 1], self._task.num_draws))
            slots = [start.slot for start in turned]
            self._symmetries.cells[slots], self._symmetries.symbols[slots] = drawn.cells, drawn.symbols
            for start, image in zip(turned, drawn.image(seen).astype(np.uint8), strict=True):
                start.puzzle = image.tobytes()
        return [*starts]

    def of(self, slots: Sequence[int]) -> Symmetries:
        """The symmetries of these slots. They stay the same when other trajectories start there."""
        return Symmetries(self._symmetries.cells[slots], self._symmetries.symbols[slots])

    def answers(self, slots: Sequence[int], answers: NDArray[np.uint8]) -> list[bytes]:
        """Turn the answers [n, N] of trajectories in these slots into answers to the puzzles as they were sent."""
        return as_sent(self.of(slots), answers)


def as_sent(views: Symmetries, answers: NDArray[np.uint8]) -> list[bytes]:
    """Turn answers [n, N] to images into answers to the puzzles as they were sent."""
    return [answer.tobytes() for answer in views.preimage(answers).astype(np.uint8)] if len(answers) else []


def _tokens(puzzles: Sequence[bytes]) -> NDArray[np.int64]:
    """Puzzles of one byte a symbol -> [n, N]."""
    return np.frombuffer(b"".join(puzzles), np.uint8).reshape(len(puzzles), -1).astype(np.int64)
