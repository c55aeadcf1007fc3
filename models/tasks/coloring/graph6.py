"""Graphs in one word: graph6 and sparse6, which nauty, SageMath and the House of Graphs write."""

import re

from gram.models.tasks.base import PuzzleError
from gram.models.tasks.coloring.graph import Graph, checked_edge, checked_size, numbered, too_large

_HEADER = re.compile(r">>(?:graph6|sparse6)<<")
_WORD = re.compile(r"(?:>>(?:graph6|sparse6)<<|:)\S*|[?-~]+")
_FIRST, _LAST = "?~"
"""A symbol stands for 0 to 63, six bits."""


def is_word(text: str) -> bool:
    """Whether a text is in one of the two formats, right or wrong."""
    return bool(_WORD.fullmatch(text.strip()))


def read(text: str, most: int) -> Graph:
    """Read a graph of up to `most` vertices. It is built only after its size has been checked."""
    word = _HEADER.sub("", text.strip())
    sparse = word.startswith(":")
    symbols = word.removeprefix(":") or " "
    for symbol in symbols:
        if not _FIRST <= symbol <= _LAST:
            raise PuzzleError(f"{symbol!r} is no symbol of graph6 or sparse6; these are '{_FIRST}' to '{_LAST}'")
    if symbols[0] == _LAST:
        raise PuzzleError(too_large("more than 62", most))
    size = ord(symbols[0]) - ord(_FIRST)
    needed = (size * (size - 1) // 2 + 5) // 6
    if not sparse and len(symbols) - 1 != needed:
        message = f"a graph of {size} vertices has {needed} symbols after the first, and {len(symbols) - 1} follow"
        raise PuzzleError(f"{message}; send one whole word of graph6")
    checked_size(size, most)
    import networkx

    read_bytes = networkx.from_sparse6_bytes if sparse else networkx.from_graph6_bytes
    edges = (checked_edge(i, j, 0, size - 1, "an edge") for i, j in read_bytes(word.encode()).edges())
    return numbered(size, edges)
