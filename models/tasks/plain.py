"""A task without code: the symbols of a data set. Nothing knows which of its answers are right."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import JsonValue

from gram.models.tasks.base import PuzzleError, Task, Tokens

_DIGITS = 10
"""The largest vocabulary whose symbols are digits, so that a text needs no spaces."""
_BETWEEN = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class Plain(Task):
    """A puzzle is N symbols from 0 to V - 1, and so is its answer. Two of the same name and sizes are one task."""

    name: str
    seq_len: int
    vocab_size: int

    checked = False

    @property
    def title(self) -> str:  # type: ignore[override]  # a sentence for each, not for the class
        return f"{self.name}: {self._symbols}. Nothing checks the answers; the reward model's score and the votes rank them."

    @property
    def formats(self) -> list[str]:  # type: ignore[override]
        spellings = [f"a text of {self._symbols}, with spaces between", f"a list of {self._symbols}, or lists of such"]
        return [*spellings, f"a text of {self.seq_len} digits"] if self.vocab_size <= _DIGITS else spellings

    @property
    def examples(self) -> list[JsonValue]:  # type: ignore[override]
        example = np.arange(self.seq_len) % self.vocab_size
        numbers: list[JsonValue] = [*example.tolist()]
        spellings: list[JsonValue] = [self.text(example), numbers]
        return [*spellings, "".join(map(str, example))] if self.vocab_size <= _DIGITS else spellings

    @property
    def _symbols(self) -> str:
        return f"{self.seq_len} numbers from 0 to {self.vocab_size - 1}"

    def parse(self, puzzle: object) -> Tokens:
        match puzzle:
            case str():
                numbers: list[object] = [word for word in _BETWEEN.split(puzzle) if word]
                if len(numbers) != self.seq_len and self.vocab_size <= _DIGITS:
                    numbers = [*"".join(map(str, numbers))]
            case list():
                numbers = [*_flat(puzzle)]
            case _:
                raise PuzzleError(f"write a puzzle of {self.name} as one of: {'; '.join(self.formats)}")
        symbols = [self._symbol(number, place) for place, number in enumerate(numbers, start=1)]
        if len(symbols) != self.seq_len:
            raise PuzzleError(f"there are {len(symbols)} numbers; a puzzle of {self.name} is {self._symbols}")
        return np.array(symbols, dtype=np.int64)

    def _symbol(self, number: object, place: int) -> int:
        is_number = isinstance(number, int) or (isinstance(number, str) and number.isascii() and number.isdigit())
        if is_number and not isinstance(number, bool) and 0 <= (symbol := int(str(number))) < self.vocab_size:
            return symbol
        raise PuzzleError(f"{str(number)[:20]!r} is no number from 0 to {self.vocab_size - 1}", f"number {place}")

    def text(self, tokens: Tokens) -> str:
        return " ".join(map(str, tokens.tolist()))

    def grid(self, tokens: Tokens) -> list[int]:
        numbers: list[int] = tokens.tolist()
        return numbers

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        raise NotImplementedError(f"nothing checks the answers of {self.name}")

    def solutions(self, puzzle: Tokens) -> Tokens:
        raise NotImplementedError(f"nothing lists the solutions of {self.name}")

    def count_solutions(self, puzzle: Tokens) -> None:  # noqa: ARG002
        return None

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        raise NotImplementedError(f"{self.name} has no training pairs without its data set")

    @cached_property
    def held_out(self) -> Tokens:
        """None are known to the server."""
        return np.empty((0, self.seq_len), dtype=np.int64)


def _flat(values: list[object]) -> Iterator[object]:
    """The numbers of nested lists."""
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value
