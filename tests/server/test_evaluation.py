"""Sampling for `gram eval`, with the bundled weights."""

from pathlib import Path

import pytest

from gram.models.evaluation.scores import Conditions, Sample
from gram.models.tasks import TASKS
from gram.server.engine.engine import Engine
from gram.server.evaluation.evaluate import draw, draw_without_halting, spread
from gram.server.evaluation.settings import EvaluationSettings
from tests.support import make_engine

TASK = TASKS["nqueens-8"]
PUZZLES = TASK.held_out[::150]
SAMPLES = 5
CONDITIONS = Conditions("held-out", temperature=3.0, max_steps=8, seed=3)
Rows = list[tuple[bytes, float, int]]


def rows(samples: list[list[Sample]]) -> list[Rows]:
    """Samples as what compares equal bit for bit."""
    return [[(s.answer.tobytes(), s.score, s.steps) for s in row] for row in samples]


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> list[Rows]:
    return rows(draw(make_engine(checkpoint, 32), TASK, CONDITIONS, PUZZLES, SAMPLES))


def unhalted(engine: Engine) -> dict[int, list[Rows]]:
    (lane,) = engine.lanes.values()
    by_depth = draw_without_halting(lane, TASK, CONDITIONS, PUZZLES, SAMPLES)
    assert engine.idle, "the engine can go on serving"
    return {depth: rows(samples) for depth, samples in by_depth.items()}


def test_the_slots_change_no_sample(checkpoint: Path, served: list[Rows]) -> None:
    assert rows(draw(make_engine(checkpoint, 5), TASK, CONDITIONS, PUZZLES, SAMPLES)) == served


@pytest.mark.parametrize("slots", [7, 32])
def test_at_the_depth_where_it_halts_an_unhalted_trajectory_is_the_served_one(
    checkpoint: Path, served: list[Rows], slots: int
) -> None:
    by_depth = unhalted(make_engine(checkpoint, slots))
    assert list(by_depth) == [1, 2, 4, 8]
    assert all([len(row) for row in samples] == [SAMPLES] * len(PUZZLES) for samples in by_depth.values())
    halted = [(i, k, sample) for i, row in enumerate(served) for k, sample in enumerate(row) if sample[2] in by_depth]
    assert {steps for *_, (_, _, steps) in halted} >= {2, 4, 8}
    assert all(by_depth[sample[2]][i][k] == sample for i, k, sample in halted)
    # It could have failed: another depth, another trajectory or another puzzle has another score.
    scores = {score for samples in by_depth.values() for row in samples for _, score, _ in row}
    assert len(scores) > 3 * len(PUZZLES) * SAMPLES


def test_all_puzzles_are_measured_unless_fewer_are_asked_for_which_lie_evenly() -> None:
    assert EvaluationSettings().puzzles is None
    assert (spread(TASK.held_out, None) == TASK.held_out).all()
    assert (spread(TASK.held_out, 1000) == TASK.held_out).all()
    assert (spread(TASK.held_out, 74) == TASK.held_out[::10]).all()
