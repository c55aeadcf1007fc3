"""What users send as plain values: arrays, tensors, what these print, and JSON in a text."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gram.models.tasks import TASKS, PuzzleError
from gram.models.tasks.spelling import bracketed, plain

SQUARE = [[0, 1, 2], [3, 4, 5]]
ARRAY = np.array(SQUARE)
TEXTS = np.array([["Q", "."], [".", "Q"]])


@pytest.mark.parametrize(
    "value",
    [
        *(ARRAY, ARRAY.astype(float), torch.tensor(SQUARE), tuple(map(tuple, SQUARE))),
        *(str(ARRAY), repr(ARRAY), str(SQUARE), repr(ARRAY.astype(float)), repr(ARRAY.astype(np.uint8))),
        *(repr(torch.tensor(SQUARE)), str(torch.tensor(SQUARE).float()), " [[0 1 2]\n [3 4 5]] "),
    ],
    ids=repr,
)
def test_arrays_and_what_they_print_are_lists(value: object) -> None:
    assert plain(value) == SQUARE


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (str(TEXTS), TEXTS.tolist()),
        (repr(TEXTS), TEXTS.tolist()),
        (str(ARRAY == 1), (ARRAY == 1).tolist()),
        ("[[None, 3]]", [[None, 3]]),
        ('{"queens": [[1.0, 6]]}', {"queens": [[1, 6]]}),
        ("{'queens': [(1, 6), (4, 0)]}", {"queens": [[1, 6], [4, 0]]}),
        ("{0: [1, 4], -1: {2: None}}", {"0": [1, 4], "-1": {"2": None}}),
        ("{1, 2}", "{1, 2}"),
        ("[Puzzle]", "[Puzzle]"),
        ("[1 2 ... 3]", "[1 2 ... 3]"),
        ("g7 a4", "g7 a4"),
        ("[" * 10_000, "[" * 10_000),
        (0.5, 0.5),
        (None, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_values_are_what_they_say(value: object, said: object) -> None:
    assert plain(value) == said


def test_a_value_of_several_lines_is_one() -> None:
    lines = ["a\n", "[[1,\n", "2]]\r\n", "\n", "b", "{", "never closed"]
    assert [*bracketed(lines)] == [(1, "a"), (2, "[[1,\n2]]"), (4, ""), (5, "b"), (6, "{\nnever closed")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.text(max_size=90),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.sampled_from(["text", "grid", "board", "box_rows"]), inner),
    max_leaves=100,
)
SYMBOLS = st.text(st.sampled_from("0123456789.xX?*_-+|#%:,;/ \n[]{}()\"'QabeT"), max_size=200)


@pytest.mark.parametrize("name", TASKS)
@given(value=VALUES | SYMBOLS | st.text())
def test_whatever_is_sent_is_read_or_refused(name: str, value: Any) -> None:
    """It is read as a puzzle of the task, which can be written and read again, or refused with a PuzzleError."""
    task = TASKS[name]
    try:
        view, tokens = task.pose(value)
    except PuzzleError:
        return
    again, same = task.pose(view.text(tokens))
    assert np.array_equal(same, tokens)
    assert again.text(same) == view.text(tokens)


@pytest.mark.parametrize("name", TASKS)
@given(text=SYMBOLS | st.text())
def test_every_line_of_a_text_is_read_once_or_passed_over(name: str, text: str) -> None:
    numbers = [number for number, _ in TASKS[name].split(text.splitlines(keepends=True))]
    assert numbers == sorted(numbers)
    assert all(1 <= number <= len(text.splitlines()) for number in numbers)
