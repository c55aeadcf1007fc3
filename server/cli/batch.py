"""`gram solve --input`: many puzzles in; their answers out, one a line, in the same order, as soon as they are ready.

What has been written is always the beginning of the whole output. So a run that was cut off resumes behind its last line.
"""

import asyncio
import csv
import io
import json
import math
import os
import re
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic_core import from_json, to_json
from tqdm import tqdm

from gram.models.tasks import PuzzleError, Task, pose
from gram.server.cli.errors import CommandError
from gram.server.client.errors import GramError
from gram.server.inputs.files import Line, PuzzleFile
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.options import Options

if TYPE_CHECKING:
    from gram.server.engine.engine import Engine

Format = Literal["ndjson", "csv"]
ENDINGS: dict[str, Format] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}

_MAX_IN_FLIGHT, _TRAJECTORIES = 64, 512
"""Limits on what is asked of a server at a time: puzzles, and trajectories, which fill a GPU's slots twice."""
_MAX_RETRIES = 20
"""Retries for each puzzle: about two minutes, in which the server may restart or be busy."""
_OF_THE_PUZZLE = {"too_large", "deadline", "out_of_memory"}
"""Causes of errors that concern one puzzle, and not the next."""
_TIMES = {"queue_ms", "compute_ms"}
"""Fields that are left out. Without them, the same puzzles with the same seed give the same bytes."""


Answer = SolveResponse | str
"""The result of a line: the answer, or what is wrong with the puzzle."""


class Writer(ABC):
    """An output format, with a line for each line of the input."""

    head = ""
    start: str
    """What every file in this format begins with."""

    @abstractmethod
    def row(self, line: Line, answer: Answer, right: bool | None) -> str:
        """The output line of an input line."""

    @abstractmethod
    def read(self, row: str) -> tuple[int, bool, bool | None]:
        """The line number of an output line, whether it is an error, and `right`. Raises ValueError, TypeError, KeyError."""


class Ndjson(Writer):
    """A JSON object: "line", then the fields of the response without its times; or "line" and "error".

    "right" says whether the first candidate is the answer that the input has.
    """

    start = '{"line":'

    def row(self, line: Line, answer: Answer, right: bool | None) -> str:
        fields = {"error": answer} if isinstance(answer, str) else answer.model_dump(exclude=_TIMES)
        compared = {} if right is None else {"right": right}
        return to_json({"line": line.number, **fields, **compared}).decode() + "\n"

    def read(self, row: str) -> tuple[int, bool, bool | None]:
        fields = from_json(row)
        return int(fields["line"]), "error" in fields, fields.get("right")


class Csv(Writer):
    """The best answer, or the error. The rows of a board stand in one cell, separated by spaces."""

    columns = (
        "line",
        "puzzle",
        "answer",
        "valid",
        "score",
        "votes",
        "steps",
        "distinct_valid",
        "solutions",
        "trajectories",
        "seed",
        "right",
        "error",
    )
    head = start = ",".join(columns) + "\n"

    def row(self, line: Line, answer: Answer, right: bool | None) -> str:
        cells: dict[str, object] = {"line": line.number, "puzzle": line.text}
        if isinstance(answer, str):
            cells["error"] = answer
        else:
            for best in answer.candidates[:1]:
                cells |= best.model_dump(include={"valid", "score", "votes", "steps"}) | {"answer": best.text}
            cells |= answer.model_dump(include={"distinct_valid", "solutions", "trajectories", "seed"}) | {"right": right}
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow({name: _cell(value) for name, value in cells.items()})
        return text.getvalue()

    def read(self, row: str) -> tuple[int, bool, bool | None]:
        (cells,) = csv.reader([row])
        named = dict(zip(self.columns, cells, strict=True))
        return int(named["line"]), bool(named["error"]), {"true": True, "false": False}.get(named["right"])


