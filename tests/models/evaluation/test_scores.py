import itertools
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.models.evaluation.records import Evaluation, Generation
from gram.models.evaluation.scores import (
    WIDTHS,
    Conditions,
    Judged,
    Sample,
    auroc,
    evaluate,
    evaluate_boards,
    evaluate_traits,
    evaluate_widths,
    judge,
    total_variation,
    uniform_total_variation,
)
from gram.models.tasks import TASKS, Task, Tokens
from gram.models.tasks.sudoku import Sudoku

TASK = TASKS["nqueens-8"]
WRONG = np.zeros(64, dtype=np.int64)
CORNER = TASK.parse("a8")
ONLY_ONE = next(puzzle for puzzle in TASK.held_out if len(TASK.solutions(puzzle)) == 1)
FOUND, OTHER = TASK.solutions(CORNER)[:2]
(ANSWER,) = TASK.solutions(ONLY_ONE)


def judgement(*rows: list[tuple[Tokens, float, int]]) -> Judged:
    """Rows of (answer, score, steps), for CORNER and then ONLY_ONE."""
    samples = [[Sample(*sample) for sample in row] for row in rows]
    puzzles = np.stack([CORNER, ONLY_ONE][: len(rows)])
    return judge(TASK, Conditions("two", temperature=1.5, max_steps=16, seed=7), puzzles, samples)


def judged(*rows: list[tuple[Tokens, float, int]]) -> Evaluation:
    return evaluate(judgement(*rows))


def test_the_hand_computed_example() -> None:
    assert len(TASK.solutions(CORNER)) == 4
    result = judged(
        [(FOUND, 0.9, 2), (FOUND, 0.1, 4), (WRONG, 0.05, 16)],
        [(WRONG, 0.95, 16), (WRONG, 0.2, 8), (ANSWER, 0.8, 2)],
    )
    assert result.model_dump() == pytest.approx(
        {
            "test_set": "two",
            "puzzles": 2,
            "samples": 3,
            "temperature": 1.5,
            "max_steps": 16,
            "seed": 7,
            "symmetries": True,
            "single": (2 / 3 + 1 / 3) / 2,
            "lprm": (1 + 0) / 2,  # the second puzzle's highest score is that of a wrong answer
            "majority": (1 + 0) / 2,
            "any": 1.0,
            "conflicts": 1,
            "distinct_valid": (1 + 1) / 2,
            "coverage": (1 / 4 + 1) / 2,
            "coverage_limit": (1 - (3 / 4) ** 3 + 1) / 2,
            "auroc": 5 / 9,  # 0.9 and 0.8 each beat 0.05 and 0.2; 0.1 beats 0.05
            "mean_steps": 48 / 6,
            "command": "",
        }
    )


def test_coverage_counts_each_valid_answer_once() -> None:
    assert judged([(FOUND, 0.5, 1), (FOUND, 0.5, 1), (OTHER, 0.5, 1), (WRONG, 0.5, 1)]).coverage == 2 / 4


def test_a_solution_of_another_puzzle_is_not_valid() -> None:
    result = judged([(ANSWER, 0.5, 1)])
    assert result.any == result.single == result.lprm == result.majority == result.coverage == 0.0


def test_a_majority_of_one_wrong_answer_beats_many_right_ones_that_differ() -> None:
    assert judged([(FOUND, 0.5, 1), (WRONG, 0.5, 1), (OTHER, 0.5, 1), (WRONG, 0.5, 1)]).majority == 0.0


def test_of_equally_frequent_answers_the_earliest_is_the_majority() -> None:
    assert judged([(FOUND, 0.5, 1), (WRONG, 0.5, 1), (WRONG, 0.5, 1), (FOUND, 0.5, 1)]).majority == 1.0
    assert judged([(WRONG, 0.5, 1), (FOUND, 0.5, 1), (FOUND, 0.5, 1), (WRONG, 0.5, 1)]).majority == 0.0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 16)), min_size=12, max_size=12))
def test_a_width_is_the_evaluation_of_so_many_first_samples(drawn: list[tuple[int, int, int]]) -> None:
    row = [((FOUND, OTHER, WRONG)[answer], score / 3, steps) for answer, score, steps in drawn]
    rows = row, [(ANSWER, score, steps) for _, score, steps in row]
    assert evaluate_widths(judgement(*rows)) == [judged(*(r[:width] for r in rows)) for width in WIDTHS if width <= 12]


