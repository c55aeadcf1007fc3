import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation import (
    WIDTHS,
    Conditions,
    Evaluation,
    Judged,
    Sample,
    auroc,
    evaluate,
    evaluate_traits,
    evaluate_widths,
    judge,
)
from models.tasks import TASKS, Tokens

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
            "single": (2 / 3 + 1 / 3) / 2,
            "lprm": (1 + 0) / 2,  # the second puzzle's highest score is that of a wrong answer
            "majority": (1 + 0) / 2,
            "any": 1.0,
            "conflicts": 1,
            "coverage": (1 / 4 + 1) / 2,
            "coverage_limit": (1 - (3 / 4) ** 3 + 1) / 2,
            "auroc": 5 / 9,  # 0.9 and 0.8 each beat 0.05 and 0.2; 0.1 beats 0.05
            "mean_steps": 48 / 6,
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
    ]


def test_a_task_without_traits_has_no_strata() -> None:
    assert evaluate_traits(TASK, CORNER[None], judgement([(FOUND, 0.5, 1)])) == []


@pytest.mark.parametrize("answer", [FOUND, WRONG])
def test_without_both_right_and_wrong_answers_there_is_no_auroc(answer: Tokens) -> None:
    assert judged([(answer, 0.1, 1), (answer, 0.9, 1)]).auroc is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_auroc_is_the_share_of_pairs_in_order_with_ties_as_half(scored: list[tuple[int, bool]]) -> None:
    right = [score for score, positive in scored if positive]
    wrong = [score for score, positive in scored if not positive]
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(right, wrong)]
    scores, positive = (np.array(column) for column in zip(*scored, strict=True))
    assert auroc(scores.astype(float), positive) == (pytest.approx(np.mean(pairs)) if pairs else None)
