"""`gram solve --input`: many puzzles in, one a line; their answers out, in the same order, as soon as they are ready.

What has been written is always the beginning of the whole output. So a run that was cut off resumes behind its last line.
"""

import asyncio
import codecs
import csv
import gzip
import io
import json
import math
import os
import re
import sys
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from pydantic_core import from_json, to_json
from tqdm import tqdm

from gram.models.tasks import PuzzleError, Task, Tokens
from gram.server.client.errors import GramError
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
_PUZZLE_COLUMNS = {"puzzle", "puzzles", "question", "quiz", "quizzes", "clues", "input"}
_TIMES = {"queue_ms", "compute_ms"}
"""Fields that are left out. Without them, the same puzzles with the same seed give the same bytes."""


class BatchError(Exception):
    """A run can't begin or go on; the message says why, and what to do."""


@dataclass(frozen=True)
class Line:
    """A line of the input, with its number from 1."""

    number: int
    text: str

    @property
    def puzzle(self) -> object:
        return spelled(self.text)

    def seed(self, options: Options) -> int:
        """The seed of this line: the given one for line 1 and one more for each further line, or a random one."""
        return options.chosen_seed() + (0 if options.seed is None else self.number - 1)


def spelled(text: str) -> object:
    """Read a puzzle written in one string: JSON (a string, a list, an object, or {"puzzle": ...}), or any other text."""
    with suppress(ValueError):
        match from_json(text, allow_inf_nan=False):
            case {"puzzle": puzzle, **others} if not others:
                return puzzle
            case str() | list() | dict() as puzzle:
                return puzzle
    return text


