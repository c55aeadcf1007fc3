"""Symmetries of a task: other ways to write the same puzzle down, and the way back."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Symmetries:
    """A symmetry for each of B puzzles: cell i of the image shows cell cells[i] of the puzzle, and symbol s as symbols[s].

    The preimage of a valid answer to the image is a valid answer to the puzzle.
    """

    cells: Integers
    """A permutation of the cells for each puzzle [B, N]."""
    symbols: Integers
    """A permutation of the symbols for each puzzle [B, V]."""

    @classmethod
    def identity(cls, count: int, seq_len: int, vocab_size: int) -> Self:
        """The symmetries that change nothing."""
        return cls(np.tile(np.arange(seq_len), (count, 1)), np.tile(np.arange(vocab_size), (count, 1)))

    def image(self, tokens: Integers) -> Integers:
        """The images [B, N] of puzzles or answers [B, N]."""
        return np.take_along_axis(self.symbols, np.take_along_axis(tokens, self.cells, axis=1), axis=1)

    def preimage(self, tokens: Integers) -> Integers:
        """The inverse of `image`: [B, N] -> [B, N]."""
        seen = np.empty_like(tokens)
        np.put_along_axis(seen, self.cells, np.take_along_axis(np.argsort(self.symbols, axis=1), tokens, axis=1), axis=1)
        return seen


def draws(seeds: Words, indices: Words, count: int) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) for each trajectory index [B] of a seed [B] -> [B, count]. They depend on these two alone."""
    keys = mix(mix(seeds + _GOLDEN) + indices)
    words = mix(keys[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(words: Words) -> Words:
    """Scramble 64-bit words one-to-one, elementwise (the finaliser of SplitMix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
