"""The puzzles of a file as cases to measure on: all of them, or some, spread evenly over the file."""

import itertools
import sys
from collections.abc import Iterator

from gram.models.data_sets import DataSetError, labels_of
from gram.models.tasks import PuzzleError, Tokens
from gram.server.evaluation.case import Case
from gram.server.inputs.files import Line, PuzzleFile


class Cases:
    """The cases of a file. Each iteration reads it again, and finds what can't be measured."""

    def __init__(self, file: PuzzleFile, puzzles: int | None, limit: int | None) -> None:
        """`puzzles`: take this many, spread evenly over the file; `limit`: of those, the first ones.

        Raises DataSetError if nothing can tell which answers are right.
        """
        if file.data and file.data.labels is None and not file.task.checked:
            raise DataSetError(
                f"{labels_of(file.data.file)} is missing, and nothing else checks the answers of {file.task.name}"
            )
        self._file = file
        self._count = len(file) if puzzles is None else min(puzzles, len(file))
        self._limit = self._count if limit is None else min(limit, self._count)
        self._odd: dict[str, tuple[int, str]] = {}
        """What is wrong with cases: how many have it, and the first of them."""

    def __len__(self) -> int:
        return self._limit

    def __iter__(self) -> Iterator[Case]:
        self._odd = {}
        found: Iterator[Line | tuple[Tokens, Tokens | None]] = self._file.data.rows() if self._file.data else iter(self._file)
        passed = 0
        for wanted in (place * len(self._file) // self._count for place in range(self._limit)):
            at = next(itertools.islice(found, wanted - passed, None))
            passed = wanted + 1
            if case := self._case(at) if isinstance(at, Line) else Case(passed, self._file.task, *at, None):
                yield case

    def tell(self, name: str) -> None:
        """Say what the last iteration has left out, and which answers of the file are wrong."""
        for what, (count, first) in self._odd.items():
            print(f"gram: {name}: {count:,} {what}, the first: {first}", file=sys.stderr)

    def _note(self, what: str, case: str) -> None:
        count, first = self._odd.get(what, (0, case))
        self._odd[what] = count + 1, first

    def _case(self, line: Line) -> Case | None:
        """The case of a line; None if it can't be measured."""
        try:
            task, puzzle = self._file.task.pose(line.puzzle)
            answer = None if line.answer is None else task.canonical(task.read(line.answer))
            if answer is None:
                if not task.checked:
                    raise PuzzleError("it has no answer, and nothing else checks those of the model")
                task.solvable(puzzle)
            elif task.checked and not task.check(puzzle, answer):
                self._note("with an answer that does not solve the puzzle", f"line {line.number}")
            return Case(line.number, task, puzzle, answer, line.rating)
        except PuzzleError as error:
            self._note("left out", f"line {line.number}: {error}")
            return None
