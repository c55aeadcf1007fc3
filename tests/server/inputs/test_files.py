"""What is read of the files that people have: text, tables, arrays, and whatever they are packed in."""

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard
from numpy.typing import DTypeLike

from gram.models.data_sets import DataSetError
from gram.models.tasks import TASKS, Task, Tokens
from gram.server.inputs.errors import InputError
from gram.server.inputs.files import PuzzleFile, spelled
from tests.support import write_data_set

QUEENS, SUDOKU = TASKS["nqueens-8"], TASKS["sudoku-9x9"]
DATA_SET = 'source,Question,answer,rating\nmine,g7 a4,,1\n\nyours,"h1",a1,2\nnobody\'s,,,\n'
ROWS = SUDOKU.text(SUDOKU.held_out[0]).split("\n")
D = "".join(ROWS)
S = "".join(map(str, SUDOKU.solutions(SUDOKU.held_out[0])[0]))


def wrote(folder: Path, data: bytes | str, name: str = "puzzles") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (b"g7 a4\nh1\n", [1, 2]),
        (b"\n  g7 a4\r\n\nh1", [2, 4]),
        ("\ufeffg7 a4\nh1".encode(), [1, 2]),
        ("g7 a4\nh1".encode("utf-16"), [1, 2]),
        (gzip.compress(b"g7 a4\nh1\n"), [1, 2]),
        (zstandard.compress(b"g7 a4\nh1\n"), [1, 2]),
        (DATA_SET.encode(), [2, 4]),
        (gzip.compress(DATA_SET.encode("utf-8-sig")), [2, 4]),
        (DATA_SET.replace(",", ";").encode(), [2, 4]),
        (b"puzzle\ng7 a4\nh1\n", [2, 3]),
    ],
    ids=["lines", "spaces", "byte order mark", "UTF-16", "gzip", "zstd", "table", "all of it", "semicolons", "one column"],
)
def test_puzzles_are_found_in_whatever_they_are_packed_in(data: bytes, numbers: list[int], tmp_path: Path) -> None:
    puzzles = PuzzleFile(wrote(tmp_path, data), [QUEENS])
    assert [line.text for line in puzzles] == ["g7 a4", "h1"]
    assert [line.number for line in puzzles] == numbers
    assert len(puzzles) == 2


@pytest.mark.parametrize(
    "data",
    [
        *(gzip.compress(b"g7" * 99)[:-5], b"\x1f\x8b???", zstandard.compress(b"g7")[:6], b"\x93NUMPY..."),
        b'puzzle\ng7\n"' + b"g7 " * 100_000,
    ],
    ids=["cut off", "not gzip", "not zstd", "not an array", "not closed"],
)
def test_files_that_cannot_be_read_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises((InputError, DataSetError), match="puzzles"):
        PuzzleFile(wrote(tmp_path, data), [QUEENS])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f"source,question,answer,rating\nx,{D},{S},3\n", "column 'question' and the answers 'answer' of source, "),
        (f"quizzes,solutions\n{D},{S}\n", "column 'quizzes' and the answers 'solutions' of quizzes"),
        (f"id,board,stars\n7,{D},2\n", "column 'board' of id, board, stars"),
        (f"solved,board\n{S},{D}\n", "column 'board' of solved, board"),
    ],
    ids=["question and answer", "quizzes and solutions", "by what is in it", "by its blanks"],
)
def test_the_columns_that_are_read_are_told(table: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = PuzzleFile(wrote(tmp_path, table), [*TASKS.values()])
    assert said in capsys.readouterr().err
    assert line.text == D
    assert line.answer == (S if "answers" in said else None)


@pytest.mark.parametrize(
    ("text", "puzzle", "answer"),
    [
        ("g7 a4", "g7 a4", None),
        ("1234123412341234", "1234123412341234", None),
        ('"p edge 2 1\\ne 1 2"', "p edge 2 1\ne 1 2", None),
        ('{"puzzle": ["12", "21"]}', ["12", "21"], None),
        ('{"puzzle": "g7", "level": "x"}', "g7", None),
        ('{"Question": "g7", "answer": "h8"}', "g7", "h8"),
        ('{"queens": []}', {"queens": []}, None),
        ("[NaN]", "[NaN]", None),
        ('"\\ud800"', '"\\ud800"', None),
        ("null", "null", None),
    ],
)
def test_a_line_is_json_or_text(text: str, puzzle: object, answer: object) -> None:
    assert spelled(text) == (puzzle, answer)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"# mine\n{D}\n", "sudoku-9x9"),
        ("1..2\n....\n....\n2...\n", "sudoku-4x4"),
        ("oops\n" + "." * 64, "nqueens-8"),
        ("g7 a4", "nqueens-8"),
        (f"{D} 7.1\n{S} 8.9\n", "sudoku-9x9"),
        (f"{D},{S}\n{D},{S}\n", "sudoku-9x9"),
        ("1....2....3....4 x\n....1....2....3. y\n", "sudoku-4x4"),
        ("1 2\n2 3\n", "coloring-8"),
        (json.dumps(TASKS["coloring-8"].examples[0]), "coloring-8"),
        (json.dumps(TASKS["coloring-10"].examples[0]), "coloring-10"),
    ],
    ids=["9x9", "4x4", "queens", "squares", "rated", "with answers", "small", "edges", "graph", "larger graph"],
)
def test_the_task_is_found_by_the_puzzles(text: str, name: str, tmp_path: Path) -> None:
    assert PuzzleFile(wrote(tmp_path, text), [*TASKS.values()]).task.name == name


