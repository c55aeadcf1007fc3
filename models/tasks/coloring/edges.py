"""Graphs as rows of names: an edge in each row, or a vertex and its neighbours."""

import re
import reprlib
from itertools import chain

from gram.models.tasks.base import PuzzleError
from gram.models.tasks.coloring.graph import Graph, name_of, named

CLEAR = 'write {"num_vertices": ..., "edges": [[i, j], ...]}'
"""What to do about a text that can be two graphs."""
_NAME = re.compile(r"[\w.]{1,15}")
"""A name in a text without quotation marks. A Sudoku is longer."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_WEIGHT = re.compile(r"-?[0-9]+\.[0-9]*(?:e[-+][0-9]+)?")
_HEADS = {("source", "target"), ("from", "to")}
"""How the first row of a table of edges begins."""

Row = tuple[str, list[str]]
"""The place of a row, and what stands in it."""


def read(rows: list[Row], most: int) -> Graph:
    """Read rows of two names, each an edge, and of one, each a vertex without edges; or of each vertex and its neighbours."""
    rows = _without_weights(rows)
    names = [[_name(field, place) for field in fields] for place, fields in rows]
    vertices = dict.fromkeys(chain(*names))
    joined = [(fields[0], fields[1], place) for fields, (place, _) in zip(names, rows, strict=True) if len(fields) == 2]
    lone = [fields[0] for fields in names if len(fields) == 1]
    if len(lone) == len(rows):
        raise PuzzleError("no line of this text joins two vertices; write an edge of two names on each line")
    if len(rows) == 1 and not all(map(_NUMBER.fullmatch, vertices)):
        raise PuzzleError("a line of words is no graph; write each edge on a line of its own")
    if len(joined) + len(lone) == len(rows) and {*lone}.isdisjoint(name for edge in joined for name in edge[:2]):
        return named(vertices, joined, most)
    if len({fields[0] for fields in names}) == len(rows) == len(vertices) and len({*map(len, names)}) > 1:
        return read_around([(place, vertex, ":", others) for place, (vertex, *others) in rows], most)
    place, fields = next(row for row in rows if len(row[1]) != 2)
    fix = "write an edge of two on each line, or for each vertex a line of it, ':' and its neighbours"
    raise PuzzleError(f"has {len(fields)} names; {fix}", place)


def read_around(rows: list[tuple[str, str, str, list[str]]], most: int) -> Graph:
    """Read rows of a vertex, the colon after it, and its neighbours."""
    for place, vertex, colon, _ in rows:
        if not vertex or not colon:
            raise PuzzleError("is not a vertex, ':' and its neighbours", place)
    vertices = [_name(vertex, place) for place, vertex, _, _ in rows]
    return named(vertices, ((vertex, _name(o, place), place) for place, vertex, _, others in rows for o in others), most)


def _name(field: str, place: str) -> str:
    if not _NAME.fullmatch(field):
        fix = "write names of up to 15 letters, digits, '_' and '.', with spaces between them"
        raise PuzzleError(f"{reprlib.repr(field)} can't name a vertex here; {fix}", place)
    return name_of(field, place)


def _without_weights(rows: list[Row]) -> list[Row]:
    """The first two fields of each row, if the others are told by a line of titles, or are decimal numbers."""
    titled = bool(rows) and tuple(field.lower() for field in rows[0][1][:2]) in _HEADS
    if titled or all(len(fields) == 3 and _WEIGHT.fullmatch(fields[2]) for _, fields in rows):
        return [(place, fields[:2]) for place, fields in rows[titled:]]
    return rows


def refuse_counts(rows: list[Row]) -> None:
    """Refuse edges of which the first may be the numbers of vertices and edges."""
    (place, first), *others = rows
    numbers = [int(field) for _, fields in rows for field in fields if _NUMBER.fullmatch(field)]
    counts = len(first) == 2 and numbers[1:2] == [len(others)]
    if counts and len(numbers) == 2 * len(rows) and numbers[0] == max(numbers[:1] + numbers[2:]):
        raise PuzzleError(f"can be an edge, and can be the numbers of vertices and edges; {CLEAR}", place)
