"""How the trajectory in each slot sees its puzzle: as it was sent, or as an image under one of the task's symmetries."""

from collections.abc import Sequence

import msgspec
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
        """Return the starts with the puzzles that their trajectories will see."""
        if not starts:
            return []
        seen = _tokens([start.puzzle for start in starts])
        symmetries = Symmetries.identity(len(starts), self._task.seq_len, self._task.vocab_size)
        turned = [i for i, start in enumerate(starts) if start.symmetries]
        if turned:
            pairs = np.array([(starts[i].seed, starts[i].index) for i in turned], dtype=np.uint64)
            drawn = self._task.symmetries(seen[turned], draws(pairs[:, 0], pairs[:, 1], self._task.num_draws))
            symmetries.cells[turned], symmetries.symbols[turned] = drawn.cells, drawn.symbols
        slots = [start.slot for start in starts]
        self._symmetries.cells[slots], self._symmetries.symbols[slots] = symmetries.cells, symmetries.symbols
        images = symmetries.image(seen).astype(np.uint8)
        return [msgspec.structs.replace(start, puzzle=image.tobytes()) for start, image in zip(starts, images, strict=True)]

    def answers(self, slots: Sequence[int], answers: NDArray[np.uint8]) -> list[bytes]:
        """Turn the answers [n, N] of trajectories in these slots into answers to the puzzles as they were sent."""
        symmetries = Symmetries(self._symmetries.cells[slots], self._symmetries.symbols[slots])
        return [answer.tobytes() for answer in symmetries.preimage(answers.astype(np.int64)).astype(np.uint8)]


def _tokens(puzzles: Sequence[bytes]) -> NDArray[np.int64]:
    """Puzzles of one byte a symbol -> [n, N]."""
    return np.frombuffer(b"".join(puzzles), np.uint8).reshape(len(puzzles), -1).astype(np.int64)
