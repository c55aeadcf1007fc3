"""Graphs in the format of METIS: a line of sizes, then for each vertex a line of its neighbours, counted from 1."""

from gram.models.tasks.base import PuzzleError
from gram.models.tasks.coloring.graph import Graph, checked_size, numbered


def read(rows: list[tuple[str, list[str]]], most: int) -> Graph | None:
    """Read the places and the fields of lines; None if they are not of this format. An empty line is a vertex without edges."""
    written = [i for i, (_, fields) in enumerate(rows) if fields]
    rows = rows[written[0] : written[-1] + 1] if written else []
    if not rows or not all(field.isascii() and field.isdecimal() and len(field) < 10 for _, fields in rows for field in fields):
        return None
    (place, header), *lines = rows
    if not 2 <= len(header) <= 4 or len(lines) > int(header[0]):
        return None
    size, stated = map(int, header[:2])
    sizes, weights, edge_weights = (flag == "1" for flag in "".join(header[2:3]).zfill(3)[-3:])
    skipped = sizes + weights * int([*header[3:], "1"][0])
    around = [[int(vertex) - 1 for vertex in fields[skipped :: 1 + edge_weights]] for _, fields in lines]
    joined = {(i, j) for i, neighbors in enumerate(around) for j in neighbors}
    if not joined or any(i == j or (j, i) not in joined for i, j in joined):
        return None
    checked_size(size, most, place)
    if 2 * stated != len(joined):
        fix = "complete the lists of neighbours, or correct the number"
        raise PuzzleError(f"states {stated} edges, and {len(joined) // 2} follow; {fix}", place)
    return numbered(size, joined)