@pytest.mark.parametrize("text", ["hello", ""])
def test_where_no_task_reads_a_file_it_is_asked_for(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--task"):
        PuzzleFile(wrote(tmp_path, text), [*TASKS.values()])


@pytest.mark.parametrize("shape", [(2, 81), (2, 9, 9)])
@pytest.mark.parametrize("added", [0, 1])
def test_arrays_of_tokens_are_read_with_one_added_or_without(shape: tuple[int, ...], added: int, tmp_path: Path) -> None:
    tokens = np.stack([SUDOKU.held_out[0], SUDOKU.solutions(SUDOKU.held_out[0])[0]])
    np.save(tmp_path / "all__inputs.npy", (tokens + added).astype(np.uint8).reshape(shape))
    np.save(tmp_path / "all__labels.npy", (tokens[[1, 1]] + added).astype(np.uint8).reshape(shape))
    puzzles = PuzzleFile(tmp_path / "all__inputs.npy", [*TASKS.values()])
    assert puzzles.task is SUDOKU
    assert np.array_equal([SUDOKU.read(line.puzzle) for line in puzzles], tokens)
    assert np.array_equal([SUDOKU.read(line.answer) for line in puzzles], tokens[[1, 1]])


def test_where_an_array_can_mean_two_things_dataset_json_tells(tmp_path: Path) -> None:
    path = tmp_path / "all__inputs.npy"
    tokens = np.where(SUDOKU.held_out[:3] == 9, 0, SUDOKU.held_out[:3])
    np.save(path, tokens + 1)
    with pytest.raises(DataSetError, match=r"dataset\.json"):
        PuzzleFile(path, [SUDOKU])
    (tmp_path / "dataset.json").write_text(json.dumps({"vocab_size": 11, "seq_len": 81}))
    assert np.array_equal([SUDOKU.read(line.puzzle) for line in PuzzleFile(path, [SUDOKU])], tokens)


def boards(count: int = 3) -> tuple[Tokens, Tokens]:
    puzzles = SUDOKU.held_out[:count]
    return puzzles, np.stack([SUDOKU.solutions(puzzle)[0] for puzzle in puzzles])


@pytest.mark.parametrize("place", [".", "test", "all__inputs.npy", "test/all__inputs.npy"])
def test_a_data_set_is_named_by_its_folder_or_by_its_inputs(place: str, tmp_path: Path) -> None:
    puzzles, answers = boards()
    write_data_set(tmp_path / "mine" / Path(place).parent / ("test" if place == "test" else ""), puzzles, answers, 10)
    file = PuzzleFile(tmp_path / "mine" / (place if "npy" in place else ""), [*TASKS.values()])
    assert file.task is SUDOKU
    assert np.array_equal([SUDOKU.read(line.puzzle) for line in file], puzzles)
    assert np.array_equal([SUDOKU.read(line.answer) for line in file], answers)
    assert len(file) == 3


@pytest.mark.parametrize("name", ["mine.npy", "mine.npz"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_one_puzzle_alone_and_whole_numbers_kept_as_floats_are_read(
    name: str, count: int, dtype: DTypeLike, tmp_path: Path
) -> None:
    array = boards(count)[0].reshape(-1, 9, 9).astype(dtype)
    save = np.save if name.endswith("npy") else np.savez
    save(tmp_path / name, array[0] if count == 1 else array)
    assert np.array_equal([SUDOKU.read(line.puzzle) for line in PuzzleFile(tmp_path / name, [SUDOKU])], boards(count)[0])


@pytest.mark.parametrize(
    "values",
    [[D, S], [SUDOKU.grid(SUDOKU.read(D)), S], [{"puzzle": D, "solution": S}, S], [[int(symbol) for symbol in S], D], [D]],
    ids=["texts", "lists", "objects", "numbers", "one"],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list_of_puzzles_is_a_file_of_them(values: list[object], indent: int | None, tmp_path: Path) -> None:
    puzzles = PuzzleFile(wrote(tmp_path, json.dumps(values, indent=indent)), [*TASKS.values()])
    assert puzzles.task is SUDOKU
    assert [line.number for line in puzzles] == [*range(1, len(values) + 1)]
    expected = [SUDOKU.read(value["puzzle"] if isinstance(value, dict) else value) for value in values]
    assert np.array_equal([SUDOKU.read(line.puzzle) for line in puzzles], expected)
    assert [line.answer for line in puzzles][:1] == [S if isinstance(values[0], dict) else None]


@pytest.mark.parametrize("puzzle", [SUDOKU.grid(SUDOKU.read(D)), ROWS], ids=["numbers", "texts"])
def test_a_json_list_that_is_a_puzzle_is_one(puzzle: object, tmp_path: Path) -> None:
    (line,) = PuzzleFile(wrote(tmp_path, json.dumps(puzzle, indent=2)), [SUDOKU])
    assert np.array_equal(SUDOKU.read(line.puzzle), SUDOKU.read(D))


def test_a_table_may_say_how_hard_its_puzzles_are(tmp_path: Path) -> None:
    table = f"question,answer,rating\n{D},{S},3\n{D},{S},\n{D},{S},hard\n{D},{S},7.5\n"
    assert [line.rating for line in PuzzleFile(wrote(tmp_path, table), [SUDOKU])] == [3, None, None, 7.5]


def test_a_long_table_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    counts = []
    for rows in (1_000, 30_000):
        path = wrote(tmp_path, f"quizzes\n{D}\n" + f"{D}\n" * rows)
        tracemalloc.start()
        counts.append(len(PuzzleFile(path, [SUDOKU])))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 500_000
    assert counts == [1_001, 30_001]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_rows_of_a_data_set_are_read_as_the_task_writes_them(task: Task, tmp_path: Path) -> None:
    puzzles = task.held_out[:5]
    file = PuzzleFile(write_data_set(tmp_path / "mine", puzzles, None, task.vocab_size), [task])
    assert np.array_equal([task.read(line.puzzle) for line in file], puzzles)
