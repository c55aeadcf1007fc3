import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gram.models.tasks.base import PuzzleError, Tokens
from gram.models.tasks.coloring import Coloring
from gram.models.tasks.coloring.codec import ABSENT, COLORS, EDGE, NO_EDGE, TO_COLOR
from gram.models.tasks.coloring.isomorphism import isomorphism_hash

EIGHT, TEN = Coloring(8, paper={}), Coloring(10, paper={})
BOTH = pytest.mark.parametrize("task", [EIGHT, TEN], ids=lambda task: task.name)

DIGESTS = {
    "coloring-8": "5b7e54dbee1cbd4278a088186c913e9c66ae980c9508ecac806a3ff15b19290d",
    "coloring-10": "157123cc6f10fe1530da4dadc03495c6cc5832f9d0c277b82b43b2acb45f4565",
}


@dataclass(frozen=True)
class Graph:
    """The tests' own idea of a graph."""

    size: int
    edges: frozenset[tuple[int, int]]

    @property
    def spelled(self) -> dict[str, object]:
        return {"num_vertices": self.size, "edges": [list(edge) for edge in sorted(self.edges)]}

    @property
    def matrix(self) -> list[list[int]]:
        return [[int((min(i, j), max(i, j)) in self.edges) for j in range(self.size)] for i in range(self.size)]

    def colorings(self) -> list[tuple[int, ...]]:
        """All proper colourings, found by trying all."""
        tried = itertools.product(range(3), repeat=self.size)
        return [colors for colors in tried if all(colors[i] != colors[j] for i, j in self.edges)]

    def tokens(self, task: Coloring, colors: tuple[int, ...] | None = None) -> Tokens:
        """The puzzle, or with colours an answer."""
        pairs = itertools.combinations(range(task.num_vertices), 2)
        vertices = [TO_COLOR] * self.size if colors is None else [COLORS[color] for color in colors]
        absent = [ABSENT] * (task.num_vertices - self.size)
        return np.array([EDGE if pair in self.edges else NO_EDGE for pair in pairs] + vertices + absent)


def complete(size: int) -> Graph:
    return Graph(size, frozenset(itertools.combinations(range(size), 2)))


