"""A task without code reads its symbols however they are written, and knows no right or wrong."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.models.config import CheckpointConfig, CheckpointError, ModelConfig
from gram.models.tasks import TASKS, Plain, PuzzleError, task_of

SIX, WIDE = Plain("six", 6, 10), Plain("wide", 6, 200)


@given(task=st.sampled_from([SIX, WIDE]), data=st.data())
def test_every_spelling_of_a_puzzle_is_read(task: Plain, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, task.vocab_size - 1), min_size=6, max_size=6))
    tokens = np.array(numbers)
    rows = [numbers[:3], numbers[3:]]
    spellings: list[object] = [numbers, rows, tokens, tokens.reshape(2, 3), str(tokens), json.dumps(rows), task.text(tokens)]
    spellings.append({"text": task.text(tokens), "grid": task.grid(tokens)})
    if task is SIX:
        spellings += ["".join(map(str, numbers)), "\n".join("".join(map(str, row)) for row in rows)]
    for spelling in spellings:
        assert task.read(spelling).tolist() == numbers


@pytest.mark.parametrize("task", [SIX, WIDE])
def test_the_examples_are_one_puzzle_in_each_format(task: Plain) -> None:
    assert len(task.examples) == len(task.formats)
    assert len({task.read(example).tobytes() for example in task.examples}) == 1


@pytest.mark.parametrize(
    ("puzzle", "message"),
    [
        ("1 2 3", "there are 3 numbers; a puzzle of wide is 6 numbers from 0 to 199"),
        ("123456", "number 1: '123456' is no number from 0 to 199"),
        ([1, 2, 3, 4, 5, 200], "number 6: '200' is no number"),
        ([1, 2, -1, 4, 5, 6], "number 3: '-1' is no number"),
        ([1, 2, 3, 4, 5, True], "number 6: 'True' is no number"),
        ("1 2 3 4 5 x", "number 6: 'x' is no number"),
        ("1 2 3 4 5 ²", "number 6: '²' is no number"),
        ({"cells": []}, "write a puzzle of wide as one of: "),
        (None, "write a puzzle of wide as one of: "),
    ],
)
def test_what_is_no_puzzle_is_refused(puzzle: object, message: str) -> None:
    with pytest.raises(PuzzleError, match=message):
        WIDE.read(puzzle)


def test_nothing_is_given_counted_or_turned() -> None:
    puzzle = SIX.read("123456")
    assert not SIX.given(puzzle).any()
    assert SIX.solvable(puzzle) is None
    seen = SIX.symmetries(puzzle[None], np.zeros((1, 0))).image(puzzle[None])
    assert seen.tolist() == [puzzle.tolist()]


def config(**fields: object) -> CheckpointConfig:
    return CheckpointConfig.model_validate({"model": ModelConfig(vocab_size=10, seq_len=6), **fields})


def test_a_config_that_says_so_needs_no_registered_task() -> None:
    assert task_of(config(task="six", checked=False)) == SIX
    assert task_of(config(task="six", checked=False)) != task_of(config(task="seven", checked=False))
    assert task_of(config(task="sudoku-4x4")) is TASKS["sudoku-4x4"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "sudoku-4x5"}, "unknown task 'sudoku-4x5'; known tasks: nqueens-8, .*needs checked: false"),
        ({"task": "sudoku-4x4", "checked": False}, "sudoku-4x4 has a checker"),
    ],
)
def test_a_misspelt_task_is_no_task_without_code(fields: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        task_of(config(**fields))
