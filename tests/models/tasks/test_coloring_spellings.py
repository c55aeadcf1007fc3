"""The formats of graphs, their names, and files of them. test_coloring.py has the rest of the task."""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gram.models.tasks import TASKS, PuzzleError, Tokens
from gram.models.tasks.coloring import Coloring

TASK = Coloring(8, paper={})
PATH = TASK.parse({"num_vertices": 3, "edges": [[0, 1], [1, 2]]})
NAMED = "c vertex 1 is WA\nc vertex 2 is NT\nc vertex 3 is SA\np edge 3 2\ne 1 2\ne 2 3"
GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph>{}</graph></graphml>'
NODES = '<node id="WA"/><node id="NT"/><node id="SA"/><edge source="WA" target="NT"/>'


def text_of(puzzle: object) -> str:
    """A puzzle as its writer sees it."""
    view, tokens = TASK.pose(puzzle)
    return view.text(tokens)


def refusal(puzzle: object) -> str:
    with pytest.raises(PuzzleError) as caught:
        TASK.read(puzzle)
    return str(caught.value)


@st.composite
def graphs(draw: st.DrawFn) -> nx.Graph:
    size = draw(st.integers(1, 8))
    graph = nx.empty_graph(size)
    pairs = [*itertools.combinations(range(size), 2)]
    graph.add_edges_from(draw(st.sets(st.sampled_from(pairs))) if pairs else ())
    return graph


def tokens_of(graph: nx.Graph) -> Tokens:
    return TASK.parse({"num_vertices": len(graph), "edges": [[*edge] for edge in graph.edges]})


def as_json(data: object) -> object:
    return json.loads(json.dumps(data))


