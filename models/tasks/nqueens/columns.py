"""Boards as a list of columns: that of each row's queen."""

import re
import reprlib

from gram.models.tasks.base import PuzzleError

_FIELDS = re.compile(r"[\s,;]+")
_NUMBER = re.compile(r"-?[0-9]{1,3}")


def in_text(text: str, size: int) -> list[object]:
    """The numbers of a text, if it has nothing but numbers, and is not a board: one without spaces has a digit for each row."""
    fields = [field for field in _FIELDS.split(text) if field]
    if len(fields) == 1 and len(fields[0]) == size < 10:
        fields = [*fields[0]]
    known = all(_NUMBER.fullmatch(field) or field in ("null", "None") for field in fields)
    return [int(field) if _NUMBER.fullmatch(field) else None for field in fields] if known else []


def are_columns(numbers: list[object], size: int) -> bool:
    """Whether these can be the columns of n rows. Zeros and ones can be a row of squares as well."""
    whole = all(number is None or (isinstance(number, int) and not isinstance(number, bool)) for number in numbers)
    return len(numbers) == size and whole and not set(numbers) <= {0, 1}


def read(numbers: list[object], size: int) -> list[tuple[int, int]]:
    """Read the squares of the queens. Raises PuzzleError if a number is no column, or if columns can be counted in two ways."""
    placed = [number for number in numbers if isinstance(number, int) and number != -1]
    for i, number in enumerate(numbers):
        if isinstance(number, int) and not -1 <= number <= size:
            raise PuzzleError(
                f"{reprlib.repr(number)} is no column; write 1 to {size}, or 0 for a row without a queen", f"row {i + 1}"
            )
    if 0 in placed and len(placed) < size and (size in placed or placed.count(0) > 1):
        raise PuzzleError(
            f"0 and null (or -1) can't both be a row without a queen here; write 0 for these, and columns from 1 to {size}"
        )
    first = _first(placed, size)
    return [(row, number - first) for row, number in enumerate(numbers) if isinstance(number, int) and number >= first]


def _first(placed: list[int], size: int) -> int:
    """Whether the columns are counted from 0 or from 1."""
    if size in placed or placed.count(0) > 1 or not placed:
        return 1
    if 0 in placed and (len(placed) < size or len(set(placed)) == size):
        return 0
    pairs = '{"queens": [[row, column], ...]}, counted from 0'
    raise PuzzleError(f"these columns can be counted from 0 or from 1; write {pairs}")
