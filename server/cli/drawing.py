"""Boards and answers as text, for a terminal."""

import itertools

from gram.models.tasks import MOST_COUNTED
from gram.server.sampling.answers import SolveResponse

_LINE_LENGTH = 120
_MARKS = {True: "valid ", False: "WRONG ", None: ""}


def spaced(row: str) -> str:
    """Put spaces between the symbols of a row. A line of a graph, which has words, stays as it is."""
    return row if " " in row else " ".join(row)


def draw(response: SolveResponse) -> str:
    """Draw the puzzle and its answers side by side."""
    boards = [("puzzle", response.puzzle.text)]
    for candidate in response.candidates:
        boards.append((f"{_MARKS[candidate.valid]}{candidate.score:.3f} x{candidate.votes}", candidate.text))
    columns = [[title, *map(spaced, text.split("\n"))] for title, text in boards]
    width = max(len(line) for column in columns for line in column) + 3
    per_line = max(1, _LINE_LENGTH // width)
    lines = []
    for start in range(0, len(columns), per_line):
        group = columns[start : start + per_line]
        lines += ["".join(line.ljust(width) for line in row).rstrip() for row in itertools.zip_longest(*group, fillvalue="")]
        lines.append("")
    of_all = "" if response.solutions is None else f" of {response.solutions}{'+' * (response.solutions == MOST_COUNTED)}"
    valid = response.distinct_valid
    found = f"{len(response.candidates)} distinct" if valid is None else f"{valid}{of_all} distinct valid"
    lines.append(
        f"{found} answers from {response.trajectories} trajectories, "
        f"{response.steps_run} steps in {response.compute_ms / 1e3:.2f} s, seed {response.seed}"
    )
    return "\n".join(lines)
