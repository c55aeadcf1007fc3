"""A data set as the task that training sees: its puzzles, and their labels as the only right answers."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.models.data_sets import UNSCORED, DataSet, DataSetError, labels_of, open_folder
from gram.models.tasks import Plain, Tokens
from gram.models.tasks.symmetry import Words

_CHUNK = 1 << 14
"""Rows that are hashed together."""


@dataclass(frozen=True, eq=False)
class Labelled(Plain):
    """The pairs of a data set. A puzzle that is in it with several labels has several solutions."""

    data: DataSet

    @classmethod
    def open(cls, folder: Path, name: str) -> "Labelled":
        """Open the training set of a folder. Raises DataSetError if a symbol in it is none, or if there are no labels."""
        data = open_folder(folder, "train")
        for first in range(0, len(data), _CHUNK):
            data.puzzles(slice(first, first + _CHUNK))
            data.answers(slice(first, first + _CHUNK))
        return cls(name, data.seq_len, data.vocab_size, data)

    def raise_unless_trainable(self, *, with_posterior: bool) -> None:
        """Raise DataSetError if labels have cells without a score, and what is to be done with them needs whole answers."""
        if self.has_unscored and (with_posterior or self.has_ambiguous):
            why = "the posterior reads whole answers" if with_posterior else "of a puzzle with several labels they are compared"
            raise DataSetError(
                f"{labels_of(self.data.file)} has cells that are not scored ({self.data.ignored}), but {why}; fill them"
            )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Draw rows, each as often as any other."""
        rows = rng.integers(len(self.data), size=count)
        return self.data.puzzles(rows), self.data.answers(rows)

    def solutions(self, puzzle: Tokens) -> Tokens:
        """The labels [n, N] of this puzzle [N], each once; cells that are not scored are UNSCORED."""
        hash_ = self._hash(puzzle[None])[0]
        first, last = np.searchsorted(self._hashes, hash_, "left"), np.searchsorted(self._hashes, hash_, "right")
        rows = np.sort(self._order[first:last])
        same = np.all(self.data.puzzles(rows) == puzzle, axis=1)
        return np.unique(self.data.answers(rows[same]), axis=0)

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        """Whether the answer is a label of this puzzle."""
        labels = self.solutions(puzzle)
        return bool(np.any(np.all((labels == answer) | (labels == UNSCORED), axis=1)))

    def is_ambiguous(self, puzzles: Tokens) -> NDArray[np.bool_]:
        if not self.has_ambiguous:
            return np.zeros(len(puzzles), dtype=bool)
        return super().is_ambiguous(puzzles)

    @cached_property
    def has_ambiguous(self) -> bool:
        """Whether any puzzle has several labels."""
        twice = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        one, other = self._order[twice], self._order[twice + 1]
        return bool(np.any((self.data.answers(one) != self.data.answers(other)).any(1)))

    @cached_property
    def has_unscored(self) -> bool:
        """Whether any cell of a label is not scored."""
        labels, ignored = self.data.labels, self.data.ignored
        return labels is not None and ignored is not None and bool(np.any(labels == ignored))

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The rows in the order of their puzzles' hashes."""
        return np.argsort(self._unsorted, kind="stable")

    @cached_property
    def _hashes(self) -> Words:
        """The hashes of the puzzles, sorted."""
        return self._unsorted[self._order]

    @cached_property
    def _unsorted(self) -> Words:
        rows = range(0, len(self.data), _CHUNK)
        return np.concatenate([self._hash(self.data.puzzles(slice(first, first + _CHUNK))) for first in rows])

    def _hash(self, puzzles: Tokens) -> Words:
        """A number for each of the puzzles [n, N] -> [n]. That of equal puzzles is equal, that of others hardly ever."""
        weights = np.random.default_rng(0).integers(2**64, size=self.seq_len, dtype=np.uint64)
        hashes: Words = (puzzles.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
        return hashes
