"""How a graph is read and written: its spellings, and the symbols that the model has for it. It needs numpy alone."""

from collections.abc import Sequence

import numpy as np
from pydantic import JsonValue

from gram.models.tasks.base import Grid, PuzzleError, Tokens
from gram.models.tasks.coloring import dimacs, graph6, graphml, lines, objects
from gram.models.tasks.coloring.graph import Graph, numbered
from gram.models.tasks.coloring.spellings import examples, formats

NO_EDGE, EDGE, TO_COLOR, ABSENT, *COLORS = range(7)
MOST_TEXT = 65_536
"""The longest text that is read: many times what a graph of this size takes."""


class Codec:
    """Reads and writes graphs of up to n vertices as symbols [N], their upper triangle row by row and then their vertices."""

    def __init__(self, num_vertices: int) -> None:
        self.num_vertices = num_vertices
        self.pairs = np.triu_indices(num_vertices, k=1)
        """The two vertices of each place in the triangle."""
        self.num_pairs = len(self.pairs[0])
        self.formats = formats(num_vertices)

    def spellings(self) -> list[JsonValue]:
        """One graph in each of the formats."""
        edges = [(i, j) for i, j in np.transpose(self.pairs).tolist() if (j - i) % 3 == 1]
        return examples(numbered(self.num_vertices, edges))

    def read(self, puzzle: object) -> Graph:
        """Read a graph in any spelling. Raises PuzzleError."""
        match puzzle:
            case str() if puzzle.strip():
                return self._text(puzzle)
            case str():
                graph = None
            case _:
                graph = objects.read(puzzle, self.num_vertices)
        if graph is None:
            raise PuzzleError("a graph is one of: " + "; ".join(self.formats))
        return graph

    def tokens(self, graph: Graph) -> Tokens:
        """A graph as the model has it [N]."""
        matrix = np.full((self.num_vertices, self.num_vertices), NO_EDGE)
        for edge in graph.edges:
            matrix[edge] = EDGE
        vertices = np.where(np.arange(self.num_vertices) < graph.size, TO_COLOR, ABSENT)
        return np.concatenate([matrix[self.pairs], vertices])

    def text(self, tokens: Tokens, names: Sequence[str]) -> str:
        """A puzzle or an answer [N] in DIMACS' graph format, with the vertices' names, if they have some."""
        edges = np.argwhere(np.triu(self.adjacency(tokens))).tolist()
        colors = [(i, COLORS.index(token)) for i, token in enumerate(tokens[self.num_pairs :].tolist()) if token in COLORS]
        return dimacs.write(self._size(tokens), edges, colors, names)

    def grid(self, tokens: Tokens) -> Grid:
        """The colours of an answer, 0 to 2, by vertex (-1 if a wrong answer has none); the adjacency matrix of a puzzle."""
        size = self._size(tokens)
        vertices: list[int] = tokens[self.num_pairs :][:size].tolist()
        if any(token in COLORS for token in vertices):
            return [COLORS.index(token) if token in COLORS else -1 for token in vertices]
        matrix: list[list[int]] = self.adjacency(tokens)[:size, :size].tolist()
        return matrix

    def adjacency(self, tokens: Tokens) -> Tokens:
        """Puzzles or answers [..., N] as symmetric matrices of 0 and 1 [..., n, n]."""
        first, second = self.pairs
        matrix = np.zeros((*tokens.shape[:-1], self.num_vertices, self.num_vertices), dtype=np.int64)
        matrix[..., first, second] = matrix[..., second, first] = tokens[..., : self.num_pairs] == EDGE
        return matrix

    def _size(self, tokens: Tokens) -> int:
        """Read the number of vertices that a puzzle states."""
        return int(np.max(np.flatnonzero(tokens[self.num_pairs :] != ABSENT), initial=-1)) + 1

    def _text(self, text: str) -> Graph:
        if len(text) > MOST_TEXT:
            raise PuzzleError(f"this text has {len(text)} characters; send one graph, in up to {MOST_TEXT}")
        if graphml.is_graphml(text):
            return graphml.read(text, self.num_vertices)
        if graph6.is_word(text):
            return graph6.read(text, self.num_vertices)
        if dimacs.is_dimacs(text):
            return dimacs.read(text, self.num_vertices)
        return lines.read(text, self.num_vertices)
