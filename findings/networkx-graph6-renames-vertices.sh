#!/usr/bin/env bash
# Package:   networkx 3.6.1.
# Behaviour: to_graph6_bytes (and write_graph6) number the vertices in the order in which they were added to the graph, even where
#            they are the integers 0 to n - 1 already. to_sparse6_bytes keeps the integers.
# Expected:  vertex i of the graph is vertex i of the file, in both formats; so a colouring of the one fits the other.
# Seen:      the path 2-0-3 beside vertex 1, built by adding the edges 3-0 and 0-2, came back from graph6 as the path 0-1-2 and
#            from sparse6 as it was. A colouring that is proper for the graph read back was wrong for the one written.
#            Sorting the vertices first (add_nodes_from(range(n))) avoids it. 2026-11-27.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check networkx==3.6.1

"$folder/venv/bin/python" - <<'EOF'
import networkx as nx


def edges(graph):
    return sorted(tuple(sorted(edge)) for edge in graph.edges)


def through(graph, write, read):
    return read(write(graph, header=False).strip())


graph = nx.Graph([(3, 0), (0, 2)])
graph.add_node(1)
graph6 = through(graph, nx.to_graph6_bytes, nx.from_graph6_bytes)
sparse6 = through(graph, nx.to_sparse6_bytes, nx.from_sparse6_bytes)
colours = nx.greedy_color(graph6)
clashes = [edge for edge in edges(graph) if colours[edge[0]] == colours[edge[1]]]
print("written:", edges(graph), "| read from graph6:", edges(graph6), "| read from sparse6:", edges(sparse6))
print("coloured as read from graph6, these edges of the graph have equal ends:", clashes)
assert edges(sparse6) == edges(graph) == [(0, 2), (0, 3)], "sparse6 has changed"
assert edges(graph6) == [(0, 1), (1, 2)] and clashes, "graph6 has changed"

ordered = nx.Graph()
ordered.add_nodes_from(range(4))
ordered.add_edges_from(graph.edges)
assert edges(through(ordered, nx.to_graph6_bytes, nx.from_graph6_bytes)) == edges(graph), "sorting does not help any more"
EOF
