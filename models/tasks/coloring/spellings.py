"""The accepted formats of a graph, a sentence each, and one graph written in each of them."""

from pydantic import JsonValue

from gram.models.tasks.coloring import dimacs
from gram.models.tasks.coloring.graph import Graph


def formats(most: int) -> list[str]:
    """A sentence for each format of graphs of up to `most` vertices."""
    return [
        f'{{"num_vertices": 1 to {most}, "edges": [[i, j], ...]}}, vertices counted from 0; '
        "an edge may be given twice, also as [j, i]",
        "DIMACS text: a line 'p edge VERTICES EDGES' (or 'p col'), then a line 'e i j' for each edge, counted from 1; "
        "EDGES is their number, or half or double of it; 'c vertex 1 is NAME' names a vertex; other comments (c) and colours "
        "(n) are read over",
        f"an adjacency matrix, as many lists as vertices (up to {most}) of as many numbers, 1 an edge and 0 none, or of "
        "booleans; or as many lines of text",
        '{"vertices": [NAME, ...], "edges": [[NAME, NAME], ...]}, or node-link data as of networkx; names are numbers or '
        "texts, and if all are numbers, they give the order",
        "the neighbours of each vertex: {NAME: [NAME, ...], ...}; a list of them for each vertex, counted from 0; or lines "
        "'NAME: NAME NAME', as listg of nauty prints them",
        "edges, as lines of two names, or as a list of pairs; a vertex without edges has a line of its own; as many lines of 0 "
        "and 1 as there are in each are a matrix",
        "graph6 or sparse6, a graph in one word",
        "GraphML, of which the nodes and the edges are read",
        "METIS: a line 'VERTICES EDGES', then for each vertex a line of its neighbours, counted from 1",
    ]


def examples(graph: Graph) -> list[JsonValue]:
    """The graph in each of the formats, in the same order."""
    vertices, edges = range(graph.size), sorted(graph.edges)
    around = [[j for j in vertices if (min(i, j), max(i, j)) in graph.edges] for i in vertices]
    pairs: list[JsonValue] = [[i, j] for i, j in edges]
    names: list[JsonValue] = [*vertices]
    neighbors: dict[str, JsonValue] = {str(i): [*others] for i, others in enumerate(around)}
    metis = [f"{graph.size} {len(edges)}", *(" ".join(str(j + 1) for j in others) for others in around)]
    return [
        {"num_vertices": graph.size, "edges": pairs},
        dimacs.write(graph.size, edges),
        [[int(j in others) for j in vertices] for others in around],
        {"vertices": names, "edges": pairs},
        neighbors,
        "\n".join(f"{i} {j}" for i, j in edges),
        _graph6(graph),
        _graphml(graph),
        "\n".join(metis),
    ]


def _graph6(graph: Graph) -> str:
    bits = "".join(str(int((i, j) in graph.edges)) for j in range(graph.size) for i in range(j))
    sixes = (bits[start : start + 6].ljust(6, "0") for start in range(0, len(bits), 6))
    return "".join(chr(63 + six) for six in (graph.size, *(int(six, 2) for six in sixes)))


def _graphml(graph: Graph) -> str:
    nodes = "".join(f'<node id="{i}"/>' for i in range(graph.size))
    edges = "".join(f'<edge source="{i}" target="{j}"/>' for i, j in sorted(graph.edges))
    inner = f'<graph edgedefault="undirected">{nodes}{edges}</graph>'
    return f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{inner}</graphml>'