def test_traits_are_evaluated_band_by_band() -> None:
    task = TASKS["sudoku-4x4"]
    puzzles = task.held_out[:60]
    clues = np.sum(puzzles > 0, axis=1)
    assert set(clues) == {4, 5}
    # Those of 4 clues are solved, but for the first; those of 5 are not.
    solved = clues == 4
    solved[np.flatnonzero(solved)[0]] = False
    samples = [
        [Sample(task.solutions(puzzle)[0] if right else puzzle, 0.5, 1)] for puzzle, right in zip(puzzles, solved, strict=True)
    ]
    conditions = Conditions("minimal", temperature=1.0, max_steps=16, seed=0)
    strata = evaluate_traits(task, puzzles, judge(task, conditions, puzzles, samples))
    four = int(np.sum(clues == 4))
    assert [(s.trait, s.band, s.puzzles, s.single) for s in strata] == [
        ("clues", "4", four, pytest.approx(1 - 1 / four)),
        ("clues", "5", 60 - four, 0.0),
        ("guesses", "0", 60, pytest.approx((four - 1) / 60)),
        ("solutions", "1", 60, pytest.approx((four - 1) / 60)),
    ]


def test_coverage_is_that_of_the_puzzles_whose_solutions_can_be_counted() -> None:
    task = Sudoku(9, paper={})
    conditions = Conditions("two", temperature=1.0, max_steps=16, seed=0)
    (board,) = task.solutions(task.held_out[0])
    samples = [Sample(board, 0.5, 1)] * 2
    both = judge(task, conditions, np.stack([task.blank, task.held_out[0]]), [samples, samples])
    result = evaluate(both)
    assert (result.coverage, result.coverage_limit, result.distinct_valid) == (1, 1, 1)
    many = evaluate(both.take(slice(0, 1)))
    assert (many.coverage, many.coverage_limit, many.distinct_valid) == (None, None, 1)
    assert many.single == 1


def test_a_task_without_traits_has_no_strata() -> None:
    assert evaluate_traits(TASK, CORNER[None], judgement([(FOUND, 0.5, 1)])) == []


@pytest.mark.parametrize("answer", [FOUND, WRONG])
def test_without_both_right_and_wrong_answers_there_is_no_auroc(answer: Tokens) -> None:
    assert judged([(answer, 0.1, 1), (answer, 0.9, 1)]).auroc is None


# --- from the empty input


def generated(task: Task, boards: Tokens) -> Generation:
    """Of boards [n, N], each of score 0.5 after 3 steps."""
    conditions = Conditions("empty input", temperature=1.5, max_steps=16, seed=7)
    return evaluate_boards(task, conditions, [Sample(board, 0.5, 3) for board in boards])


def listed(task: Task) -> Tokens:
    assert task.boards is not None
    return task.boards


def test_the_hand_computed_boards() -> None:
    conditions = Conditions("empty input", temperature=1.5, max_steps=16, seed=7)
    drawn = (FOUND, 0.9, 2), (OTHER, 0.3, 4), (WRONG, 0.4, 16), (FOUND, 0.2, 2)
    result = evaluate_boards(TASK, conditions, [Sample(*sample) for sample in drawn])
    differing = np.sum(FOUND != OTHER)
    queens = np.mean(listed(TASK) == 2, axis=0)
    assert result.model_dump() == pytest.approx(
        {
            "temperature": 1.5,
            "max_steps": 16,
            "seed": 7,
            "symmetries": True,
            "samples": 4,
            "valid": 3 / 4,
            "distinct": 2,
            "reachable": 92,
            "total_variation": (2 / 3 - 1 / 92) + (1 / 3 - 1 / 92),  # what the two have too much, the other 90 lack
            "total_variation_limit": uniform_total_variation(3, 92),
            "entropy": differing / 64 * (log(3) - 2 / 3 * log(2)),
            "entropy_limit": np.mean([-p * log(p) - (1 - p) * log(1 - p) for p in queens]),
            "auroc": 1 / 3,  # 0.9 beats 0.4; 0.3 and 0.2 do not
            "mean_steps": 24 / 4,
            "command": "",
        }
    )


