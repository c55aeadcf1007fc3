"""The collector makes ranked answers out of trajectories."""

import random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.models.tasks import TASKS
from gram.server.engine.messages import Ending, Trajectory
from gram.server.sampling.collector import Collector, Select, Stop, StopAt, answer_of
from gram.server.sampling.options import Options

TASK = TASKS["nqueens-8"]
PUZZLE = TASK.parse({"queens": []})
WRONG = bytes([1] * 64)


ANSWERS = (Ending.HALTED, Ending.DEPTH)


def _answer(board: int) -> bytes:
    """The valid board with this number, or a wrong one for -1."""
    return WRONG if board < 0 else TASK.solutions(PUZZLE)[board].astype(np.uint8).tobytes()


RUNS = st.lists(
    st.tuples(
        st.integers(-1, 3),
        st.sampled_from([0.1, 0.5, 0.9]),
        st.integers(1, 16),
        st.sampled_from([Ending.HALTED, Ending.DEPTH, Ending.NOT_FINITE, Ending.PRUNED]),
    ),
    min_size=1,
    max_size=30,
)
"""(answer, score, steps, ending) of each trajectory."""


def _trajectories(runs: list[tuple[int, float, int, Ending]]) -> list[Trajectory]:
    return [
        Trajectory(0, i, steps, score, ending, _answer(board) if ending in ANSWERS else None)
        for i, (board, score, steps, ending) in enumerate(runs)
    ]


def _collect(trajectories: list[Trajectory], stop: Stop) -> tuple[object, ...]:
    collector = Collector(TASK, PUZZLE, len(trajectories), stop, solutions=3)
    for trajectory in trajectories:
        collector.add(trajectory)
        if collector.done:
            break
    assert collector.done
    ranking = [
        [(c.best.index, c.best.steps, c.best.score, c.valid, c.votes) for c in collector.ranked(select, None)]
        for select in get_args(Select)
    ]
    votes = sum(candidate.votes for candidate in collector.ranked("lprm", None))
    assert votes + len(collector.dropped) + collector.pruned == collector.counted
    return ranking, sorted(collector.dropped), collector.pruned, collector.steps_run, collector.distinct_valid


@given(runs=RUNS, order=st.randoms(use_true_random=False), stop=st.sampled_from([*get_args(StopAt), 0.5]))
def test_the_answer_does_not_depend_on_the_order_in_which_trajectories_finish(
    runs: list[tuple[int, float, int, Ending]], order: random.Random, stop: Stop
) -> None:
    trajectories = _trajectories(runs)
    shuffled = trajectories.copy()
    order.shuffle(shuffled)
    assert _collect(trajectories, stop) == _collect(shuffled, stop)


@given(runs=RUNS)
def test_first_valid_ends_with_the_lowest_numbered_valid_trajectory(runs: list[tuple[int, float, int, Ending]]) -> None:
    collector = Collector(TASK, PUZZLE, len(runs), "first_valid")
    counted = [ended.index for trajectory in reversed(_trajectories(runs)) for ended, _ in collector.add(trajectory)]
    valid = [i for i, (board, _, _, ending) in enumerate(runs) if board >= 0 and ending in ANSWERS]
    assert collector.counted == (valid[0] + 1 if valid else len(runs))
    assert counted == [i for i in range(collector.counted) if runs[i][3] in ANSWERS]


@given(runs=RUNS, solutions=st.none() | st.integers(1, 5) | st.just(1000))
def test_all_solutions_ends_with_the_lowest_numbered_trajectory_that_completes_them(
    runs: list[tuple[int, float, int, Ending]], solutions: int | None
) -> None:
    collector = Collector(TASK, PUZZLE, len(runs), "all_solutions", solutions)
    for trajectory in reversed(_trajectories(runs)):
        collector.add(trajectory)
    found: set[int] = set()
    expected = len(runs)
    for i, (board, _, _, ending) in enumerate(runs, start=1):
        found |= {board} if board >= 0 and ending in ANSWERS else set()
        if len(found) == solutions:
            expected = i
            break
    assert collector.done
    assert collector.counted == expected


def test_equal_answers_are_one_candidate_with_votes() -> None:
    collector = Collector(TASK, PUZZLE, 4)
    halted = Ending.HALTED
    runs = [(0, 0.5, 3, halted), (1, 0.9, 2, halted), (0, 0.9, 4, halted), (-1, 0.1, 1, halted)]
    for trajectory in _trajectories(runs):
        collector.add(trajectory)
    by_score = [(c.best.index, c.votes, c.valid) for c in collector.ranked("lprm", None)]
    assert by_score == [(2, 2, True), (1, 1, True), (3, 1, False)]
    assert [c.votes for c in collector.ranked("majority", 2)] == [2, 1]
    assert collector.distinct_valid == 2
    assert collector.steps_run == 10


def test_by_default_what_the_checker_finds_valid_comes_first() -> None:
    collector = Collector(TASK, PUZZLE, 4)
    scores = [(-1, 0.99), (0, 0.2), (1, 0.4), (0, 0.3)]
    for trajectory in _trajectories([(board, score, 1, Ending.HALTED) for board, score in scores]):
        collector.add(trajectory)
    assert [c.best.index for c in collector.ranked(Options().select, None)] == [2, 3, 0]
    assert [c.best.index for c in collector.ranked("lprm", None)] == [0, 2, 3]
    assert [c.best.index for c in collector.ranked("majority", None)] == [3, 0, 2]


@pytest.mark.parametrize("name", TASKS)
def test_what_is_given_stays_as_it_is_whatever_the_model_makes_of_it(name: str) -> None:
    """The model's copy of a given cell is no part of its answer: a lost edge or a changed clue does not make it wrong."""
    task = TASKS[name]
    rng = np.random.default_rng(0)
    for puzzle in task.held_out[rng.integers(len(task.held_out), size=5)]:
        right = rng.choice(task.solutions(puzzle))
        given = task.given(puzzle)
        assert given.any()
        assert np.array_equal(right[given], puzzle[given])
        changed = np.where(given, (right + 1) % task.vocab_size, right)
        answer = answer_of(task, puzzle, changed.astype(np.uint8).tobytes())
        assert np.array_equal(answer, right)
        assert task.check(puzzle, answer)


def test_when_the_time_is_over_what_has_finished_counts_up_to_the_early_stop() -> None:
    trajectories = _trajectories(
        [(board, score, 1, Ending.DEPTH) for board, score in ((-1, 0.1), (-1, 0.1), (0, 0.9), (1, 0.9))]
    )
    collector = Collector(TASK, PUZZLE, len(trajectories), "first_valid")
    for trajectory in reversed(trajectories[1:]):
        assert collector.add(trajectory) == [], "trajectory 0 may still be valid"
    assert collector.complete
    assert [trajectory.index for trajectory, _ in collector.cut_off()] == [1, 2]
    assert not collector.complete
    assert collector.distinct_valid == 1
