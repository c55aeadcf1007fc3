"""Symmetries of a task: other ways to write the same puzzle down, and the way back."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Symbols = NDArray[np.int64] | NDArray[np.uint8]

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
        first = np.zeros((count, 1), np.int64)
        return cls(first + np.arange(seq_len), first + np.arange(vocab_size))

    def image(self, tokens: Symbols) -> Integers:
        """The images [B, N] of puzzles or answers [B, N]."""
        rows = np.arange(len(tokens))[:, None]
        seen: Integers = self.symbols[rows, tokens[rows, self.cells]]
        return seen

    def preimage(self, tokens: Symbols) -> Integers:
        """The inverse of `image`: [B, N] -> [B, N]."""
        rows = np.arange(len(tokens))[:, None]
        symbols, written = np.empty_like(self.symbols), np.empty_like(self.cells)
        symbols[rows, self.symbols] = np.arange(self.symbols.shape[1])
        written[rows, self.cells] = symbols[rows, tokens]
        return written


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