def renamed(colors: tuple[int, ...]) -> tuple[int, ...]:
    """Colours numbered in the order of their first appearance."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(color, len(names)) for color in colors)


def shuffled(rng: np.random.Generator, adjacency: Tokens) -> Tokens:
    """Graphs [B, n, n], each with its vertices in a random order."""
    order = np.argsort(rng.random(adjacency.shape[:2]), axis=1)
    rows = np.take_along_axis(adjacency, order[:, :, None], axis=1)
    return np.take_along_axis(rows, order[:, None, :], axis=2)


def refusal(puzzle: object) -> PuzzleError:
    with pytest.raises(PuzzleError) as caught:
        EIGHT.parse(puzzle)
    return caught.value


@st.composite
def graphs(draw: st.DrawFn, largest: int = 6) -> Graph:
    size = draw(st.integers(1, largest))
    pairs = list(itertools.combinations(range(size), 2))
    return Graph(size, frozenset(draw(st.sets(st.sampled_from(pairs))) if pairs else ()))


@st.composite
def answered(draw: st.DrawFn, largest: int = 6) -> tuple[Graph, tuple[int, ...]]:
    """A graph with any colours at all, right or wrong."""
    graph = draw(graphs(largest))
    return graph, tuple(draw(st.lists(st.integers(0, 2), min_size=graph.size, max_size=graph.size)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.sampled_from(["num_vertices", "edges"]), inner),
    max_leaves=30,
)
numbers = st.integers(0, 8) | st.integers(-1, 10) | st.booleans() | st.floats() | st.none()
lines = st.lists(st.text("pecn 0189dgol\t.-²", max_size=12) | st.sampled_from(["p edge 3 1", "p col 8 2", "e 1 2", "n 1 1"]))
almost_graphs = st.one_of(
    lines.map("\n".join),
    st.lists(st.lists(st.integers(0, 1) | numbers, max_size=3), max_size=3),
    st.fixed_dictionaries({"num_vertices": numbers, "edges": st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=8)}),
)


# --- reading and writing


@BOTH
def test_a_task_names_its_size(task: Coloring) -> None:
    n = task.num_vertices
    assert task.name == f"coloring-{n}"
    assert (task.seq_len, task.vocab_size) == (n * (n - 1) // 2 + n, 7)


@BOTH
def test_every_accepted_spelling_gives_the_same_solvable_puzzle(task: Coloring) -> None:
    assert len(task.examples) == len(task.formats) == 9
    puzzles = [task.parse(spelling) for spelling in task.examples]
    assert all(np.array_equal(puzzle, puzzles[0]) for puzzle in puzzles)
    assert len(task.solutions(puzzles[0])) > 0


def test_tokens_are_the_upper_triangle_row_by_row_and_then_the_vertices() -> None:
    puzzle = EIGHT.parse({"num_vertices": 3, "edges": [[0, 2], [2, 1]]})
    edges, vertices = puzzle[:28], puzzle[28:]
    assert np.flatnonzero(edges == EDGE).tolist() == [1, 7], "row 0 has 7 pairs; row 1 starts with (1, 2)"
    assert set(edges.tolist()) == {EDGE, NO_EDGE}
    assert vertices.tolist() == [TO_COLOR] * 3 + [ABSENT] * 5


@given(graphs(largest=8), st.sampled_from([EIGHT, TEN]))
def test_a_puzzle_reads_back_from_every_spelling_of_it(graph: Graph, task: Coloring) -> None:
    puzzle = graph.tokens(task)
    for spelling in (graph.spelled, graph.matrix, task.text(puzzle), task.grid(puzzle)):
        tokens = task.parse(spelling)
        assert np.array_equal(tokens, puzzle)
        assert tokens.dtype == np.int64
    assert task.grid(puzzle) == graph.matrix


@given(answered(largest=8))
def test_an_answer_reads_back_as_its_graph_and_shows_its_colors(graph_and_colors: tuple[Graph, tuple[int, ...]]) -> None:
    graph, colors = graph_and_colors
    answer = graph.tokens(EIGHT, colors)
    assert np.array_equal(EIGHT.parse(EIGHT.text(answer)), graph.tokens(EIGHT))
    assert EIGHT.grid(answer) == list(colors)


def test_text_is_dimacs_with_the_colors_of_an_answer_as_node_lines() -> None:
    path = Graph(3, frozenset({(0, 1), (1, 2)}))
    assert EIGHT.text(path.tokens(EIGHT)) == "p edge 3 2\ne 1 2\ne 2 3"
    assert EIGHT.text(path.tokens(EIGHT, (0, 2, 0))) == "p edge 3 2\ne 1 2\ne 2 3\nn 1 1\nn 2 3\nn 3 1"


@pytest.mark.parametrize(
    "spelling",
    [
        {"num_vertices": 3, "edges": [[1, 0], [1, 2]]},
        {"num_vertices": 3, "edges": [[0, 1], [1, 2], [2, 1], [0, 1]]},
        "p edge 3 2\ne 1 2\ne 2 3",
        "c a path\n\n  p   col 3 4\r\ne 1 2\ne 2 1\nc\ne 2 3\ne 3 2\n",
        "p edge 3 2\ne 2 1\nn 1 3\nn what ever\ne 3 2\n",
        "p edge 03 02\ne 1 2\ne\t3\t2",
        "p edge 3 1\ne 1 2\ne 2 3",
        "p edge 3 4\ne 1 2\ne 2 3",
        "p edge 3 2\ne 1 2\ne 2 3\ne 2 3",
        [[0, 1, 0], [1, 0, 1], [0, 1, 0]],
    ],
    ids=["order", "repeated", "plain", "comments", "colours", "zeros and tabs", "half", "double", "distinct", "matrix"],
)
def test_order_repetition_and_how_edges_are_counted_are_free(spelling: object) -> None:
    assert np.array_equal(EIGHT.parse(spelling), Graph(3, frozenset({(0, 1), (1, 2)})).tokens(EIGHT))


@pytest.mark.parametrize("spelling", [{"num_vertices": 1, "edges": []}, "p edge 1 0", [[0]]], ids=["edges", "text", "matrix"])
def test_one_vertex_is_a_puzzle(spelling: object) -> None:
    puzzle = EIGHT.parse(spelling)
    assert np.array_equal(puzzle, Graph(1, frozenset()).tokens(EIGHT))
    assert [EIGHT.grid(answer) for answer in EIGHT.solutions(puzzle)] == [[0]]


@given(json_values | almost_graphs | st.text())
@example([[[[[[]]]]]] * 8)
@example([[float("nan")] * 8] * 8)
@example({"num_vertices": 2**70, "edges": [[2**70, 0]]})
@example({"num_vertices": 8, "edges": [[2**70, 0]]})
@example("p edge " + "9" * 5000 + " 0")
@example("p edge 8 " + "9" * 5000 + "\ne 1 " + "9" * 5000)
@settings(max_examples=100)
def test_whatever_is_sent_is_a_puzzle_or_a_puzzle_error(puzzle: object) -> None:
    try:
        tokens = EIGHT.parse(puzzle)
    except PuzzleError:
        return
    assert tokens.shape == (36,)
    assert tokens.dtype == np.int64
    assert set(tokens[:28].tolist()) <= {NO_EDGE, EDGE}
    assert np.array_equal(EIGHT.parse(EIGHT.text(tokens)), tokens)
    if isinstance(puzzle, dict):
        edges = {frozenset(edge) for edge in puzzle["edges"]}
        assert np.sum(tokens == EDGE) == len(edges), "no edge is dropped or made up"
        assert np.sum(tokens == TO_COLOR) == puzzle["num_vertices"]


@given(st.lists(st.integers(-3, 9), min_size=36, max_size=36))
def test_whatever_a_model_answers_can_be_shown_and_judged(garbage: list[int]) -> None:
    answer, puzzle = np.array(garbage), complete(3).tokens(EIGHT)
    EIGHT.text(answer)
    EIGHT.grid(answer)
    canonical = EIGHT.canonical(answer)
    assert np.array_equal(EIGHT.canonical(canonical), canonical)
    assert EIGHT.check(puzzle, answer) is False
    assert 0 <= EIGHT.conflicts(puzzle, answer) <= 3


def test_a_vertex_that_a_wrong_answer_leaves_without_a_color_shows_as_minus_1() -> None:
    answer = complete(3).tokens(EIGHT, (0, 1, 2))
    answer[29] = TO_COLOR
    assert EIGHT.grid(answer) == [0, -1, 2]
    answer[29] = ABSENT
    assert EIGHT.grid(answer) == [0, -1, 2]


# --- refusals

SQUARE = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def altered(row: int, column: int, value: object) -> list[list[object]]:
    matrix: list[list[object]] = [[*numbers] for numbers in SQUARE]
    matrix[row][column] = value
    return matrix


@pytest.mark.parametrize(
    ("puzzle", "place", "said"),
    [
        pytest.param({"num_vertices": 8, "edges": [[0, 1]] * 3 + [[9, 1]]}, "edges[3]", ["vertex 9", "0 to 7"], id="vertex 9"),
        pytest.param({"num_vertices": 4, "edges": [[0, 4]]}, "edges[0]", ["vertex 4", "0 to 3"], id="absent vertex"),
        pytest.param({"num_vertices": 4, "edges": [[-1, 0]]}, "edges[0]", ["vertex -1", "0 to 3"], id="negative vertex"),
        pytest.param({"num_vertices": 4, "edges": [[2, 2]]}, "edges[0]", ["vertex 2 with itself", "remove"], id="self-loop"),
        pytest.param({"num_vertices": 4, "edges": [[0, 1, 2]]}, "edges[0]", ["[0, 1, 2]", "pair [i, j]"], id="three ends"),
        pytest.param({"num_vertices": 4, "edges": ["01"]}, "edges[0]", ["'01'", "pair [i, j]"], id="a text for a pair"),
        pytest.param({"num_vertices": 4, "edges": [[0, 1.0]]}, "edges[0]", ["[0, 1.0]", "pair [i, j]"], id="a float"),
        pytest.param({"num_vertices": 4, "edges": [[0, True]]}, "edges[0]", ["[0, True]", "pair [i, j]"], id="a boolean"),
        pytest.param({"num_vertices": 9, "edges": []}, "num_vertices", ["9 vertices", "up to 8", "smaller"], id="too many"),
        pytest.param({"num_vertices": 0, "edges": []}, "num_vertices", ["0 is not", "1 to 8"], id="none at all"),
        pytest.param({"num_vertices": True, "edges": []}, "num_vertices", ["True is not", "1 to 8"], id="a boolean count"),
        pytest.param({"num_vertices": 8.0, "edges": []}, "num_vertices", ["8.0 is not", "1 to 8"], id="a float count"),
        pytest.param("p edge 9 0", "line 1", ["9 vertices", "up to 8", "smaller"], id="DIMACS too many"),
        pytest.param("c\np edge 0 0", "line 2", ["0 is not", "1 to 8"], id="DIMACS none at all"),
        pytest.param("p edge 4 6\ne 1 2\ne 1 3\ne 1 4\ne 2 3", "line 1", ["states 6", "4 follow", "complete"], id="cut off"),
        pytest.param("c\np edge 10 15", "line 2", ["10 vertices"], id="too many vertices"),
        pytest.param("p edge 8 15", "line 1", ["states 15", "0 follow"], id="the first line alone"),
        pytest.param(
            "p edge 8 " + "9" * 5000 + "\ne 1 2", "line 1", ["1 follow", "correct the number"], id="an endless number"
        ),
        pytest.param("p edge 4 1\n\ne 1 5", "line 3", ["vertex 5", "1 to 4"], id="DIMACS vertex 5"),
        pytest.param("p edge 4 1\ne 0 1", "line 2", ["vertex 0", "1 to 4"], id="DIMACS vertex 0"),
        pytest.param("p edge 4 1\ne 3 3", "line 2", ["vertex 3 with itself", "remove"], id="DIMACS self-loop"),
        pytest.param("e 1 2\np edge 4 1", "line 1", ["before", "first"], id="an edge too early"),
        pytest.param("p edge 4 1\np edge 4 1", "line 2", ["second", "one graph"], id="two graphs"),
        pytest.param("c nothing", None, ["no line 'p edge VERTICES EDGES'"], id="no p line"),
        pytest.param("p edge 4 1\ne 1", "line 2", ["'e 1'", "'e i j'"], id="half an edge"),
        pytest.param("p edge 4 1\ne 1 2 3", "line 2", ["'e 1 2 3'", "'e i j'"], id="a weight"),
        pytest.param("p cnf 4 1", "line 1", ["'p cnf 4 1'", "'p edge VERTICES EDGES'"], id="another problem"),
        pytest.param("0-1 1-2", "line 1", ["'0-1'", "can't name a vertex"], id="another text"),
        pytest.param(altered(1, 2, 2), "row 2, column 3", ["2 is not 0 or 1"], id="a weight in the matrix"),
        pytest.param(altered(1, 2, 1.0), "row 2, column 3", ["1.0 is not 0 or 1"], id="a float in the matrix"),
        pytest.param(altered(1, 1, 1), "row 2, column 2", ["itself", "write 0"], id="a loop in the matrix"),
        pytest.param(altered(0, 2, 1), "row 3, column 1", ["is 0", "row 1, column 3 is 1", "both ways"], id="one way"),
        pytest.param([[0, 1], [1]], "row 2", ["1 numbers", "write 2"], id="a short row"),
        pytest.param([[0] * 9] * 9, None, ["9 vertices", "up to 8", "smaller"], id="a large matrix"),
    ],
)
def test_a_bad_graph_is_refused_with_the_place_and_the_fix(puzzle: object, place: str | None, said: list[str]) -> None:
    error = refusal(puzzle)
    assert error.place == place
    assert str(error).startswith(f"{place}: " if place else "")
    assert all(part in str(error) for part in said), str(error)


@pytest.mark.parametrize(
    "puzzle",
    [
        None,
        True,
        8,
        0.5,
        "",
        " \n",
        [],
        {},
        [1, 2],
        [[0], 1],
        {"num_vertices": 3},
        {"edges": []},
        {"num_vertices": 3, "edges": [], "colors": 3},
        {"num_vertices": 3, "edges": "0 1"},
    ],
    ids=str,
)
def test_what_is_no_spelling_at_all_is_answered_with_the_spellings(puzzle: object) -> None:
    assert all(spelling in str(refusal(puzzle)) for spelling in EIGHT.formats)


@pytest.mark.parametrize(
    "puzzle",
    [
        {"num_vertices": 3, "edges": [["x" * 5000] * 5000]},
        {"num_vertices": "x" * 5000, "edges": []},
        "x" * 5000,
        [["x" * 5000]],
    ],
    ids=["pair", "count", "text", "matrix"],
)
def test_a_message_does_not_repeat_all_that_was_sent(puzzle: object) -> None:
    assert len(str(refusal(puzzle))) < 300


def test_the_larger_model_reads_the_larger_graph() -> None:
    graph = {"num_vertices": 10, "edges": [[0, 9]]}
    assert np.sum(TEN.parse(graph) == TO_COLOR) == 10
    assert "10 vertices" in str(refusal(graph))


# --- checking and solving


@given(answered())
def test_check_and_conflicts_judge_any_colors_edge_by_edge(graph_and_colors: tuple[Graph, tuple[int, ...]]) -> None:
    graph, colors = graph_and_colors
    puzzle, answer = graph.tokens(EIGHT), graph.tokens(EIGHT, colors)
    joined = sum(colors[i] == colors[j] for i, j in graph.edges)
    assert EIGHT.conflicts(puzzle, answer) == joined
    assert EIGHT.check(puzzle, answer) is (joined == 0)


@given(graphs(), st.data())
def test_check_refuses_a_right_answer_with_any_token_changed_but_to_a_free_color(graph: Graph, data: st.DataObject) -> None:
    puzzle = graph.tokens(EIGHT)
    colorings = graph.colorings()
    if not colorings:
        return
    answer = graph.tokens(EIGHT, data.draw(st.sampled_from(colorings)))
    assert EIGHT.check(puzzle, answer) is True
    changed = answer.copy()
    place = data.draw(st.integers(0, 35))
    changed[place] = data.draw(st.integers(0, 6))
    still_right = any(np.array_equal(changed, graph.tokens(EIGHT, colors)) for colors in colorings)
    assert EIGHT.check(puzzle, changed) is still_right


@pytest.mark.parametrize("token", [TO_COLOR, ABSENT, EDGE])
def test_check_wants_a_color_of_a_vertex_without_edges_too(token: int) -> None:
    lonely = Graph(2, frozenset())
    answer = lonely.tokens(EIGHT, (0, 0))
    assert EIGHT.check(lonely.tokens(EIGHT), answer) is True
    answer[29] = token
    assert EIGHT.check(lonely.tokens(EIGHT), answer) is False


def test_an_end_without_a_color_is_a_conflict() -> None:
    answer = complete(3).tokens(EIGHT, (0, 1, 2))
    answer[28:30] = TO_COLOR
    assert EIGHT.conflicts(complete(3).tokens(EIGHT), answer) == 3
    assert EIGHT.conflicts(complete(3).tokens(EIGHT), complete(3).tokens(EIGHT)) == 3
    assert EIGHT.conflicts(Graph(3, frozenset({(1, 2)})).tokens(EIGHT), answer) == 1


@given(graphs(), st.sampled_from([EIGHT, TEN]))
@settings(max_examples=100)
def test_solutions_are_the_colorings_that_brute_force_finds_up_to_the_names_of_the_colors(graph: Graph, task: Coloring) -> None:
    solutions = task.solutions(graph.tokens(task))
    brute = {renamed(colors) for colors in graph.colorings()}
    assert {tuple(answer) for answer in solutions.tolist()} == {tuple(graph.tokens(task, c).tolist()) for c in brute}
    assert len(solutions) == len(brute), "each is found once"
    assert solutions.dtype == np.int64


@pytest.mark.parametrize(("task", "index"), [(EIGHT, 0), (EIGHT, 200), (TEN, 0), (TEN, 100)])
def test_solutions_of_whole_graphs_match_brute_force(task: Coloring, index: int) -> None:
    puzzle = task.held_out[index]
    matrix = np.array(task.grid(puzzle))
    graph = Graph(task.num_vertices, frozenset((int(i), int(j)) for i, j in np.argwhere(np.triu(matrix))))
    found = {tuple(task.grid(answer)) for answer in task.solutions(puzzle)}
    assert found == {renamed(colors) for colors in graph.colorings()}


@BOTH
def test_four_vertices_each_joined_to_each_have_no_solution(task: Coloring) -> None:
    assert task.solutions(complete(4).tokens(task)).shape == (0, task.seq_len)
    assert len(task.solutions(complete(3).tokens(task))) == 1


@given(answered())
def test_the_canonical_form_names_colors_by_first_appearance(graph_and_colors: tuple[Graph, tuple[int, ...]]) -> None:
    graph, colors = graph_and_colors
    puzzle, answer = graph.tokens(EIGHT), graph.tokens(EIGHT, colors)
    given_answer = answer.copy()
    canonical = EIGHT.canonical(answer)
    assert np.array_equal(answer, given_answer), "the given answer is left as it is"
    assert EIGHT.grid(canonical) == list(renamed(colors))
    assert np.array_equal(EIGHT.canonical(canonical), canonical)
    assert EIGHT.check(puzzle, canonical) is EIGHT.check(puzzle, answer)
    for names in itertools.permutations(range(3)):
        other = graph.tokens(EIGHT, tuple(names[color] for color in colors))
        assert np.array_equal(EIGHT.canonical(other), canonical)


# --- the split


def test_the_hash_tells_apart_exactly_the_156_graphs_of_6_vertices() -> None:
    edges = np.arange(2**15)[:, None] >> np.arange(15) & 1
    adjacency = np.zeros((2**15, 6, 6), dtype=np.int64)
    first, second = np.triu_indices(6, k=1)
    adjacency[:, first, second] = adjacency[:, second, first] = edges
    assert len(np.unique(isomorphism_hash(adjacency))) == 156


@pytest.mark.parametrize("size", [8, 10])
def test_the_hash_does_not_depend_on_the_order_of_the_vertices(size: int) -> None:
    rng = np.random.default_rng(size)
    upper = np.triu(rng.integers(2, size=(500, size, size)), k=1)
    adjacency = upper + upper.swapaxes(1, 2)
    hashes = isomorphism_hash(adjacency)
    assert np.array_equal(isomorphism_hash(shuffled(rng, adjacency)), hashes)
    assert len(np.unique(hashes)) > 400
    assert np.mean(hashes % 8 == 0) == pytest.approx(1 / 8, abs=0.05)


@BOTH
def test_the_held_out_graphs_are_as_many_as_the_papers_and_no_two_are_isomorphic(task: Coloring) -> None:
    held_out = task.held_out
    assert held_out.shape == ({8: 255, 10: 192}[task.num_vertices], task.seq_len)
    hashes = isomorphism_hash(task.codec.adjacency(held_out))
    assert len(np.unique(hashes)) == len(held_out)
    assert all(len(task.solutions(puzzle)) > 0 for puzzle in held_out)
    assert np.all(held_out[:, task.num_pairs :] == TO_COLOR), "they have all their vertices"


@BOTH
def test_the_held_out_graphs_stay_those_that_the_weights_never_saw(task: Coloring) -> None:
    assert hashlib.sha256(task.held_out.astype(np.uint8).tobytes()).hexdigest() == DIGESTS[task.name]
    assert np.array_equal(Coloring(task.num_vertices, paper={}).held_out, task.held_out)


@BOTH
def test_sampling_never_draws_a_held_out_graph_or_one_isomorphic_to_it(task: Coloring) -> None:
    rng = np.random.default_rng(0)
    puzzles, answers = task.sample(rng, 1500)
    assert all(task.check(puzzle, answer) for puzzle, answer in zip(puzzles, answers, strict=True))
    assert all(np.array_equal(task.canonical(answer), answer) for answer in answers)
    held_out, drawn = (task.codec.adjacency(some) for some in (task.held_out, puzzles))
    for _ in range(5):
        images = {image.tobytes() for image in shuffled(rng, held_out)}
        assert not images & {image.tobytes() for image in shuffled(rng, drawn)}
    assert not np.any(isomorphism_hash(drawn) % 8 == 0)


@BOTH
def test_sampling_draws_mostly_the_benchmark_and_every_size_from_3(task: Coloring) -> None:
    puzzles, _ = task.sample(np.random.default_rng(1), 1500)
    sizes = np.sum(puzzles == TO_COLOR, axis=1)
    assert set(sizes.tolist()) == set(range(3, task.num_vertices + 1))
    others_of_whole_size = 0.2 / (task.num_vertices - 2)
    assert np.mean(sizes == task.num_vertices) == pytest.approx(0.8 + others_of_whole_size, abs=0.05)
    whole = puzzles[sizes == task.num_vertices]
    assert len(np.unique(whole, axis=0)) > 0.9 * len(whole), "graphs are drawn afresh"
    trained, tested = (np.mean(np.sum(some == EDGE, axis=1)) for some in (whole, task.held_out))
    assert trained == pytest.approx(tested, rel=0.05), "what is tested is as dense as what is trained"


def test_sampling_draws_every_solution_of_a_puzzle_as_often() -> None:
    puzzles, answers = EIGHT.sample(np.random.default_rng(2), 4000)
    empty = [
        tuple(EIGHT.grid(answer))
        for puzzle, answer in zip(puzzles, answers, strict=True)
        if np.sum(puzzle == TO_COLOR) == 3 and np.sum(puzzle == EDGE) == 0
    ]
    counts = {colors: empty.count(colors) for colors in empty}
    assert set(counts) == {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)}
    assert min(counts.values()) > 0.4 * len(empty) / 5


def test_sampling_repeats_with_its_generator() -> None:
    first, again, other = (EIGHT.sample(np.random.default_rng(seed), 50) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert all(part.shape == (0, 36) for part in EIGHT.sample(np.random.default_rng(0), 0))


@pytest.mark.parametrize(("task", "limit"), [(EIGHT, 0.918), (TEN, 0.958)], ids=["8", "10"])
def test_20_even_draws_can_find_this_share_of_the_held_out_solutions(task: Coloring, limit: float) -> None:
    found = [1 - (1 - 1 / len(task.solutions(puzzle))) ** 20 for puzzle in task.held_out]
    assert np.mean(found) == pytest.approx(limit, abs=5e-4)