WRITERS: dict[str, Callable[[nx.Graph], object]] = {
    "node-link data": lambda graph: as_json(nx.node_link_data(graph, edges="edges")),
    "older node-link data": lambda graph: as_json(nx.node_link_data(graph, edges="links")),
    "node-link data, directed": lambda graph: as_json(nx.node_link_data(graph.to_directed(), edges="edges")),
    "node-link data of a multigraph": lambda graph: as_json(nx.node_link_data(nx.MultiGraph(graph), edges="edges")),
    "GraphML": lambda graph: "\n".join(nx.generate_graphml(graph)),
    "graph6": lambda graph: nx.to_graph6_bytes(graph).decode(),
    "graph6 without a header": lambda graph: nx.to_graph6_bytes(graph, header=False).decode(),
    "sparse6": lambda graph: nx.to_sparse6_bytes(graph).decode(),
    "sparse6 without a header": lambda graph: nx.to_sparse6_bytes(graph, header=False).decode(),
    "array": lambda graph: nx.to_numpy_array(graph),
    "boolean array": lambda graph: nx.to_numpy_array(graph, dtype=bool),
}
WITH_EDGES: dict[str, Callable[[nx.Graph], object]] = {
    "dictionary of lists": lambda graph: as_json(nx.to_dict_of_lists(graph)),
    "dictionary of dictionaries": lambda graph: as_json(nx.to_dict_of_dicts(graph)),
    "printed dictionary of lists": lambda graph: str(nx.to_dict_of_lists(graph)),
    "printed neighbours": lambda graph: str(graph.adj),
    "adjacency lists": lambda graph: [sorted(graph[vertex]) for vertex in graph],
    "adjacency list": lambda graph: "\n".join(nx.generate_adjlist(graph)),
    "METIS": lambda graph: "\n".join(
        [f"% a graph\n{len(graph)} {graph.size()}", *(" ".join(str(j + 1) for j in graph[i]) for i in graph)]
    ),
}
OF_EDGES: dict[str, Callable[[nx.Graph], object]] = {
    "edge list": lambda graph: "\n".join(nx.generate_edgelist(graph)),
    "edge list without data": lambda graph: "\n".join(nx.generate_edgelist(graph, data=False)),
    "edge list with commas": lambda graph: "\n".join(nx.generate_edgelist(graph, ",", data=False)),
    "weighted edge list": lambda graph: "\n".join(f"{i} {j} 0.5" for i, j in graph.edges),
    "table": lambda graph: "Source,Target,Weight\n" + "\n".join(f"{i},{j},3" for i, j in graph.edges),
    "list of edges": lambda graph: as_json([*nx.to_edgelist(graph)]),
    "printed edges": lambda graph: str(graph.edges),
    "printed edges with data": lambda graph: str(graph.edges(data=True)),
    "edges as they show themselves": lambda graph: repr(graph.edges),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@given(graph=graphs())
def test_what_networkx_writes_is_read(write: Callable[[nx.Graph], object], graph: nx.Graph) -> None:
    written = write(graph)
    assert np.array_equal(TASK.read(written), tokens_of(graph))


def read_unless_two(written: object) -> Tokens | None:
    """The graph, or nothing if the text can be two different ones, which is refused."""
    try:
        return TASK.read(written)
    except PuzzleError as error:
        if "can be" not in str(error):
            raise
        return None


@pytest.mark.parametrize("write", WITH_EDGES.values(), ids=WITH_EDGES)
@given(graph=graphs())
def test_lists_of_neighbors_are_read_if_there_is_an_edge(write: Callable[[nx.Graph], object], graph: nx.Graph) -> None:
    assume(graph.size())
    tokens = read_unless_two(write(graph))
    assert tokens is None or np.array_equal(tokens, tokens_of(graph))


@pytest.mark.parametrize("write", OF_EDGES.values(), ids=OF_EDGES)
@given(graph=graphs())
def test_edges_are_read_if_no_vertex_is_without_one(write: Callable[[nx.Graph], object], graph: nx.Graph) -> None:
    assume(graph.size() and not [*nx.isolates(graph)])
    tokens = read_unless_two(write(graph))
    assert tokens is None or np.array_equal(tokens, tokens_of(graph))


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        pytest.param("3 2\n2\n1 3\n2", [[0, 1], [1, 2]], id="METIS"),
        pytest.param("% a path\n3 2 1\n2 5\n1 5 3 7\n2 7", [[0, 1], [1, 2]], id="METIS with weights of edges"),
        pytest.param("3 2 11\n4 2 5\n4 1 5 3 7\n4 2 7", [[0, 1], [1, 2]], id="METIS with weights of both"),
        pytest.param("3 2 10 2\n4 4 2\n4 4 1 3\n4 4 2", [[0, 1], [1, 2]], id="METIS with two weights of vertices"),
        pytest.param("3 1\n\n3\n2", [[1, 2]], id="METIS with an empty line"),
        pytest.param("Graph 1, order 3.\n  0 : 1;\n  1 : 0 2;\n  2 : 1;\n", [[0, 1], [1, 2]], id="listg"),
        pytest.param("Graph 1, order 3.\n  1 : 2;\n  2 : 1 3;\n  3 : 2;\n", [[0, 1], [1, 2]], id="listg from 1"),
        pytest.param("Graph 1, order 3.\n010\n101\n010", [[0, 1], [1, 2]], id="matrix of listg"),
        pytest.param("0 1 0\n1 0 1\n0 1 0", [[0, 1], [1, 2]], id="matrix"),
        pytest.param("0,1,0\n1,0,1\n0,1,0\n", [[0, 1], [1, 2]], id="CSV matrix"),
        pytest.param("# a path\n0 1\n\n1 2\n", [[0, 1], [1, 2]], id="comments"),
        pytest.param("1 2\n2 3", [[0, 1], [1, 2]], id="edges from 1"),
        pytest.param("10 2\n2 7", [[0, 1], [0, 2]], id="in the order of the numbers"),
        pytest.param("0 1\n1 0\n2", [[0, 1]], id="a vertex without edges"),
        pytest.param("0: 1 2\n1:\n2:", [[0, 1], [0, 2]], id="neighbors"),
        pytest.param("p col 3 2\ne 1 2\ne 2 3\nd 2\nl 1 3\ns col 2\n% 3 2", [[0, 1], [1, 2]], id="DIMACS with more"),
        pytest.param("<?xml version='1.0' encoding='UTF-8'?>" + GRAPHML.format(NODES), [[0, 1]], id="GraphML"),
        pytest.param(f"<graphml><graph>{NODES}</graph></graphml>", [[0, 1]], id="GraphML without a namespace"),
    ],
)
def test_texts_of_other_programs_are_read(text: str, edges: list[list[int]]) -> None:
    assert np.array_equal(TASK.read(text), TASK.parse({"num_vertices": 3, "edges": edges}))