def _cell(value: object) -> str:
    """Put a value on one line, so that each line of the file is a row."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (bool, float)) else re.sub(r"[\r\n]+", " ", str(value))


WRITERS: dict[Format, Writer] = {"ndjson": Ndjson(), "csv": Csv()}


class Output:
    """Takes answers in any order, writes them in the order of their lines, and shows a progress bar."""

    def __init__(self, lines: PuzzleFile | list[Line], task: Task, path: Path | None, format: Format | None) -> None:
        """Write to standard output, or append to a file of an earlier run. Raises CommandError if it is another file."""
        format = format or ("ndjson" if path is None else ENDINGS.get(path.suffix))
        if format is None:
            raise CommandError(f"{path}: unknown format; end its name in {', '.join(ENDINGS)}, or use --format")
        self._writer = WRITERS[format]
        self._lines, self._task = iter(lines), task
        self.failed = self.right = self.compared = 0
        self._waiting: deque[Line] = deque()
        self._ready: dict[int, Answer] = {}
        try:
            done, end = self._resume(path) if path and path.exists() else (0, 0)
            self._file = path.open("a", encoding="utf-8", newline="") if path else sys.stdout
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(f"{path} does not contain answers to this input; name another file with --output") from error
        if path:
            os.truncate(path, end)
        if not end:
            self._file.write(self._writer.head)
        self.complete = done == len(lines)
        """Whether nothing is left to do."""
        self._bar = tqdm(total=len(lines), initial=done, unit="puzzle", disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._bar.close()
        self._file.flush()
        if self._file is not sys.stdout:
            self._file.close()

    def lines(self) -> Iterator[Line]:
        """The lines without an answer. What is taken must be `put`."""
        for line in self._lines:
            self._waiting.append(line)
            yield line

    def put(self, number: int, answer: Answer) -> None:
        """Take the result of the line with this number."""
        self._ready[number] = answer
        while self._waiting and (ready := self._ready.pop(self._waiting[0].number, None)) is not None:
            line = self._waiting.popleft()
            right = None if isinstance(ready, str) else _right(self._task, line, ready)
            self._file.write(self._writer.row(line, ready, right))
            self._file.flush()
            self._count(isinstance(ready, str), right)
            self._bar.update()

    def _count(self, failed: bool, right: bool | None) -> None:
        self.failed += failed
        self.compared += right is not None
        self.right += bool(right)

    def _resume(self, path: Path) -> tuple[int, int]:
        """Pass over the lines that an earlier run answered; their number, and where the last whole one ends."""
        start, done, end = self._writer.start.encode(), 0, 0
        with path.open("rb") as file:
            begins = file.read(len(start))
            if begins != start[: len(begins)]:
                raise ValueError("another start")
            file.seek(0)
            for row in file:
                if not row.endswith(b"\n"):
                    break
                end += len(row)
                if end == len(row) and self._writer.head:
                    continue
                number, failed, right = self._writer.read(row.decode())
                if next(self._lines).number != number:
                    raise ValueError("other lines than the input's")
                self._count(failed, right)
                done += 1
        return done, end


def _right(task: Task, line: Line, response: SolveResponse) -> bool | None:
    """Whether the first candidate is the answer that the input has; None if it has none that can be read."""
    if line.answer is None:
        return None
    try:
        tokens = line.answer if isinstance(line.answer, np.ndarray) else task.read(line.answer)
    except PuzzleError:
        return None
    expected = task.grid(task.canonical(tokens))
    return bool(response.candidates) and response.candidates[0].grid == expected


def solve_here(output: Output, engine: "Engine", task: Task, options: Options) -> None:
    """Solve the waiting lines with an engine in this process."""
    from gram.server.local import Question, solve  # which has torch

    def questions() -> Iterator[Question]:
        for line in output.lines():
            try:
                view, puzzle = pose(line.puzzle, task)
                solutions = view.solvable(puzzle)
            except PuzzleError as error:
                output.put(line.number, str(error))
            else:
                yield Question(line.number, view, puzzle, solutions, line.seed(options))

    for number, answer in solve(engine, questions(), options):
        assert isinstance(answer, SolveResponse), "nobody watches"
        output.put(number, answer)


async def solve_there(output: Output, url: str, api_key: str | None, task: str | None, options: Options) -> None:
    """Solve the waiting lines on a server. Raises GramError if the server does not answer."""
    from gram.server.client.async_client import AsyncClient  # which has httpx

    body = options.model_dump(include=set(Options.model_fields))
    async with AsyncClient(url, api_key=api_key, timeout=None) as client:
        await client.models()  # with few retries, so that a wrong address is noticed soon
    free = asyncio.Semaphore(min(_MAX_IN_FLIGHT, 1 + math.ceil(_TRAJECTORIES / options.num_trajectories)))

    async def solve(line: Line) -> None:
        try:
            answer: Answer = await client.solve(line.puzzle, task=task, **body | {"seed": line.seed(options)})
        except GramError as error:
            answer = _of_the_puzzle(error)
        output.put(line.number, answer)
        free.release()

    try:
        async with (
            AsyncClient(url, api_key=api_key, timeout=None, max_retries=_MAX_RETRIES) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for line in output.lines():
                await free.acquire()
                tasks.create_task(solve(line))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _of_the_puzzle(error: GramError) -> str:
    """What is wrong with the puzzle. Raises the error again if it would hit any puzzle."""
    if problem := error.problem:
        if wrong := [each.message for each in problem.errors if each.place.split(".")[0] == "puzzle"]:
            return "; ".join(wrong)
        if problem.cause in _OF_THE_PUZZLE:
            return problem.detail
    raise error
