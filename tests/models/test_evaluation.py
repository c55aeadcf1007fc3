import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation import Evaluation, Sample, auroc, evaluate
from models.tasks import TASKS, Tokens

TASK = TASKS["nqueens-8"]
WRONG = np.zeros(64, dtype=np.int64)
CORNER = TASK.parse("a8")
ONLY_ONE = next(puzzle for puzzle in TASK.held_out if len(TASK.solutions(puzzle)) == 1)
FOUND, OTHER = TASK.solutions(CORNER)[:2]
(ANSWER,) = TASK.solutions(ONLY_ONE)


def judged(*rows: list[tuple[Tokens, float, int]]) -> Evaluation:
    """Rows of (answer, score, steps), for CORNER and then ONLY_ONE."""
    samples = [[Sample(*sample) for sample in row] for row in rows]
    puzzles = np.stack([CORNER, ONLY_ONE][: len(rows)])
    return evaluate(TASK, "two", puzzles, samples, temperature=1.5, max_steps=16, seed=7)


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
