"""Where the mazes are in a text: one a line, or a row a line."""

from collections.abc import Iterable, Iterator

from gram.models.tasks.maze.codec import Codec
from gram.models.tasks.spelling import bracketed

FILES = [
    "Mazes of n lines, one below the other, with empty lines between them or without. Spaces at the end of a "
    "line count, so '.' is safer.",
    "Comments, which begin with '%'.",
]
"""What is found in files beside a maze a line."""


def find_mazes(codec: Codec, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The mazes of a text, each with the number of the line in which it begins, from 1.

    Rows stand together until the maze is whole, or until another line comes. Other lines are mazes of their own, right or
    wrong, but for those that are empty, and comments.
    """
    rows: list[str] = []
    start = 0
    for number, line in bracketed(lines):
        is_row = codec.is_row(line)
        if is_row:
            start = start if rows else number
            rows.append(line)
        if rows and (len(rows) == codec.size or not is_row):
            yield start, "\n".join(rows)
            rows = []
        if not is_row and line.strip() and not line.startswith("%"):
            yield number, line
    if rows:
        yield start, "\n".join(rows)
