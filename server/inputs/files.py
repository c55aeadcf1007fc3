"""Files of puzzles, which are read a puzzle at a time: text, CSV, NDJSON or NumPy arrays."""

import csv
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic_core import from_json, to_json

from gram.models.data_sets import UNSCORED, DataSet, DataSetError
from gram.models.tasks import Task, readings
from gram.server.inputs.arrays import is_array, open_arrays
from gram.server.inputs.errors import InputError
from gram.server.inputs.opening import check_archive, text_lines, unpack
from gram.server.sampling.options import Options

PUZZLES = ("puzzle", "puzzles", "question", "quiz", "quizzes", "clues", "input", "inputs")
ANSWERS = ("answer", "answers", "solution", "solutions", "label", "labels", "output")
RATINGS = ("rating", "ratings", "difficulty")
"""Names that data sets give to puzzles, to their answers and to how hard they are."""
_MOST_LIST = 1 << 26
"""The most bytes of a JSON list of puzzles."""
_HEAD_LINES, _SAMPLES = 200, 10
"""The first lines, in which columns are found, and the first puzzles, one of which must be of the task."""
_BLANKS = {*".0_-*"}
_LEAST_CELL = 16
"""The length from which on a cell of a table is taken for a puzzle though its column has no such name; before others, one
with a blank, since full boards are answers."""


@dataclass(frozen=True)
class Line:
    """A puzzle of a file: the number of its line (of an array, its row), from 1, and what stands there."""

    number: int
    text: str
    beside: object = None
    """The answer that the file has beside this text: tokens [N], if it has arrays."""
    rating: float | None = None
    """How hard the file says it is."""

    @property
    def puzzle(self) -> object:
        return self._spelled[0]

    @property
    def answer(self) -> object:
        """The answer that the file has, beside the text or in it."""
        return self._spelled[1] if self.beside is None else self.beside

    @cached_property
    def _spelled(self) -> tuple[object, object]:
        return spelled(self.text)

    def seed(self, options: Options) -> int:
        """The seed of this line: the given one for line 1 and one more for each further line, or a random one."""
        return options.chosen_seed() + (0 if options.seed is None else self.number - 1)


def spelled(text: str) -> tuple[object, object]:
    """Read a puzzle written in one string: JSON or any other text. A JSON object may have its answer, too."""
    if text.lstrip().startswith(("{", '"')):
        with suppress(ValueError):
            value = from_json(text, allow_inf_nan=False)
            named = {name.lower(): field for name, field in value.items()} if isinstance(value, dict) else {}
            puzzles, answers = ([named[name] for name in names if name in named] for names in (PUZZLES, ANSWERS))
            return (puzzles[0], answers[0] if answers else None) if puzzles else (value, None)
    return text, None


class PuzzleFile:
    """The puzzles of a file, all of one task. Each iteration reads them from the start of the file."""

    def __init__(self, path: Path, tasks: list[Task], max_bytes: float = math.inf, *, quiet: bool = False) -> None:
        """Find out what is in the file, "-" for standard input, or folder, and which of the tasks it is of.

        `max_bytes`: the most that a packed file may unpack to. `quiet`: don't say which columns of a table are read.
        Raises InputError, or DataSetError.
        """
        self._copy = None if path.is_dir() else unpack(path, max_bytes)
        if self._copy:
            path = Path(self._copy.name)
        self._read: Callable[[Task], Iterator[Line]]
        if arrays := is_array(path):
            check_archive(path, max_bytes)
            self._read = lambda task: _rows(open_arrays(path, task), task)
        else:
            head = [*itertools.islice(text_lines(path), _HEAD_LINES)]
            found = _List.of(path, head, tasks) or _Table.of(path, head, tasks, quiet=quiet) or _Text(path)
            self._read = found.lines
        self.task = tasks[0] if len(tasks) == 1 else self._task(tasks)
        self.data = open_arrays(path, self.task) if arrays else None
        """The arrays, if they are that: much quicker to read than lines."""
        self._count = len(self.data) if self.data else sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Line]:
        return self._read(self.task)

    def _task(self, tasks: list[Task]) -> Task:
        """The task that can read most of the first puzzles that it finds; of several, the first."""
        best, most = tasks[0], 0
        for task in tasks:
            with suppress(InputError, DataSetError):
                read = sum(bool(readings(line.puzzle, [task])) for line in itertools.islice(self._read(task), _SAMPLES))
                best, most = (task, read) if read > most else (best, most)
        if not most:
            raise InputError(
                "no task reads the first puzzles of this file; name the task that is meant: --task, or `task` in a request"
            )
        return best


