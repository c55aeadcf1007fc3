"""A graph as people write it: how many vertices it has, what they are called, and which are joined."""

import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gram.models.tasks.base import PuzzleError

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,8}")
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Graph:
    """Vertices 0 to size - 1, the pairs of them that edges join, and their names, if these are not just numbers."""

    size: int
    edges: frozenset[tuple[int, int]]
    """Each with the smaller vertex first."""
    names: tuple[str, ...] = ()


def numbered(size: int, edges: Iterable[tuple[int, int]], names: Sequence[str] = ()) -> Graph:
    """A graph of vertices that are counted from 0. Names that only count the vertices, from 0 or from 1, are not kept."""
    _refuse_repeats(names)
    counted = any([*names] == [str(first + i) for i in range(size)] for first in (0, 1))
    return Graph(size, frozenset((min(edge), max(edge)) for edge in edges), () if counted else tuple(names))


def named(vertices: Iterable[str], edges: Iterable[tuple[str, str, str]], most: int) -> Graph:
    """A graph of at most `most` vertices, given by their names; an edge is two of them and the place where it is written.

    Vertices that are all whole numbers come in the order of these, others as they are given.
    """
    names = [*vertices]
    checked_size(len(names), most)
    if all(map(_NUMBER.fullmatch, names)):
        names.sort(key=int)
    found = {name: i for i, name in enumerate(names)}
    pairs = []
    for first, second, place in edges:
        for name in (first, second):
            if name not in found:
                raise PuzzleError(f"vertex {name} is not one of the vertices; add it to them", place)
        refuse_loop(first, second, place)
        pairs.append((found[first], found[second]))
    return numbered(len(names), pairs, names)


def _refuse_repeats(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise PuzzleError(f"two vertices are called {name}; give each its own name")


def name_of(value: object, place: str) -> str:
    """A vertex's name: a whole number or a text."""
    match value:
        case int() if not isinstance(value, bool) and abs(value) < 10**9:
            return str(value)
        case str() if (name := value.strip()) and name.isprintable() and len(name) <= _LONGEST_NAME:
            return name
    fix = f"write a whole number or a text of up to {_LONGEST_NAME} printable characters"
    raise PuzzleError(f"{reprlib.repr(value)} can't name a vertex; {fix}", place)


def checked_size(size: object, most: int, place: str | None = None) -> int:
    """A number of vertices, if it is one that the model takes."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise PuzzleError(f"{reprlib.repr(size)} is not a number of vertices from 1 to {most}", place)
    if size > most:
        raise PuzzleError(too_large(reprlib.repr(size), most), place)
    return size


def too_large(size: str, most: int) -> str:
    """What to say of a graph with more vertices than the model takes."""
    return f"the graph has {size} vertices, this model takes up to {most}; send a smaller one"


def checked_edge(i: int, j: int, first: int, last: int, place: str) -> tuple[int, int]:
    """An edge, if both ends are vertices and not the same one."""
    for vertex in (i, j):
        if not first <= vertex <= last:
            raise PuzzleError(f"vertex {reprlib.repr(vertex)} is not one of {first} to {last}", place)
    refuse_loop(i, j, place)
    return i, j


def refuse_loop(first: object, second: object, place: str) -> None:
    """Refuse an edge whose two ends are one vertex."""
    if first == second:
        raise PuzzleError(f"joins vertex {first} with itself, so no colouring is right; remove it", place)