@pytest.mark.parametrize(
    ("graph", "edges"),
    [
        pytest.param([[1], [0]], [[0, 1]], id="neighbors of two"),
        pytest.param([[1, 2], [0], [0]], [[0, 1], [0, 2]], id="neighbors"),
        pytest.param([[0, 1], [1, 2]], [[0, 1], [1, 2]], id="pairs"),
        pytest.param([[0, 1], [1, 0]], [[0, 1]], id="a matrix before pairs"),
        pytest.param([[1, 2], [0, 2], [0, 1]], [[0, 1], [0, 2], [1, 2]], id="pairs that are the neighbors as well"),
        pytest.param({"vertices": [2, 0, 1], "edges": [[2, 0]]}, [[0, 2]], id="numbers in another order"),
        pytest.param({"nodes": [{"name": "A"}, {"name": "B"}], "links": [{"source": 0, "target": 1}]}, [[0, 1]], id="no ids"),
    ],
)
def test_lists_are_read(graph: object, edges: list[list[int]]) -> None:
    size = 1 + max(itertools.chain(*edges))
    assert np.array_equal(TASK.read(graph), TASK.parse({"num_vertices": size, "edges": edges}))


# --- two meanings, and refusals


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        pytest.param([[1, 3], [0, 2], [1, 3], [0, 2]], '{"num_vertices": ..., "edges": [...]}', id="pairs or neighbors"),
        pytest.param("3 2\n1 2\n2 3", "line 1: can be an edge, and can be the numbers", id="an edge or counts"),
        pytest.param("5 3\n2 3\n1 3\n1 2", "they can be a graph of METIS", id="edges or METIS"),
        pytest.param("4 1\n2\n1", "they can be a graph of METIS", id="neighbors or METIS"),
        pytest.param("0 1 2\n1 2 3", "line 1: has 3 names", id="weights or neighbors"),
        pytest.param([[3], [], [1], []], "vertices are counted from 0", id="neighbors counted from 1"),
        pytest.param("1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1", "line 1: has 4 names", id="a Sudoku"),
        pytest.param("g7 a4", "a line of words is no graph", id="queens"),
        pytest.param({"queens": []}, "a graph is one of", id="no queens"),
        pytest.param({"queens": [[1, 6]]}, "can't name a vertex", id="pairs of queens"),
        pytest.param([[], []], "a graph is one of", id="empty lists"),
        pytest.param("0\n1", "no line of this text joins two vertices", id="vertices only"),
    ],
)
def test_what_can_mean_two_things_is_refused(graph: object, said: str) -> None:
    assert said in refusal(graph)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        pytest.param({"vertices": ["A", "A"], "edges": []}, "two vertices are called A", id="a name twice"),
        pytest.param({"vertices": [1, "1"], "edges": []}, "two vertices are called 1", id="a number and its text"),
        pytest.param({"vertices": ["A"], "edges": [["A", "B"]]}, "edges[0]: vertex B is not one of", id="an unknown end"),
        pytest.param({"vertices": ["A"], "edges": [["A", "A"]]}, "edges[0]: joins vertex A with itself", id="a loop"),
        pytest.param({"vertices": ["A"], "edges": ["AB"]}, "edges[0]: 'AB' is neither a pair", id="no pair"),
        pytest.param({"vertices": ["A\nB"], "edges": []}, "vertices[0]: 'A\\nB' can't name a vertex", id="a line break"),
        pytest.param({"vertices": ["x" * 101], "edges": []}, "up to 100 printable", id="a long name"),
        pytest.param({"vertices": [True], "edges": []}, "vertices[0]: True can't name", id="a boolean"),
        pytest.param({"vertices": [*range(9)], "edges": []}, "vertices: the graph has 9 vertices", id="too many"),
        pytest.param({"vertices": [], "edges": []}, "0 is not a number of vertices", id="none"),
        pytest.param({"nodes": [], "edges": [], "color": 3}, "a graph is one of", id="something more"),
        pytest.param({"A": ["B"]}, "the neighbours of A: vertex B is not one of", id="an unknown neighbor"),
        pytest.param({"A": ["A"]}, "the neighbours of A: joins vertex A with itself", id="its own neighbor"),
        pytest.param([[1], [0], [3]], "the neighbours of vertex 2: vertex 3 is not one of 0 to 2", id="no such neighbor"),
        pytest.param("A: B\nB\n", "line 2: is not a vertex, ':' and its neighbours", id="no colon"),
        pytest.param("A: B", "line 1: vertex B is not one of the vertices", id="no line of its own"),
        pytest.param("A: B\nA: B\nB:", "two vertices are called A", id="two lines of one vertex"),
        pytest.param("a b\nb b", "line 2: joins vertex b with itself", id="a loop in a text"),
        pytest.param("A -- B\nB -- C", "line 1: '--' can't name a vertex", id="DOT"),
        pytest.param("\n".join(f"{i} {i + 1}" for i in range(8)), "the graph has 9 vertices", id="too many in a text"),
        pytest.param("4 5\n2\n1 3\n2 4\n3", "line 1: states 5 edges, and 3 follow", id="METIS miscounted"),
        pytest.param("9 1\n2\n1\n\n\n\n\n\n\n\n", "the graph has 9 vertices", id="METIS too many"),
        pytest.param("H" + "?" * 6, "the graph has 9 vertices", id="graph6 too many"),
        pytest.param("B", "a graph of 3 vertices has 1 symbols after the first, and 0 follow", id="half of graph6"),
        pytest.param(">>graph6<<B!", "'!' is no symbol of graph6", id="no symbol of graph6"),
        pytest.param("~~~~~~~~", "the graph has more than 62 vertices", id="a huge graph6"),
        pytest.param(":~~~~~~~~", "the graph has more than 62 vertices", id="a huge sparse6"),
        pytest.param(":H", "the graph has 9 vertices", id="sparse6 too many"),
        pytest.param(":@?", "joins vertex 0 with itself", id="a loop in sparse6"),
        pytest.param(":", "' ' is no symbol", id="nothing of sparse6"),
        pytest.param("<graphml>", "not well-formed GraphML", id="half of GraphML"),
        pytest.param("<graphml/>", "the GraphML has 0 graphs", id="GraphML without a graph"),
        pytest.param(GRAPHML.format('<node id="A"/><edge source="A" target="B"/>'), "edge 1: vertex B is not", id="no node"),
        pytest.param(GRAPHML.format("<node/>"), "node 1: None can't name a vertex", id="no id"),
        pytest.param(GRAPHML.format("<hyperedge/>"), "<hyperedge>", id="a hyperedge"),
        pytest.param("<!DOCTYPE a [<!ENTITY b 'c'>]>" + GRAPHML.format(NODES), "remove <!DOCTYPE", id="an entity"),
        pytest.param("c vertex 4 is A\np edge 3 0", "line 1: vertex 4 is not one of 1 to 3", id="a name for no vertex"),
        pytest.param("c vertex 1 is 2\np edge 3 0", "two vertices are called 2", id="a name that is a number"),
        pytest.param("Graph 1, order 1.\n0 : ;\nGraph 2, order 1.\n0 : ;", "line 3: a second graph", id="two of listg"),
        pytest.param("0 1\n" * 20_000, "has 80000 characters", id="a long text"),
    ],
)
def test_a_wrong_graph_is_refused_with_the_place_and_the_fix(graph: object, said: str) -> None:
    assert said in refusal(graph)


