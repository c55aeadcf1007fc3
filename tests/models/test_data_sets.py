"""Data set folders as TRM and HRM build them."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, DTypeLike

from gram.models.data_sets import DataSet, DataSetError, open_folder
from gram.models.tasks import Tokens
from tests.support import write_data_set

PUZZLES, ANSWERS = np.arange(12).reshape(3, 4) % 5, np.arange(12).reshape(3, 4)[::-1] % 5


def rows(data: DataSet) -> tuple[Tokens, Tokens]:
    puzzles, answers = zip(*data.rows(), strict=True)
    return np.stack(puzzles), np.stack(answers)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("folder", ["mine", "mine/test"], ids=["itself", "its split"])
def test_symbols_are_read_without_the_padding_s_one(folder: str, dtype: DTypeLike, tmp_path: Path) -> None:
    write_data_set(tmp_path / folder, PUZZLES, ANSWERS, 5, dtype)
    data = open_folder(tmp_path / "mine", "test")
    puzzles, answers = rows(data)
    assert (puzzles.tolist(), answers.tolist()) == (PUZZLES.tolist(), ANSWERS.tolist())
    assert (len(data), data.seq_len, data.vocab_size) == (3, 4, 5)
    assert data.answers(np.array([2, 0])).tolist() == ANSWERS[[2, 0]].tolist()


def test_a_label_that_is_ignored_is_not_scored(tmp_path: Path) -> None:
    answers = ANSWERS.copy()
    answers[1, 2] = -1
    _, read = rows(open_folder(write_data_set(tmp_path / "mine", PUZZLES, answers, 5), "train"))
    assert read.tolist() == answers.tolist()


def changed(name: str, change: Callable[[Tokens], ArrayLike]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def described(**fields: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        about = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(about | fields))

    return write


def with_symbol(array: Tokens, symbol: int) -> Tokens:
    array[1, 2] = symbol
    return array


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed("all__inputs.npy", lambda a: with_symbol(a, 0)), "all__inputs.npy, row 2, cell 3: 0 is no symbol; .*padding"),
        (
            changed("all__labels.npy", lambda a: with_symbol(a, 6)),
            "all__labels.npy, row 2, cell 3: 6 is no symbol; write 1 to 5",
        ),
        (described(ignore_label_id=None), None),
        (changed("all__labels.npy", lambda a: a[:2]), "all__labels.npy has 2 rows of 4 cells, but all__inputs.npy 3 rows of 4"),
        (changed("all__labels.npy", lambda a: a[:, :3]), "all__labels.npy has 3 rows of 3 cells, but all__inputs.npy 3 rows"),
        (changed("all__inputs.npy", lambda a: a[0]), r"all__inputs.npy has uint8 of shape \[4\]"),
        (changed("all__inputs.npy", lambda a: np.asarray(a / 2)), "all__inputs.npy has float64"),
        (described(seq_len=5), "all__inputs.npy: its rows have 4 cells, but dataset.json says 5; correct one"),
        (described(vocab_size="many"), "dataset.json: vocab_size: "),
        (described(pad_id=3), "dataset.json: pad_id: "),
        (lambda folder: (folder / "dataset.json").write_text("{"), "dataset.json: "),
        (lambda folder: (folder / "dataset.json").unlink(), "mine is no data set: neither it nor test/ in it has dataset.json"),
        (lambda folder: (folder / "all__inputs.npy").unlink(), "all__inputs.npy is missing; a data set is dataset.json, "),
        (lambda folder: (folder / "all__inputs.npy").write_bytes(b"\x93NUMPY"), "all__inputs.npy is no array, or was cut off"),
        (lambda folder: (folder / "all__inputs.npy").write_bytes(b"no"), "all__inputs.npy is no array, or was cut off"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_told_with_its_place(
    spoil: Callable[[Path], object], message: str | None, tmp_path: Path
) -> None:
    folder = write_data_set(tmp_path / "mine", PUZZLES, ANSWERS, 5)
    spoil(folder)
    if message is None:
        rows(open_folder(folder, "test"))
    else:
        with pytest.raises(DataSetError, match=message):
            rows(open_folder(folder, "test"))


def test_answers_are_asked_for_where_there_are_none(tmp_path: Path) -> None:
    data = open_folder(write_data_set(tmp_path / "mine", PUZZLES, None, 5), "test")
    assert [answer for _, answer in data.rows()] == [None] * 3
    with pytest.raises(DataSetError, match=r"all__labels.npy is missing"):
        data.answers(slice(0, 1))


@pytest.mark.parametrize(
    ("sizes", "message"), [((4, 6), "have 5 symbols, those of nine have 6"), ((9, 5), "have 4 cells, those of nine have 9")]
)
def test_a_data_set_of_other_sizes_is_refused(sizes: tuple[int, int], message: str, tmp_path: Path) -> None:
    data = open_folder(write_data_set(tmp_path / "mine", PUZZLES, ANSWERS, 5), "test")
    data.fit("nine", 4, 5)
    with pytest.raises(DataSetError, match=message):
        data.fit("nine", *sizes)


def test_a_large_data_set_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "mine", np.zeros((200_000, 81), int), np.ones((200_000, 81), int), 10)
    tracemalloc.start()
    assert sum(1 for _ in open_folder(folder, "test").rows()) == 200_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000
