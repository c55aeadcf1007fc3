"""The exact solver: all colourings of a graph, from a list of all colourings that any graph of this size can have."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Tokens
from gram.models.tasks.coloring.codec import ABSENT, COLORS, EDGE, Codec
from gram.models.tasks.symmetry import Words


class Colorings:
    """All colourings of n vertices, in canonical form, and what a graph must not have for each of them to be its solution."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def of(self, puzzle: Tokens) -> Tokens:
        """The solutions [m, N] of a puzzle [N]."""
        found = self._all[(self._excludes & _word(puzzle)) == 0]
        vertices = puzzle[self.codec.num_pairs :]
        answers = np.tile(puzzle, (len(found), 1))
        answers[:, self.codec.num_pairs :] = np.where(vertices == ABSENT, ABSENT, found)
        return answers

    def exist(self, puzzles: Tokens) -> NDArray[np.bool_]:
        """Whether each of the puzzles [B, N] has a solution -> [B]."""
        found: NDArray[np.bool_] = np.any(self._excludes & _word(puzzles)[:, None] == 0, axis=1)
        return found

    @cached_property
    def _all(self) -> Tokens:
        """All colourings of n vertices in canonical form [m, n], in lexical order."""
        size = self.codec.num_vertices
        colors = np.indices((len(COLORS),) * size).reshape(size, -1).T
        used = np.maximum.accumulate(colors, axis=1)
        canonical = (colors[:, 0] == 0) & np.all(colors[:, 1:] <= used[:, :-1] + 1, axis=1)
        colorings: Tokens = colors[canonical] + COLORS[0]
        return colorings

    @cached_property
    def _excludes(self) -> Words:
        """What a puzzle must not have if each of the colourings is to solve it, as the bits of words [m]; see `_word`.

        These are edges between vertices of one colour, and absent vertices with any but the first colour. So each colouring of
        a smaller graph is counted once.
        """
        first, second = self.codec.pairs
        one_color = self._all[:, first] == self._all[:, second]
        return _bits(np.concatenate([one_color, self._all != COLORS[0]], axis=1))


def _word(puzzles: Tokens) -> Words:
    """The constraints of puzzles [..., N] as the bits of words [...]: their edges and their absent vertices."""
    return _bits((puzzles == EDGE) | (puzzles == ABSENT))


def _bits(flags: NDArray[np.bool_]) -> Words:
    """Pack flags [..., N], N at most 64, into the bits of words [...]."""
    words: Words = flags.astype(np.uint64) @ (np.uint64(1) << np.arange(flags.shape[-1], dtype=np.uint64))
    return words
