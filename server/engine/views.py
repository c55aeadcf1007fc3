"""How the trajectory in each slot sees its puzzle: as it is written, or as a symmetry of the task shows it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks import Task
from gram.models.tasks.symmetry import Symmetries, draws
from gram.server.engine.slots import Start


class Views:
    """A symmetry for each slot. Which one depends on the request's seed and the trajectory's index alone.

    A model prefers some solutions of a puzzle, and fails on some ways of writing it down. In images of the puzzle it prefers
    and fails elsewhere, so trajectories that each see another image differ more than by their noise.
    """

    def __init__(self, task: Task, num_slots: int) -> None:
        self._task = task
        self._symmetries = Symmetries.identity(num_slots, task.seq_len, task.vocab_size)

    def show(self, starts: Sequence[Start]) -> list[Start]:
        """The trajectories with their puzzles as they will see them."""
        if not starts:
            return []
        seen = _tokens([start.puzzle for start in starts])
        symmetries = Symmetries.identity(len(starts), self._task.seq_len, self._task.vocab_size)
        turned = [i for i, start in enumerate(starts) if start.symmetries]
        if turned:
            keys = np.array([(starts[i].seed, starts[i].trajectory) for i in turned], dtype=np.uint64)
            drawn = self._task.symmetries(seen[turned], draws(keys[:, 0], keys[:, 1], self._task.num_draws))
            symmetries.cells[turned], symmetries.symbols[turned] = drawn.cells, drawn.symbols
        slots = [start.slot for start in starts]
        self._symmetries.cells[slots], self._symmetries.symbols[slots] = symmetries.cells, symmetries.symbols
        images = symmetries.image(seen).astype(np.uint8)
        return [start._replace(puzzle=image.tobytes()) for start, image in zip(starts, images, strict=True)]

    def answers(self, slots: Sequence[int], answers: NDArray[np.uint8]) -> list[bytes]:
        """The answers [n, N] of these slots to their puzzles as they are written."""
        symmetries = Symmetries(self._symmetries.cells[slots], self._symmetries.symbols[slots])
        return [answer.tobytes() for answer in symmetries.preimage(answers.astype(np.int64)).astype(np.uint8)]


def _tokens(puzzles: Sequence[bytes]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(puzzles), np.uint8).reshape(len(puzzles), -1).astype(np.int64)
