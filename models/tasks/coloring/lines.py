"""Graphs as lines of text: edges, neighbours, matrices, METIS, and what listg of nauty prints."""

import re

from gram.models.tasks.base import PuzzleError
from gram.models.tasks.coloring import edges, metis
from gram.models.tasks.coloring.edges import CLEAR, Row
from gram.models.tasks.coloring.graph import Graph
from gram.models.tasks.coloring.objects import matrix
from gram.models.tasks.spelling import is_comment

LISTG = re.compile(r"\s*Graph [0-9]{1,9}, order [0-9]{1,9}\.?\s*")
"""The line above each graph that listg prints."""
_SEPARATORS = re.compile(r"[\s,;]+")
_ATTRIBUTES = re.compile(r"\{[^{}]*\}\s*$")
"""What networkx writes after an edge."""


def read(text: str, most: int) -> Graph:
    """Read a graph of up to `most` vertices. Raises PuzzleError if the lines can be two different ones."""
    numbered = ((f"line {i}", line) for i, line in enumerate(text.splitlines(), start=1) if not is_comment(line))
    lines = [(place, _ATTRIBUTES.sub("", line)) for place, line in numbered]
    headers = [place for place, line in lines if LISTG.fullmatch(line)]
    if len(headers) > 1:
        raise PuzzleError("a second graph begins here; send one graph", headers[1])
    lines = [(place, line) for place, line in lines if place not in headers]
    if any(":" in line for _, line in lines):
        return edges.read_around([(place, *_around(line)) for place, line in lines if line.strip()], most)
    fields = [(place, _fields(line)) for place, line in lines]
    rows = [row for row in fields if row[1]]
    if bits := _bits(rows):
        return matrix(bits, most)
    of_metis = metis.read(fields, most)
    try:
        listed = edges.read(rows, most)
    except PuzzleError:
        if of_metis is None:
            raise
        return of_metis
    if of_metis not in (None, listed):
        raise PuzzleError(f"these lines can be edges, and they can be a graph of METIS; {CLEAR}")
    edges.refuse_counts(rows)
    return listed


def _fields(line: str) -> list[str]:
    return [field for field in _SEPARATORS.split(line) if field]


def _around(line: str) -> tuple[str, str, list[str]]:
    """A vertex, the colon after it, and its neighbours."""
    vertex, colon, others = line.partition(":")
    return vertex.strip(), colon, _fields(others)


def _bits(rows: list[Row]) -> list[list[object]] | None:
    """As many rows of 0 and 1 as there are in each, if that is what these are."""
    cells = [[*fields[0]] if len(fields) == 1 else fields for _, fields in rows]
    if len(cells) > 1 and all(len(row) == len(cells) and set(row) <= {"0", "1"} for row in cells):
        return [[int(cell) for cell in row] for row in cells]
    return None