def read_lines(path: Path) -> list[Line]:
    """Read the puzzles of a file, or of standard input for "-": one a line, without the empty ones.

    Of a CSV file whose first line names a column of puzzles, that column is read.
    """
    text = _text_of(path)
    head: list[str] = []
    with suppress(csv.Error):  # a field longer than a name is
        head = [name.strip() for name in next(csv.reader([text.partition("\n")[0]]), [])]
    column = next((place for place, name in enumerate(head) if name.lower() in _PUZZLE_COLUMNS), None)
    if column is None:
        return [Line(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(head) > 1:
        print(f"gram: reading the column {head[column]!r} of {', '.join(head)}", file=sys.stderr)
    rows = csv.reader(io.StringIO(text))
    return [Line(rows.line_num, row[column]) for row in rows if rows.line_num > 1 and len(row) > column and row[column]]


def _text_of(path: Path) -> str:
    """The text of a file or of standard input, also if it is compressed with gzip or in UTF-16."""
    try:
        data = sys.stdin.buffer.read() if path == Path("-") else path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise BatchError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        raise BatchError(f"{path} is compressed with zstd; decompress it first: zstd -d")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return data.decode(encoding, errors="replace")


Answer = SolveResponse | str
"""The result of a line: the answer, or what is wrong with the puzzle."""


class Writer(ABC):
    """An output format, with a line for each line of the input."""

    head = ""
    start: str
    """What every file in this format begins with."""

    @abstractmethod
    def row(self, line: Line, answer: Answer) -> str:
        """The output line of an input line."""

    @abstractmethod
    def read(self, row: str) -> tuple[int, bool]:
        """The line number of an output line, and whether it is an error. Raises ValueError, TypeError, KeyError."""


class Ndjson(Writer):
    """A JSON object: "line", then the fields of the response without its times; or "line" and "error"."""

    start = '{"line":'

    def row(self, line: Line, answer: Answer) -> str:
        fields = {"error": answer} if isinstance(answer, str) else answer.model_dump(exclude=_TIMES)
        return to_json({"line": line.number, **fields}).decode() + "\n"

    def read(self, row: str) -> tuple[int, bool]:
        fields = from_json(row)
        return int(fields["line"]), "error" in fields


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
        "error",
    )
    head = start = ",".join(columns) + "\n"

    def row(self, line: Line, answer: Answer) -> str:
        cells: dict[str, object] = {"line": line.number, "puzzle": line.text}
        if isinstance(answer, str):
            cells["error"] = answer
        else:
            for best in answer.candidates[:1]:
                cells |= best.model_dump(include={"valid", "score", "votes", "steps"}) | {"answer": best.text}
            cells |= answer.model_dump(include={"distinct_valid", "solutions", "trajectories", "seed"})
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow({name: _cell(value) for name, value in cells.items()})
        return text.getvalue()

    def read(self, row: str) -> tuple[int, bool]:
        (cells,) = csv.reader([row])
        named = dict(zip(self.columns, cells, strict=True))
        return int(named["line"]), bool(named["error"])


def _cell(value: object) -> str:
    """Put a value on one line, so that each line of the file is a row."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (bool, float)) else re.sub(r"[\r\n]+", " ", str(value))


WRITERS: dict[Format, Writer] = {"ndjson": Ndjson(), "csv": Csv()}


class Output:
    """Takes answers in any order, writes them in the order of their lines, and shows a progress bar."""

    def __init__(self, lines: list[Line], path: Path | None, format: Format | None) -> None:
        """Write to standard output, or append to a file that an earlier run wrote. Raises BatchError if it is another file."""
        format = format or ("ndjson" if path is None else ENDINGS.get(path.suffix))
        if format is None:
            raise BatchError(f"{path}: unknown format; end its name in {', '.join(ENDINGS)}, or use --format")
        self._writer = WRITERS[format]
        try:
            written, end = self._written(path.read_bytes()) if path and path.exists() else ([], 0)
            numbers = [number for number, _ in written]
            if numbers != [line.number for line in lines[: len(numbers)]]:
                raise ValueError("other lines than the input's")
            self._file = path.open("a", encoding="utf-8", newline="") if path else sys.stdout
        except OSError as error:
            raise BatchError(f"{path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise BatchError(f"{path} does not contain answers to this input; name another file with --output") from error
        if path:
            os.truncate(path, end)
        if not end:
            self._file.write(self._writer.head)
        self.failed = sum(failed for _, failed in written)
        self.waiting = deque(lines[len(numbers) :])
        self._ready: dict[int, Answer] = {}
        self._bar = tqdm(total=len(lines), initial=len(numbers), unit="puzzle", disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._bar.close()
        self._file.flush()
        if self._file is not sys.stdout:
            self._file.close()

    def put(self, number: int, answer: Answer) -> None:
        """Take the result of the line with this number."""
        self._ready[number] = answer
        while self.waiting and (ready := self._ready.pop(self.waiting[0].number, None)) is not None:
            self._file.write(self._writer.row(self.waiting.popleft(), ready))
            self._file.flush()
            self.failed += isinstance(ready, str)
            self._bar.update()

    def _written(self, content: bytes) -> tuple[list[tuple[int, bool]], int]:
        """What an earlier run wrote: line numbers, whether each is an error, and where the last whole line ends."""
        start = self._writer.start.encode()
        if not (content.startswith(start) or start.startswith(content)):
            raise ValueError("another start")
        end = content.rfind(b"\n") + 1
        rows = content[:end].decode().removeprefix(self._writer.head).split("\n")[:-1]
        return [self._writer.read(row) for row in rows], end


def solve_here(output: Output, engine: "Engine", task: Task, options: Options) -> None:
    """Solve the waiting lines with an engine in this process."""
    from gram.server.local import solve  # which has torch

    def puzzles() -> Iterator[tuple[int, Tokens, int | None, int]]:
        for line in list(output.waiting):
            try:
                puzzle = task.read(line.puzzle)
                solutions = task.solvable(puzzle)
            except PuzzleError as error:
                output.put(line.number, str(error))
            else:
                yield line.number, puzzle, solutions, line.seed(options)

    for number, answer in solve(engine, task, puzzles(), options):
        assert isinstance(answer, SolveResponse), "nobody watches"
        output.put(number, answer)


async def solve_there(output: Output, url: str, api_key: str | None, task: str, options: Options) -> None:
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
            for line in list(output.waiting):
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