@dataclass
class _Text:
    """A text: one puzzle a line, or whatever else the task finds in it."""

    path: Path

    def lines(self, task: Task) -> Iterator[Line]:
        for number, text in task.split(text_lines(self.path)):
            yield Line(number, text)


@dataclass
class _List:
    """A JSON list of puzzles. It is read as a whole; a longer file has a puzzle a line."""

    values: list[object]

    @classmethod
    def of(cls, path: Path, head: list[str], tasks: list[Task]) -> "_List | None":
        """The list that begins with these lines, if it is one of puzzles and no puzzle by itself."""
        if not "".join(head).lstrip().startswith("[") or path.stat().st_size > _MOST_LIST:
            return None
        try:
            values = from_json("".join(text_lines(path)), allow_inf_nan=False)
        except ValueError:  # it is a list a line, say
            return None
        lines = [*cls(values).lines(tasks[0])]
        if readings(values, tasks) or not any(readings(line.puzzle, tasks) for line in lines[:_SAMPLES]):
            return None
        return cls(values)

    def lines(self, task: Task) -> Iterator[Line]:  # noqa: ARG002
        for number, value in enumerate(self.values, start=1):
            yield Line(number, value if isinstance(value, str) else to_json(value).decode())


@dataclass
class _Table:
    """A CSV file with a column of puzzles and perhaps one of answers, told by their names or by what is in them."""

    path: Path
    delimiter: str
    puzzles: int
    answers: int | None
    ratings: int | None

    @classmethod
    def of(cls, path: Path, head: list[str], tasks: list[Task], *, quiet: bool) -> "_Table | None":
        """The table that begins with these lines, if they are one. Says which columns are read, if there are several."""
        first = head[0] if head else ""
        delimiter = max(",;\t", key=first.count)
        try:
            rows = [*itertools.islice(csv.reader(head, delimiter=delimiter), 2)]
        except csv.Error:  # a field longer than a name is
            return None
        names = [name.strip() for name in rows[0]] if rows else []
        lower = [name.lower() for name in names]
        puzzles = next((lower.index(name) for name in PUZZLES if name in lower), None)
        answers, ratings = (next((lower.index(name) for name in names if name in lower), None) for names in (ANSWERS, RATINGS))
        if puzzles is None and len(rows) == 2 and len(rows[1]) == len(names) > 1:
            boards = [len(cell) >= _LEAST_CELL and bool(readings(cell, tasks)) for cell in rows[1]]
            if any(boards) and not any(readings(name, tasks) for name in names):
                puzzles = max(range(len(boards)), key=lambda i: (boards[i], bool(_BLANKS & {*rows[1][i]})))
        if puzzles is None:
            return None
        if len(names) > 1 and not quiet:
            and_answers = "" if answers is None else f" and the answers {names[answers]!r}"
            print(f"gram: reading the column {names[puzzles]!r}{and_answers} of {', '.join(names)}", file=sys.stderr)
        return cls(path, delimiter, puzzles, answers, ratings)

    def lines(self, task: Task) -> Iterator[Line]:  # noqa: ARG002
        rows = csv.reader(text_lines(self.path), delimiter=self.delimiter)
        try:
            next(rows)
            for row in rows:
                if len(row) > self.puzzles and row[self.puzzles]:
                    answer, rating = (
                        row[column] if column is not None and len(row) > column else ""
                        for column in (self.answers, self.ratings)
                    )
                    yield Line(rows.line_num, row[self.puzzles], answer or None, _number(rating))
        except csv.Error as error:
            raise InputError(f"{self.path}, line {rows.line_num}: {error}; is a quotation mark not closed?") from error


def _number(text: str) -> float | None:
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    return None


def _rows(data: DataSet, task: Task) -> Iterator[Line]:
    """The rows of arrays, as the task writes them. An answer that is not scored as a whole is left out."""
    for number, (puzzle, answer) in enumerate(data.rows(), start=1):
        yield Line(number, task.text(puzzle), None if answer is None or UNSCORED in answer else answer)