# --- names


@pytest.mark.parametrize(
    "puzzle",
    [
        {"vertices": ["WA", "NT", "SA"], "edges": [["WA", "NT"], ["NT", "SA"]]},
        {"nodes": ["WA", "NT", "SA"], "edges": [["WA", "NT"], ["NT", "SA"]]},
        {"nodes": [{"id": "WA"}, {"id": "NT"}, {"id": "SA"}], "links": [{"source": s, "target": "NT"} for s in ("WA", "SA")]},
        {"WA": ["NT"], "NT": ["WA", "SA"], "SA": []},
        [["WA", "NT"], ["NT", "SA"]],
        "WA NT\nNT SA",
        "WA: NT\nNT: SA\nSA:",
        GRAPHML.format(NODES + '<edge source="SA" target="NT"/>'),
        NAMED,
    ],
    ids=["vertices", "nodes", "node-link", "neighbors", "pairs", "edges", "lines", "GraphML", "DIMACS"],
)
def test_the_names_of_vertices_are_kept(puzzle: object) -> None:
    assert text_of(puzzle) == NAMED
    assert np.array_equal(TASK.read(puzzle), PATH), "the model does not see them"


def test_an_answer_has_the_names_of_its_puzzle() -> None:
    view, _ = TASK.posed(NAMED)
    answer = view.solutions(PATH)[0]
    assert view.text(answer) == NAMED + "\nn 1 1\nn 2 2\nn 3 1"
    assert text_of(view.text(answer)) == NAMED
    assert TASK.text(answer) == "p edge 3 2\ne 1 2\ne 2 3\nn 1 1\nn 2 2\nn 3 1", "the task itself has no names"


