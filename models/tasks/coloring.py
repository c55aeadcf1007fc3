"""Graph colouring: give each vertex one of three colours so that no edge joins two vertices of the same colour."""

import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gram.models.tasks.base import Grid, PuzzleError, Task, Tokens, cell_name
from gram.models.tasks.symmetry import Symmetries, Words, mix

NO_EDGE, EDGE, TO_COLOR, ABSENT, *COLORS = range(7)
_PROBLEM = re.compile(r"p\s+(?:edge|edges|col)\s+([0-9]{1,9})\s+([0-9]+)")
_EDGE = re.compile(r"e\s+([0-9]{1,9})\s+([0-9]{1,9})")

_Propose = Callable[[np.random.Generator, int], Tokens]


class Coloring(Task):
    """A puzzle is a graph of up to n vertices: its upper triangle row by row, then its vertices; [N], N = n(n-1)/2 + n.

    The vertices of a smaller graph come first, and the others are absent. In an answer the present vertices have colours.
    Colours are interchangeable: the canonical answer names them in the order in which they first appear.

    The graphs of the benchmark, as in the paper, have each edge with probability 1/2, given that three colours suffice.
    Training also sees smaller, sparser and denser ones, so that the model answers any graph that a user may send. n is at most
    10.
    """

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
        self.num_pairs = num_vertices * (num_vertices - 1) // 2
        self.seq_len = self.num_pairs + num_vertices
        self.paper = paper
        self.num_draws = num_vertices
        self._pairs = np.triu_indices(num_vertices, k=1)
        edges = [(i, j) for i, j in np.transpose(self._pairs).tolist() if (j - i) % 3 == 1]
        example = self._puzzle(num_vertices, edges)
        self.examples = [
            {"num_vertices": num_vertices, "edges": [[i, j] for i, j in edges]},
            self.text(example),
            self._adjacency(example).tolist(),
        ]
        self.formats = [
            f'{{"num_vertices": 1 to {num_vertices}, "edges": [[i, j], ...]}}, vertices counted from 0; '
            "an edge may be given twice, also as [j, i]",
            "DIMACS text: a line 'p edge VERTICES EDGES' (or 'p col'), then a line 'e i j' for each edge, counted from 1; "
            "EDGES is their number, or half or double of it; comments (c) and colours (n) are read over",
            f"an adjacency matrix, as many lists as vertices (up to {num_vertices}) of as many numbers, 1 an edge and 0 "
            "none, or of booleans",
        ]

    def parse(self, puzzle: object) -> Tokens:
        match puzzle:
            case {"num_vertices": count, "edges": list(edges), **others} if not others:
                count = self._count(count, "num_vertices")
                return self._puzzle(count, (_pair(edge, count, f"edges[{i}]") for i, edge in enumerate(edges)))
            case str() if puzzle.strip():
                return self._dimacs(puzzle)
            case [*rows] if rows and all(isinstance(row, list) for row in rows):
                return self._matrix(cast("list[list[object]]", rows))
        raise PuzzleError("a graph is one of: " + "; ".join(self.formats))

    def text(self, tokens: Tokens) -> str:
        """A puzzle or an answer [N] in DIMACS' graph format. Colours are lines "n VERTEX COLOUR", both from 1."""
        edges = np.argwhere(np.triu(self._adjacency(tokens))) + 1
        lines = [f"p edge {self._size(tokens)} {len(edges)}", *(f"e {i} {j}" for i, j in edges)]
        vertices = enumerate(tokens[self.num_pairs :].tolist(), start=1)
        return "\n".join(lines + [f"n {vertex} {COLORS.index(token) + 1}" for vertex, token in vertices if token in COLORS])

    def grid(self, tokens: Tokens) -> Grid:
        """The colours of an answer, 0 to 2, by vertex (-1 if a wrong answer has none); the adjacency matrix of a puzzle."""
        size = self._size(tokens)
        vertices: list[int] = tokens[self.num_pairs :][:size].tolist()
        if any(token in COLORS for token in vertices):
            return [COLORS.index(token) if token in COLORS else -1 for token in vertices]
        matrix: list[list[int]] = self._adjacency(tokens)[:size, :size].tolist()
        return matrix

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
        first, second = (answer[self.num_pairs :][ends] for ends in self._pairs)
        apart = _colored(first) & _colored(second) & (first != second)
        return int(np.sum((puzzle[: self.num_pairs] == EDGE) & ~apart))

    def solutions(self, puzzle: Tokens) -> Tokens:
        found = self._colorings[(self._excludes & _word(puzzle)) == 0]
        answers = np.tile(puzzle, (len(found), 1))
        answers[:, self.num_pairs :] = np.where(puzzle[self.num_pairs :] == ABSENT, ABSENT, found)
        return answers

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
        first, second = self._pairs
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
        _, first = np.unique(isomorphism_hash(self._adjacency(drawn)), return_index=True)
        return drawn[np.sort(first)[:count]]

    def _draw(self, rng: np.random.Generator, count: int, propose: _Propose, *, held_out: bool) -> Tokens:
        """3-colourable graphs [count, N] from one side of the split.

        The split is by a hash that isomorphic graphs share, so a graph and its images are on the same side.
        """
        kept = [np.empty((0, self.seq_len), dtype=np.int64)]
        while sum(map(len, kept)) < count:
            graphs = propose(rng, 64)
            graphs = graphs[np.any(self._excludes & _word(graphs)[:, None] == 0, axis=1)]
            side = isomorphism_hash(self._adjacency(graphs)) % np.uint64(self.held_out_every) == 0
            kept.append(graphs[side == held_out])
        return np.concatenate(kept)[:count]

    def _benchmark_graphs(self, rng: np.random.Generator, count: int) -> Tokens:
        graphs = np.full((count, self.seq_len), TO_COLOR)
        graphs[:, : self.num_pairs] = rng.random((count, self.num_pairs)) < self.benchmark_edge_rate
        return graphs

    def _other_graphs(self, rng: np.random.Generator, count: int) -> Tokens:
        sizes = rng.integers(self.other_least_vertices, self.num_vertices + 1, size=(count, 1))
        rates = rng.uniform(*self.other_edge_rates, size=(count, 1))
        edges = (rng.random((count, self.num_pairs)) < rates) & (self._pairs[1] < sizes)
        vertices = np.where(np.arange(self.num_vertices) < sizes, TO_COLOR, ABSENT)
        return np.concatenate([edges, vertices], axis=1, dtype=np.int64)

    @cached_property
    def _colorings(self) -> Tokens:
        """All colourings of n vertices in canonical form [m, n], in lexical order."""
        colors = np.indices((len(COLORS),) * self.num_vertices).reshape(self.num_vertices, -1).T
        used = np.maximum.accumulate(colors, axis=1)
        canonical = (colors[:, 0] == 0) & np.all(colors[:, 1:] <= used[:, :-1] + 1, axis=1)
        colorings: Tokens = colors[canonical] + COLORS[0]
        return colorings

    @cached_property
    def _excludes(self) -> Words:
        """What a puzzle must not have if each of the colourings is to solve it, as the bits of words [m]; see `_word`.

        These are edges between vertices of one colour, and absent vertices with any but the first colour. So each colouring of
        a smaller graph is counted once.
        """
        one_color = self._colorings[:, self._pairs[0]] == self._colorings[:, self._pairs[1]]
        return _bits(np.concatenate([one_color, self._colorings != COLORS[0]], axis=1))

    @cached_property
    def _pair_places(self) -> Tokens:
        """The place of each pair of vertices in a puzzle [n, n]."""
        first, second = self._pairs
        places = np.zeros((self.num_vertices, self.num_vertices), dtype=np.int64)
        places[first, second] = places[second, first] = np.arange(self.num_pairs)
        return places

    def _adjacency(self, tokens: Tokens) -> Tokens:
        """Puzzles or answers [..., N] as symmetric matrices of 0 and 1 [..., n, n]."""
        first, second = self._pairs
        matrix = np.zeros((*tokens.shape[:-1], self.num_vertices, self.num_vertices), dtype=np.int64)
        matrix[..., first, second] = matrix[..., second, first] = tokens[..., : self.num_pairs] == EDGE
        return matrix

    def _size(self, tokens: Tokens) -> int:
        """Read the number of vertices that a puzzle states."""
        return int(np.max(np.flatnonzero(tokens[self.num_pairs :] != ABSENT), initial=-1)) + 1

    def _puzzle(self, count: int, edges: Iterable[tuple[int, int]]) -> Tokens:
        matrix = np.full((self.num_vertices, self.num_vertices), NO_EDGE)
        for i, j in edges:
            matrix[min(i, j), max(i, j)] = EDGE
        vertices = np.where(np.arange(self.num_vertices) < count, TO_COLOR, ABSENT)
        return np.concatenate([matrix[self._pairs], vertices])

    def _count(self, count: object, place: str | None) -> int:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise PuzzleError(f"{reprlib.repr(count)} is not a number of vertices from 1 to {self.num_vertices}", place)
        if count > self.num_vertices:
            message = (
                f"the graph has {reprlib.repr(count)} vertices, this model takes up to {self.num_vertices}; send a smaller one"
            )
            raise PuzzleError(message, place)
        return count

    def _dimacs(self, text: str) -> Tokens:
        count, stated, place_stated, edges = None, "", "", list[tuple[int, int]]()
        for number, line in enumerate(text.splitlines(), start=1):
            words, place = line.strip(), f"line {number}"
            if not words or words.split()[0] in ("c", "n"):
                continue
            if problem := _PROBLEM.fullmatch(words):
                if count is not None:
                    raise PuzzleError("a second line 'p'; send one graph", place)
                count = self._count(int(problem[1]), place)
                stated, place_stated = problem[2].lstrip("0") or "0", place
            elif edge := _EDGE.fullmatch(words):
                if count is None:
                    raise PuzzleError("an edge before the line 'p edge VERTICES EDGES'; write that line first", place)
                i, j = _edge(int(edge[1]), int(edge[2]), 1, count, place)
                edges.append((i - 1, j - 1))
            else:
                raise PuzzleError(f"{reprlib.repr(words)} is neither 'p edge VERTICES EDGES' nor 'e i j'", place)
        if count is None:
            raise PuzzleError("the graph has no line 'p edge VERTICES EDGES'; write it before the edges")
        counts = (len(edges), 2 * len(edges), len(edges) / 2, len(set(map(frozenset, edges))))  # writers differ
        if stated not in {f"{n:g}" for n in counts}:
            fix = "complete the list of edges, or correct the number"
            raise PuzzleError(f"states {stated[:12]} edges, and {len(edges)} follow; {fix}", place_stated)
        return self._puzzle(count, edges)

    def _matrix(self, rows: list[list[object]]) -> Tokens:
        count = self._count(len(rows), None)
        for i, row in enumerate(rows):
            if len(row) != count:
                raise PuzzleError(f"has {len(row)} numbers; write {count}, one for each vertex", f"row {i + 1}")
            for j, number in enumerate(row):
                if not isinstance(number, int) or number not in (0, 1):
                    raise PuzzleError(f"{reprlib.repr(number)} is not 0 or 1", cell_name(i, j))
                if i == j and number:
                    raise PuzzleError("joins a vertex with itself, so no colouring is right; write 0", cell_name(i, j))
                if j < i and number != rows[j][i]:
                    message = f"is {number} but {cell_name(j, i)} is {rows[j][i]}; an edge goes both ways, so write one number"
                    raise PuzzleError(message, cell_name(i, j))
        return self._puzzle(count, ((i, j) for i, row in enumerate(rows) for j, number in enumerate(row) if number))


