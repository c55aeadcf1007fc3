"""Boards as facts of answer set programming, such as "queen(1,5). queen(2,8)."."""

import re
import reprlib

from gram.models.tasks.base import PuzzleError

_START = re.compile(r"\s*(?:queens?|q)\s*\(", re.IGNORECASE)
_FACT = re.compile(r"(?:queens?|q)\s*\(\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*\)", re.IGNORECASE)
_COMMENT = re.compile(r"%.*")
_STATEMENT = re.compile(r"\s*(?:queens?|q)\s*\([^()]*\)\s*\.\s*", re.IGNORECASE)


def are_facts(text: str) -> bool:
    """Whether a text is a list of facts, right or wrong."""
    return bool(_START.match(_COMMENT.sub("", text)))


def is_statement(line: str) -> bool:
    """Whether a line has a single fact and a dot, as in a program, where a board takes several lines."""
    return bool(_STATEMENT.fullmatch(line))


def read(text: str, size: int) -> list[tuple[int, int]]:
    """Read the squares of the queens. Raises PuzzleError if one is off the board, or if something else is in the text."""
    text = _COMMENT.sub("", text)
    if others := _FACT.sub(" ", text).strip(" .,;\t\r\n"):
        raise PuzzleError(f"{reprlib.repr(others)} is not a fact queen(ROW, COLUMN)")
    facts = [(fact[0], int(fact[1]), int(fact[2])) for fact in _FACT.finditer(text)]
    first = 0 if any(0 in (row, column) for _, row, column in facts) else 1
    for fact, row, column in facts:
        for number in (row, column):
            if not first <= number < first + size:
                because = "; there is a 0, so all count from 0" if first == 0 else ""
                raise PuzzleError(f"{number} is not one of {first} to {first + size - 1}{because}", fact)
    return [(row - first, column - first) for _, row, column in facts]
