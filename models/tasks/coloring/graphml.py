"""Graphs in GraphML, without what they say beside their nodes and edges.

networkx reads it as well, but joins nodes that the file does not have, and fails on attributes that don't matter here.
"""

from xml.etree import ElementTree

from gram.models.tasks.base import PuzzleError
from gram.models.tasks.coloring.graph import Graph, name_of, named

_GROWS = ("<!DOCTYPE", "<!ENTITY")
"""What lets a small document stand for a huge one, or for a file."""


def is_graphml(text: str) -> bool:
    """Whether a text is XML, right or wrong."""
    return text.lstrip().startswith("<")


def read(text: str, most: int) -> Graph:
    """Read a graph of up to `most` vertices."""
    if any(word in text.upper() for word in _GROWS):
        raise PuzzleError("a document type or an entity is not read; remove <!DOCTYPE ...> from the GraphML")
    try:
        root = ElementTree.fromstring(text.strip())
    except (ElementTree.ParseError, ValueError) as error:
        raise PuzzleError(f"this is not well-formed GraphML: {error}") from error
    graphs = root.findall("{*}graph")
    if len(graphs) != 1:
        raise PuzzleError(f"the GraphML has {len(graphs)} graphs; send one <graphml> with one <graph>")
    if graphs[0].find(".//{*}hyperedge") is not None:
        raise PuzzleError("the GraphML has a <hyperedge>; an edge joins two vertices")
    nodes = (name_of(node.get("id"), f"node {i}") for i, node in enumerate(graphs[0].findall(".//{*}node"), start=1))
    edges = enumerate(graphs[0].findall(".//{*}edge"), start=1)
    ends = ((name_of(e.get("source"), f"edge {i}"), name_of(e.get("target"), f"edge {i}"), f"edge {i}") for i, e in edges)
    return named(nodes, ends, most)