def isomorphism_hash(adjacency: Tokens) -> Words:
    """A hash [B] of graphs, given as matrices of 0 and 1 [B, n, n]. Isomorphic graphs share it, others hardly ever do.

    It refines colours of pairs of vertices (two-dimensional Weisfeiler-Leman): the label of a pair takes in the labels of the
    pairs to each third vertex. Sums do not depend on the order of the vertices, and all arithmetic is exact.
    """
    labels = mix(adjacency.astype(np.uint64) + np.uint64(2) * np.eye(adjacency.shape[-1], dtype=np.uint64))
    for _ in range(3):
        triangles = labels[:, :, None, :] + np.uint64(3) * labels[:, None, :, :]
        labels = mix(labels + np.sum(mix(triangles), axis=-1))
    return mix(np.sum(labels, axis=(1, 2)))


def _colored(tokens: Tokens) -> NDArray[np.bool_]:
    """Which tokens [..., N] are colours, which are the last symbols."""
    return tokens >= COLORS[0]


def _word(puzzles: Tokens) -> Words:
    """The constraints of puzzles [..., N] as the bits of words [...]: their edges and their absent vertices."""
    return _bits((puzzles == EDGE) | (puzzles == ABSENT))


def _bits(flags: NDArray[np.bool_]) -> Words:
    """Pack flags [..., N], N at most 64, into the bits of words [...]."""
    words: Words = flags.astype(np.uint64) @ (np.uint64(1) << np.arange(flags.shape[-1], dtype=np.uint64))
    return words


def _pair(pair: object, count: int, place: str) -> tuple[int, int]:
    match pair:
        case [int(i), int(j)] if not isinstance(i, bool) and not isinstance(j, bool):
            return _edge(i, j, 0, count - 1, place)
    raise PuzzleError(f"{reprlib.repr(pair)} is not a pair [i, j] of vertices from 0 to {count - 1}", place)


def _edge(i: int, j: int, first: int, last: int, place: str) -> tuple[int, int]:
    for vertex in (i, j):
        if not first <= vertex <= last:
            raise PuzzleError(f"vertex {reprlib.repr(vertex)} is not one of {first} to {last}", place)
    if i == j:
        raise PuzzleError(f"joins vertex {i} with itself, so no colouring is right; remove it", place)
    return i, j
