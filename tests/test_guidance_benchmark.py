"""benchmarks.guidance: the results of a smaller K are read off a larger run, so they must be that K's own."""

import numpy as np
import pytest

from benchmarks.guidance import Point, comparison_table, curves, measure, solved_at
from gram.models.config import ZOO
from gram.models.tasks import TASKS
from gram.server.engine.messages import Ending, Trajectory
from gram.server.sampling.options import Options


def measured(model: str, test_set: str, samples: int) -> list[Point]:
    return measure(ZOO / model, TASKS[model].test_sets[test_set][:4], Options(num_trajectories=samples, seed=0))


def test_a_prefix_of_a_run_is_the_smaller_run() -> None:
    large, small = (measured("sudoku-4x4", "minimal", samples) for samples in (5, 2))
    assert [p for p in large if p.k <= 2] == small


def test_a_prefix_is_the_smaller_run_where_trajectories_are_pruned_and_go_wrong() -> None:
    """Those of the other tests halt before they can be."""
    large, small = (measured("sudoku-9x9", "hard", samples) for samples in (5, 2))
    assert [p for p in large if p.k <= 2] == small
    spent = {p.strategy: p.steps for p in small if p.k == 2}
    assert spent["keep 0.5 at 2, 4, 8: LPRM"] < spent["none: LPRM"]
    assert spent["keep 0.25 at 4: LPRM"] < spent["none: LPRM"]
    assert len({p.solved for p in small}) > 1


def test_the_hand_computed_example() -> None:
    task = TASKS["sudoku-4x4"]
    puzzle = task.held_out[0]
    right, wrong = task.solutions(puzzle)[0].astype(np.uint8).tobytes(), bytes(16)
    trajectories = [
        Trajectory(0, 0, 4, 0.0, Ending.PRUNED),
        Trajectory(0, 1, 16, 0.9, Ending.DEPTH, wrong),
        Trajectory(0, 2, 3, 0.1, Ending.HALTED, right),
        Trajectory(0, 3, 2, 0.2, Ending.HALTED, right),
        Trajectory(0, 4, 1, 0.8, Ending.HALTED, wrong),
    ]
    points = curves("g", task, puzzle[None], [trajectories], ["LPRM", "majority", "first valid"])
    assert points == [
        Point("g: LPRM", 1, 4, 0),
        Point("g: LPRM", 2, 20, 0),
        Point("g: LPRM", 5, 26, 0),
        Point("g: majority", 1, 4, 0),
        Point("g: majority", 2, 20, 0),
        Point("g: majority", 5, 26, 0),  # two votes each, and the wrong ones score higher
        Point("g: first valid", 1, 4, 0),
        Point("g: first valid", 2, 20, 0),
        Point("g: first valid", 5, 23, 1),
    ]
    _, _, *rows = comparison_table(points).splitlines()
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["g: LPRM", "0.0%", "0.0%", "0.0%"],
        ["g: majority", "0.0%", "0.0%", "0.0%"],
        ["g: first valid", "0.0%", "0.0%", "-"],
    ]


@pytest.mark.parametrize(("steps", "solved"), [(1, None), (2, 0.5), (3, 0.6), (6, 0.9), (7, None)])
def test_between_the_points_the_curve_is_a_line_and_beyond_them_it_is_nothing(steps: float, solved: float | None) -> None:
    assert solved_at([Point("s", 1, 2, 0.5), Point("s", 2, 6, 0.9)], steps) == (solved and pytest.approx(solved))
