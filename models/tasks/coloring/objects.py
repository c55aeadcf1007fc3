"""Graphs as JSON: lists of edges, lists of neighbours, adjacency matrices, and networkx's node-link data."""

import reprlib
from collections.abc import Iterable
from typing import cast

from gram.models.tasks.base import PuzzleError, cell_name
from gram.models.tasks.coloring.graph import Graph, checked_edge, checked_size, name_of, named, numbered

_NODE_LINK = {"directed", "multigraph", "graph"}
"""What networkx writes beside the nodes and the edges; an edge is an edge, whatever these say."""


def read(value: object, most: int) -> Graph | None:
    """Read a graph of up to `most` vertices; None if this is not a spelling of one."""
    match value:
        case {"num_vertices": size, "edges": list(edges), **others} if not others:
            size = checked_size(size, most, "num_vertices")
            return numbered(size, [_pair(edge, size, f"edges[{i}]") for i, edge in enumerate(edges)])
        case {"vertices": list(vertices), "edges": list(edges), **others} if not others:
            return _listed("vertices", vertices, "edges", edges, most)
        case {"nodes": list(vertices), "edges": list(edges), **others} if set(others) <= _NODE_LINK:
            return _listed("nodes", vertices, "edges", edges, most)
        case {"nodes": list(vertices), "links": list(edges), **others} if set(others) <= _NODE_LINK:
            return _listed("nodes", vertices, "links", edges, most)
        case dict() if any(value.values()) and all(isinstance(around, list | dict) for around in value.values()):
            return _neighbors(cast("dict[object, list[object] | dict[object, object]]", value), most)
        case [*rows] if any(rows) and all(isinstance(row, list) for row in rows):
            return _rows(cast("list[list[object]]", rows), most)
    return None


def matrix(rows: list[list[object]], most: int) -> Graph:
    """Read an adjacency matrix of 0 and 1."""
    size = checked_size(len(rows), most)
    for i, row in enumerate(rows):
        if len(row) != size:
            raise PuzzleError(f"has {len(row)} numbers; write {size}, one for each vertex", f"row {i + 1}")
        for j, number in enumerate(row):
            if not _is_bit(number):
                raise PuzzleError(f"{reprlib.repr(number)} is not 0 or 1", cell_name(i, j))
            if i == j and number:
                raise PuzzleError("joins a vertex with itself, so no colouring is right; write 0", cell_name(i, j))
            if j < i and number != rows[j][i]:
                message = f"is {number} but {cell_name(j, i)} is {rows[j][i]}; an edge goes both ways, so write one number"
                raise PuzzleError(message, cell_name(i, j))
    return numbered(size, [(i, j) for i, row in enumerate(rows) for j, number in enumerate(row) if number])


def _is_bit(number: object) -> bool:
    return isinstance(number, int) and number in (0, 1)


def _pair(pair: object, size: int, place: str) -> tuple[int, int]:
    match pair:
        case [int(i), int(j)] if not isinstance(i, bool) and not isinstance(j, bool):
            return checked_edge(i, j, 0, size - 1, place)
    raise PuzzleError(f"{reprlib.repr(pair)} is not a pair [i, j] of vertices from 0 to {size - 1}", place)


def _listed(vertices_are: str, vertices: list[object], edges_are: str, edges: list[object], most: int) -> Graph:
    """A graph of named vertices. A node without "id" is called by its place, as by networkx."""
    checked_size(len(vertices), most, vertices_are)
    plain = [vertex.get("id", i) if isinstance(vertex, dict) else vertex for i, vertex in enumerate(vertices)]
    names = [name_of(vertex, f"{vertices_are}[{i}]") for i, vertex in enumerate(plain)]
    return named(names, (_ends(edge, f"{edges_are}[{i}]") for i, edge in enumerate(edges)), most)


def _ends(edge: object, place: str) -> tuple[str, str, str]:
    match edge:
        case [first, second] | [first, second, dict()] | {"source": first, "target": second}:
            return name_of(first, place), name_of(second, place), place
    raise PuzzleError(f'{reprlib.repr(edge)} is neither a pair [NAME, NAME] nor {{"source": NAME, "target": NAME}}', place)


def _neighbors(around: dict[object, list[object] | dict[object, object]], most: int) -> Graph:
    """A graph as the neighbours of each vertex, by name. An edge may be told by one of its ends or by both."""
    checked_size(len(around), most)
    names = [name_of(vertex, "a vertex") for vertex in around]
    places = [f"the neighbours of {name}" for name in names]
    listed = zip(names, places, around.values(), strict=True)
    return named(names, ((name, name_of(other, place), place) for name, place, others in listed for other in others), most)


def _rows(rows: list[list[object]], most: int) -> Graph:
    """Read a matrix, if a list is as long as there are lists; else pairs, which are edges, or the neighbours of each vertex."""
    in_pairs = all(len(row) == 2 or (len(row) == 3 and isinstance(row[2], dict)) for row in rows)
    of_bits = all(_is_bit(number) for row in rows for number in row)
    if max(map(len, rows)) >= len(rows) and not (in_pairs and not (len(rows) == 2 and of_bits)):
        return matrix(rows, most)
    if not in_pairs:
        return _numbered_neighbors(rows, most)
    pairs = _pairs(rows, most)
    try:
        neighbors = _numbered_neighbors(rows, most)
    except PuzzleError:
        return pairs
    if neighbors != pairs:
        fix = '{"num_vertices": ..., "edges": [...]} or {"0": [...], "1": [...], ...}'
        raise PuzzleError(f"these pairs can be edges, and they can be the neighbours of each vertex; write {fix}")
    return pairs


def _pairs(rows: Iterable[list[object]], most: int) -> Graph:
    edges = [_ends(row, f"edge {i + 1}") for i, row in enumerate(rows)]
    return named(dict.fromkeys(name for first, second, _ in edges for name in (first, second)), edges, most)


def _numbered_neighbors(rows: list[list[object]], most: int) -> Graph:
    """The neighbours of each vertex, counted from 0. Both ends of an edge tell it, or they might be counted from 1."""
    size = checked_size(len(rows), most)
    places = [f"the neighbours of vertex {i}" for i in range(size)]
    joined = {_pair([i, j], size, places[i]) for i, row in enumerate(rows) for j in row}
    for i, j in joined:
        if (j, i) not in joined:
            raise PuzzleError(f"vertex {i} is missing; an edge goes both ways, and vertices are counted from 0", places[j])
    return numbered(size, joined)
