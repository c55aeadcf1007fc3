"""Graphs in DIMACS' format, which answers are written in, too. Comments "c vertex 1 is NAME" name the vertices."""

import re
import reprlib
from collections.abc import Iterable, Sequence

from gram.models.tasks.base import PuzzleError
from gram.models.tasks.coloring.graph import Graph, checked_edge, checked_size, name_of, numbered

_PROBLEM = re.compile(r"p\s+(?:edge|edges|col)\s+([0-9]{1,9})\s+([0-9]+)")
_EDGE = re.compile(r"e\s+([0-9]{1,9})\s+([0-9]{1,9})")
_NAME = re.compile(r"c\s+vertex\s+([0-9]{1,9})\s+is\s+(\S.*)")
_READ_OVER = {"c", "n", "d", "v", "x", "s", "b", "l"}
"""How lines begin that say nothing of the graph: comments, geometry, parameters, and colourings."""
_BEGINS = re.compile(r"\s*(?:c\s|c$|p\s+[a-z]+\s+[0-9]|e\s+[0-9])")
IS_PROBLEM = re.compile(r"\s*p\s+[a-z]+\s+[0-9]")
"""Matches the line with which a graph begins, but for comments."""


def is_dimacs(text: str) -> bool:
    """Whether a text is in this format, right or wrong."""
    return bool(_BEGINS.match(text)) or any(map(IS_PROBLEM.match, text.splitlines()))


def read(text: str, most: int) -> Graph:
    """Read a graph of up to `most` vertices."""
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    told = ((place, line) for place, line in lines if line and line[0] != "%" and line.split()[0] not in _READ_OVER)
    place, first = next(told, (None, ""))
    if first and _EDGE.fullmatch(first):
        raise PuzzleError("an edge before the line 'p edge VERTICES EDGES'; write that line first", place)
    if not first:
        raise PuzzleError("the graph has no line 'p edge VERTICES EDGES'; write it before the edges")
    if not (problem := _PROBLEM.fullmatch(first)):
        raise _neither(first, place)
    size = checked_size(int(problem[1]), most, place)
    edges = [_edge(line, size, where) for where, line in told]
    counts = (len(edges), 2 * len(edges), len(edges) / 2, len(set(map(frozenset, edges))))  # writers differ
    stated = problem[2].lstrip("0") or "0"
    if stated not in {f"{count:g}" for count in counts}:
        fix = "complete the list of edges, or correct the number"
        raise PuzzleError(f"states {stated[:12]} edges, and {len(edges)} follow; {fix}", place)
    return numbered(size, edges, _names(lines, size))


def write(size: int, edges: Iterable[Sequence[int]], colors: Iterable[tuple[int, int]] = (), names: Sequence[str] = ()) -> str:
    """A graph with a line "n VERTEX COLOUR" for each of the colours; all are given from 0, and written from 1."""
    found = [f"e {i + 1} {j + 1}" for i, j in edges]
    called = [f"c vertex {i} is {name}" for i, name in enumerate(names[:size], start=1) if name != str(i)]
    return "\n".join([*called, f"p edge {size} {len(found)}", *found, *(f"n {i + 1} {color + 1}" for i, color in colors)])


def _edge(line: str, size: int, place: str) -> tuple[int, int]:
    if _PROBLEM.fullmatch(line):
        raise PuzzleError("a second line 'p'; send one graph", place)
    if not (edge := _EDGE.fullmatch(line)):
        raise _neither(line, place)
    i, j = checked_edge(int(edge[1]), int(edge[2]), 1, size, place)
    return i - 1, j - 1


def _names(lines: Iterable[tuple[str, str]], size: int) -> list[str]:
    """The names of the vertices. A vertex without one has its number."""
    names = [str(vertex) for vertex in range(1, size + 1)]
    for place, line in lines:
        if name := _NAME.fullmatch(line):
            vertex = int(name[1])
            if not 1 <= vertex <= size:
                raise PuzzleError(f"vertex {vertex} is not one of 1 to {size}", place)
            names[vertex - 1] = name_of(name[2], place)
    return names


def _neither(line: str, place: str | None) -> PuzzleError:
    return PuzzleError(f"{reprlib.repr(line)} is neither 'p edge VERTICES EDGES' nor 'e i j'", place)