def test_a_view_shares_the_solver() -> None:
    assert TASK.posed(NAMED)[0].colorings is TASK.colorings


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_count_the_vertices_are_no_names(first: int) -> None:
    names = [first, first + 1, first + 2]
    assert text_of({"vertices": names, "edges": [names[:2], names[1:]]}) == "p edge 3 2\ne 1 2\ne 2 3"


def test_other_numbers_are_names_and_only_those_that_differ_are_written() -> None:
    text = text_of("0 3\n1 3")
    assert text == "c vertex 1 is 0\nc vertex 2 is 1\np edge 3 2\ne 1 3\ne 2 3"
    assert TASK.posed(text)[0].names == TASK.posed("0 3\n1 3")[0].names == ("0", "1", "3")


names = st.text(max_size=9).map(str.strip).filter(lambda name: name != "" and name.isprintable())


@given(st.lists(names | st.integers(-5, 20).map(str), min_size=1, max_size=8, unique=True), st.data())
def test_a_text_with_names_reads_back_with_the_same_names(called: list[str], data: st.DataObject) -> None:
    pairs = [[*pair] for pair in itertools.combinations(called, 2)]
    puzzle = {"vertices": called, "edges": data.draw(st.lists(st.sampled_from(pairs))) if pairs else []}
    text = text_of(puzzle)
    assert text_of(text) == text
    assert np.array_equal(TASK.read(text), TASK.read(puzzle))


# --- files


def split(text: str) -> list[tuple[int, str]]:
    return [*TASK.split(text.splitlines(keepends=True))]


def test_a_file_of_dimacs_has_graphs_that_begin_at_their_p_line_and_the_comments_before_it() -> None:
    one, two, three = "c one\np edge 2 1\nc inside\ne 1 2", NAMED, "p edge 1 0"
    found = split(f"{one}\n\n{two}\n{three}\nc the end\n")
    assert [number for number, _ in found] == [1, 5, 12]
    assert [text.strip() for _, text in found] == [one, two, f"{three}\nc the end"]
    assert text_of(found[1][1]) == NAMED


def test_words_and_json_are_one_a_line() -> None:
    lines = ["# graphs", ">>graph6<<Bg", "", "Bw", ":Bc", '{"num_vertices": 1, "edges": []}', "[[0]]"]
    assert split("\n".join(lines)) == [(i, line) for i, line in enumerate(lines, start=1) if i not in (1, 3)]


@pytest.mark.parametrize(
    "text",
    ["# edges\n0 1\n1 2", "3 2\n2\n1 3\n2", "% METIS\n3 1\n\n3\n2", GRAPHML.format(f"\n{NODES}\n"), "0: 1\n1:"],
    ids=["edges", "METIS", "an empty line", "GraphML", "neighbors"],
)
def test_other_texts_are_one_graph(text: str) -> None:
    assert split(text) == [(1, text)]


def test_what_listg_prints_has_several_graphs() -> None:
    one, two = "Graph 1, order 2.\n  0 : 1;\n  1 : 0;", "Graph 2, order 1.\n  0 : ;"
    found = split(f"\n{one}\n\n{two}\n")
    assert [text.strip() for _, text in found] == [one, two]
    assert [np.sum(TASK.grid(TASK.read(text))) for _, text in found] == [2, 0]


