"""Graph colouring: give each vertex one of three colours so that no edge joins two vertices of the same colour."""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Grid, Task, Tokens
from gram.models.tasks.coloring.codec import ABSENT, COLORS, EDGE, TO_COLOR, Codec
from gram.models.tasks.coloring.colorings import Colorings
from gram.models.tasks.coloring.files import find_graphs
from gram.models.tasks.coloring.isomorphism import isomorphism_hash
from gram.models.tasks.symmetry import Symmetries

_Propose = Callable[[np.random.Generator, int], Tokens]


class Coloring(Task):
    """A puzzle is a graph of up to n vertices: its upper triangle row by row, then its vertices; [N], N = n(n-1)/2 + n.

    The vertices of a smaller graph come first, and the others are absent. In an answer the present vertices have colours.
    Colours are interchangeable: the canonical answer names them in the order in which they first appear.

    The graphs of the benchmark, as in the paper, have each edge with probability 1/2, given that three colours suffice.
    Training also sees smaller, sparser and denser ones, so that the model answers any graph that a user may send. n is at most
    10.
    """

    files = [
        "Graphs in DIMACS' format, each from its line 'p' on and with the comments before it.",
        "What listg of nauty prints, from each 'Graph 1, order 4.' on.",
        "One graph in GraphML, in METIS' format, or as lines of edges or of neighbours.",
        "Comments, which begin with '#' or '%'.",
    ]
    vocab_size = 7
    benchmark_edge_rate = 0.5
    benchmark_share = 0.8
    other_edge_rates = (0.1, 0.7)
    other_least_vertices = 3
    held_out_every = 8
    held_out_graphs = {8: 255, 10: 192}
    """The number of held-out graphs, as in the paper."""

    def __init__(self, num_vertices: int, paper: dict[str, float]) -> None:
        self.num_vertices = num_vertices
        self.name = f"coloring-{num_vertices}"
        self.title = f"3-colouring: colour a graph of up to {num_vertices} vertices, no edge joining two of one colour."
        self.codec = Codec(num_vertices)
        self.colorings = Colorings(self.codec)
        self.names: tuple[str, ...] = ()
        """What the vertices of a puzzle are called, if they have names."""
        self.num_pairs = self.codec.num_pairs
        self.seq_len = self.num_pairs + num_vertices
        self.paper = paper
        self.num_draws = num_vertices
        self.formats = self.codec.formats
        self.examples = self.codec.spellings()

    def parse(self, puzzle: object) -> Tokens:
        return self.codec.tokens(self.codec.read(puzzle))

    def posed(self, puzzle: object) -> tuple["Coloring", Tokens]:
        """With the names that the puzzle gives to its vertices."""
        graph = self.codec.read(puzzle)
        view = copy(self)
        view.names = graph.names
        return view, self.codec.tokens(graph)

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        return find_graphs(lines)

    def text(self, tokens: Tokens) -> str:
        """A puzzle or an answer [N] in DIMACS' graph format. Colours are lines "n VERTEX COLOUR", both from 1."""
        return self.codec.text(tokens, self.names)

    def grid(self, tokens: Tokens) -> Grid:
        return self.codec.grid(tokens)

    def given(self, puzzle: Tokens) -> NDArray[np.bool_]:
        """All but the vertices to colour."""
        given: NDArray[np.bool_] = puzzle != TO_COLOR
        return given

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        uncolored = np.where(_colored(answer), TO_COLOR, answer)
        whole = not np.any(answer == TO_COLOR)
        return whole and np.array_equal(uncolored, puzzle) and self.conflicts(puzzle, answer) == 0

    def conflicts(self, puzzle: Tokens, answer: Tokens) -> int:
        """The number of edges of the puzzle to whose ends the answer does not give two different colours."""
        first, second = (answer[self.num_pairs :][ends] for ends in self.codec.pairs)
        apart = _colored(first) & _colored(second) & (first != second)
        return int(np.sum((puzzle[: self.num_pairs] == EDGE) & ~apart))

    def solutions(self, puzzle: Tokens) -> Tokens:
        return self.colorings.of(puzzle)

    def canonical(self, answer: Tokens) -> Tokens:
        canonical = answer.copy()
        vertices = canonical[self.num_pairs :]
        colored = _colored(vertices)
        _, first, color = np.unique(vertices[colored], return_index=True, return_inverse=True)
        vertices[colored] = COLORS[0] + np.argsort(np.argsort(first))[color]
        return canonical

    def symmetries(self, puzzles: Tokens, draws: NDArray[np.float64]) -> Symmetries:
        """Reorder the vertices, with the absent ones still last."""
        order = np.argsort(draws + (puzzles[:, self.num_pairs :] == ABSENT), axis=1)
        first, second = self.codec.pairs
        cells = np.concatenate([self._pair_places[order[:, first], order[:, second]], self.num_pairs + order], axis=1)
        return replace(super().symmetries(puzzles, draws), cells=cells)

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Training pairs, both [count, N]: new random graphs, each with one of its canonical solutions, drawn uniformly."""
        benchmark = rng.random(count) < self.benchmark_share
        puzzles = np.empty((count, self.seq_len), dtype=np.int64)
        puzzles[benchmark] = self._draw(rng, int(np.sum(benchmark)), self._benchmark_graphs, held_out=False)
        puzzles[~benchmark] = self._draw(rng, int(np.sum(~benchmark)), self._other_graphs, held_out=False)
        answers = np.empty_like(puzzles)
        for i, puzzle in enumerate(puzzles):
            answers[i] = rng.choice(self.solutions(puzzle))
        return puzzles, answers

    @cached_property
    def held_out(self) -> Tokens:
        """Graphs of the benchmark [n, N], no two of them isomorphic, in the order of a fixed random draw."""
        count = self.held_out_graphs[self.num_vertices]
        drawn = self._draw(np.random.default_rng(0), 4 * count, self._benchmark_graphs, held_out=True)
        _, first = np.unique(isomorphism_hash(self.codec.adjacency(drawn)), return_index=True)
        return drawn[np.sort(first)[:count]]

    def _draw(self, rng: np.random.Generator, count: int, propose: _Propose, *, held_out: bool) -> Tokens:
        """3-colourable graphs [count, N] from one side of the split.

        The split is by a hash that isomorphic graphs share, so a graph and its images are on the same side.
        """
        kept = [np.empty((0, self.seq_len), dtype=np.int64)]
        while sum(map(len, kept)) < count:
            graphs = propose(rng, 64)
            graphs = graphs[self.colorings.exist(graphs)]
            side = isomorphism_hash(self.codec.adjacency(graphs)) % np.uint64(self.held_out_every) == 0
            kept.append(graphs[side == held_out])
        return np.concatenate(kept)[:count]

    def _benchmark_graphs(self, rng: np.random.Generator, count: int) -> Tokens:
        graphs = np.full((count, self.seq_len), TO_COLOR)
        graphs[:, : self.num_pairs] = rng.random((count, self.num_pairs)) < self.benchmark_edge_rate
        return graphs

    def _other_graphs(self, rng: np.random.Generator, count: int) -> Tokens:
        sizes = rng.integers(self.other_least_vertices, self.num_vertices + 1, size=(count, 1))
        rates = rng.uniform(*self.other_edge_rates, size=(count, 1))
        edges = (rng.random((count, self.num_pairs)) < rates) & (self.codec.pairs[1] < sizes)
        vertices = np.where(np.arange(self.num_vertices) < sizes, TO_COLOR, ABSENT)
        return np.concatenate([edges, vertices], axis=1, dtype=np.int64)

    @cached_property
    def _pair_places(self) -> Tokens:
        """The place of each pair of vertices in a puzzle [n, n]."""
        first, second = self.codec.pairs
        places = np.zeros((self.num_vertices, self.num_vertices), dtype=np.int64)
        places[first, second] = places[second, first] = np.arange(self.num_pairs)
        return places


def _colored(tokens: Tokens) -> NDArray[np.bool_]:
    """Which tokens [..., N] are colours, which are the last symbols."""
    return tokens >= COLORS[0]