@pytest.mark.parametrize(("name", "boards"), [("nqueens-8", 92), ("nqueens-10", 724), ("sudoku-4x4", 288)])
def test_all_boards_equally_often_are_uniform_to_the_last_figure(name: str, boards: int) -> None:
    task = TASKS[name]
    result = generated(task, np.tile(listed(task), (2, 1)))
    assert (result.valid, result.distinct, result.reachable, result.auroc) == (1.0, boards, boards, None)
    assert result.total_variation == pytest.approx(0, abs=1e-12)
    assert result.entropy == pytest.approx(result.entropy_limit)
    assert result.total_variation_limit is not None
    assert result.total_variation_limit > 0.1


def test_one_board_again_and_again_is_as_far_from_uniform_as_can_be() -> None:
    result = generated(TASK, np.tile(FOUND, (500, 1)))
    assert (result.valid, result.distinct, str(result.entropy)) == (1.0, 1, "0.0")
    assert result.total_variation == pytest.approx(91 / 92)


def test_wrong_boards_count_in_the_share_of_valid_ones_alone() -> None:
    right = listed(TASK)[:30]
    both = generated(TASK, np.concatenate([right, np.tile(WRONG, (10, 1))]))
    unchanged = {"distinct", "total_variation", "total_variation_limit", "entropy", "mean_steps"}
    assert both.model_dump(include=unchanged) == generated(TASK, right).model_dump(include=unchanged)
    assert both.valid == 30 / 40


def test_without_a_valid_board_nothing_is_said_of_their_distribution() -> None:
    result = generated(TASK, WRONG[None])
    assert (result.valid, result.distinct, result.reachable) == (0.0, 0, 92)
    assert result.total_variation is result.total_variation_limit is result.entropy is None


@pytest.mark.parametrize("size", [6, 9])
def test_boards_that_cannot_be_listed_have_an_entropy_but_no_distance(size: int) -> None:
    task = TASKS[f"sudoku-{size}x{size}"]
    (board,) = task.solutions(task.held_out[0])
    renamed = (board + np.arange(size)[:, None]) % size + 1  # in each cell, each digit once
    result = generated(task, renamed)
    assert (result.valid, result.distinct, result.reachable) == (1.0, size, None)
    assert result.total_variation is result.total_variation_limit is None
    assert result.entropy == pytest.approx(result.entropy_limit) == pytest.approx(log(size))
    assert generated(task, renamed[:2]).entropy == pytest.approx(log(2))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_total_variation_is_the_most_that_any_event_s_share_differs(draws: list[int]) -> None:
    shares = np.bincount(draws, minlength=10) / len(draws)
    events = (np.arange(1 << 10)[:, None] >> np.arange(10)) & 1
    farthest = np.abs(events @ (shares - 1 / 10)).max()
    assert total_variation(np.unique(draws, return_counts=True)[1], 10) == pytest.approx(farthest)


@given(st.integers(1, 6), st.integers(2, 4))
def test_the_limit_is_the_mean_over_all_that_uniform_draws_can_give(draws: int, outcomes: int) -> None:
    distances = [
        total_variation(np.bincount(drawn, minlength=outcomes), outcomes)
        for drawn in itertools.product(range(outcomes), repeat=draws)
    ]
    assert uniform_total_variation(draws, outcomes) == pytest.approx(np.mean(distances))


@pytest.mark.parametrize("outcomes", [92, 288])
def test_the_limit_of_ten_thousand_draws_is_what_a_simulation_shows(outcomes: int) -> None:
    counts = np.random.default_rng(0).multinomial(10_000, np.full(outcomes, 1 / outcomes), size=300)
    simulated = np.mean([total_variation(row, outcomes) for row in counts])
    assert uniform_total_variation(10_000, outcomes) == pytest.approx(simulated, rel=0.01)


# --- AUROC


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_auroc_is_the_share_of_pairs_in_order_with_ties_as_half(scored: list[tuple[int, bool]]) -> None:
    right = [score for score, positive in scored if positive]
    wrong = [score for score, positive in scored if not positive]
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(right, wrong)]
    scores, positive = (np.array(column) for column in zip(*scored, strict=True))
    assert auroc(scores.astype(float), positive) == (pytest.approx(np.mean(pairs)) if pairs else None)