def test_of_an_endless_text_only_the_beginning_is_kept() -> None:
    ((number, text),) = TASK.split("1 2" for _ in itertools.count())
    assert (number, "send one graph" in refusal(text)) == (1, True)
    long, short = [*TASK.split(["p edge 2 1", *["e 1 2"] * 100_000, "p edge 1 0"])]
    assert "send one graph" in refusal(long[1])
    assert short == (100_002, "p edge 1 0")


def test_an_empty_file_has_no_graph() -> None:
    assert split("") == split("\n# nothing\n") == []


# --- anything at all

words = st.lists(
    st.sampled_from([*"0123abc:;,{}()<>?@A_~%#\n ", "p edge ", "e ", "Graph 1, order 3.", "c vertex 1 is "]), max_size=60
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["vertices", "nodes", "edges", "links", "id", "source", "target", "A", "B"]), inner)
    ),
    max_leaves=40,
)
lists = st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=5)
xml = st.lists(st.sampled_from(["<graphml>", "<graph>", "</graph>", '<node id="A"/>', "<edge/>", "&a;", "</graphml>", "\0"]))


@given(words.map("".join) | xml.map("".join) | json_values | lists | st.text())
@example([10**4000] * 8)
@example({"vertices": [10**4000], "edges": []})
@example("<graphml>\ud800")
@example("<?xml version='1.0' encoding='nonsense'?><graphml/>")
@settings(max_examples=500)
def test_whatever_is_sent_is_a_graph_or_a_puzzle_error(puzzle: object) -> None:
    try:
        tokens = TASK.read(puzzle)
    except PuzzleError:
        return
    text = text_of(puzzle)
    assert np.array_equal(TASK.read(text), tokens)
    assert text_of(text) == text


@given(st.binary(max_size=12), st.sampled_from([":", ">>graph6<<", ">>sparse6<<:", ":F", "G"]))
def test_any_word_of_graph6_is_a_graph_or_a_puzzle_error(data: bytes, start: str) -> None:
    with suppress(PuzzleError):
        TASK.read(start + "".join(chr(63 + byte % 64) for byte in data))


@pytest.mark.parametrize(
    "text",
    [
        *("~~" + "~" * 60_000, ":~~" + "~" * 60_000, ":G" + "~" * 60_000, ":G" + "?" * 60_000),
        *("<a>" * 20_000, "<graphml>" + "<graph>" * 9_000, "\n" * 60_000 + "1", " " * 60_000 + "x", "x\n" * 30_000),
        *("0 1\n" * 16_000, "1 2;" * 16_000, "1:" * 30_000, "{" * 60_000, "{}  " * 16_000, "0\n1\n" * 16_000),
        *(
            "p edge 8 1\n" * 5_000,
            "p edge 8 1\n" + "e 1 2\n" * 10_000,
            "c vertex 1 is A\n" * 4_000,
            "Graph 1, order 2.\n" * 3_000,
        ),
        "\n".join(f"{i} {i + 1}" for i in range(5_000)),
        "5000 4999\n" + "\n".join(f"{i} {i + 2}" for i in range(5_000)),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_the_time_is_bounded_whatever_a_text_has(text: str) -> None:
    began = time.process_time()
    with suppress(PuzzleError):
        TASK.read(text)
    assert time.process_time() - began < 2


def test_networkx_is_imported_only_for_a_graph_in_one_word() -> None:
    code = "import sys; from gram.models.tasks import TASKS; t = TASKS['coloring-8']; t.parse(t.examples[0]); {} sys.exit({})"
    for more, expected in (("", "'networkx' in sys.modules"), ("t.parse('A_');", "'networkx' not in sys.modules")):
        assert subprocess.run([sys.executable, "-c", code.format(more, expected)]).returncode == 0


def test_both_models_list_an_example_of_each_format() -> None:
    for name in ("coloring-8", "coloring-10"):
        task = TASKS[name]
        first, *others = map(task.read, task.examples)
        assert len(task.formats) == len(task.examples)
        assert all(np.array_equal(other, first) for other in others)
