"""What a client submits as a job: the body of a request, or an uploaded file of puzzles."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect

from gram.models.data_sets import DataSetError
from gram.models.tasks import Task
from gram.server.api.problems import ProblemError
from gram.server.api.request import SamplingRun, check_limits, choose_model
from gram.server.api.service import Service
from gram.server.inputs.errors import InputError
from gram.server.inputs.files import PuzzleFile
from gram.server.sampling.requests import GenerateRequest, SamplingRequest, SolveRequest

log = logging.getLogger("gram")

FULL = "the store of the jobs is full, so this one was not accepted; delete jobs that are done, or try again later"
_UPLOADS = asyncio.Semaphore(4)
"""Files that arrive and are read at a time, each on the disk. Others wait."""


@asynccontextmanager
async def submission(request: Request, service: Service) -> AsyncIterator[tuple[SamplingRequest, Iterator[tuple[int, str]]]]:
    """The request of each puzzle, with its model and task, and the puzzles: the number of each one's line, and JSON.

    They are read as they are asked for. Raises ProblemError or RequestValidationError.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        asked = await _read_json(request, service)
        yield asked, iter([(1, to_json(getattr(asked, "puzzle", None)).decode())])
        return
    async with _UPLOADS, _folder() as folder:
        await _save(request, folder / "upload")
        asked, file = await _read_file(request, service, folder / "upload")
        yield asked, _lines(file, folder / "upload")


async def _read_json(request: Request, service: Service) -> SamplingRequest:
    """The request of a job of one puzzle, which is checked as a whole. Raises ProblemError."""
    body, most = b"", service.settings.max_body_bytes
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > most:
            raise ProblemError(413, f"the JSON has more than {most} bytes; send many puzzles as NDJSON")
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ProblemError(400, f"not JSON: {error}", "body") from error
    asked = _request(fields)
    run = await SamplingRun.read(service, asked)
    return asked.model_copy(update={"model": run.model.name, "task": run.model.task.name})


async def _chunks(request: Request) -> AsyncGenerator[bytes]:
    """The body as it arrives. Raises ProblemError if its client leaves."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise ProblemError(400, "the connection was closed before the body was whole; send all of it", "body") from error


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    """A folder for an upload. Raises ProblemError if the disk has no room for it."""
    try:
        with tempfile.TemporaryDirectory(prefix="gram-job-") as folder:
            yield Path(folder)
    except OSError as error:
        log.error("no room for an upload: %s", error)
        raise ProblemError(507, FULL, cause="job_store") from error


async def _save(request: Request, path: Path) -> None:
    """Write an uploaded file as it arrives."""
    with path.open("wb") as file:
        async for chunk in _chunks(request):
            await asyncio.to_thread(file.write, chunk)


async def _read_file(request: Request, service: Service, path: Path) -> tuple[SamplingRequest, PuzzleFile]:
    """The request of the puzzles of a file, which has options alone, and the file. Raises ProblemError."""
    options = {name: _value(text) for name, text in request.query_params.items()}
    if "puzzle" in options:
        raise ProblemError(422, "the puzzles are in the body; leave it out, or send it as application/json", "puzzle")
    asked = _request({**options, "puzzle": None})
    check_limits(service, asked)
    able = [model.task for model in service.models.values() if model.config.can("solve")]
    if asked.model is not None:
        tasks = [service.model(asked.model).task]
    else:
        tasks = [task for task in dict.fromkeys(able) if asked.task in (None, task.name)]
    if not tasks:
        choose_model(service, asked)  # which says what there is
    file = await asyncio.to_thread(_open, path, tasks, service.settings.max_upload_bytes)
    named = asked.model_copy(update={"task": asked.task or file.task.name})
    model = choose_model(service, named)
    if refusal := asked.refusal(model.task):
        raise ProblemError(422, refusal, "stop")
    return named.model_copy(update={"model": model.name}), file


def _lines(file: PuzzleFile, path: Path) -> Iterator[tuple[int, str]]:
    with _readable(path):
        for line in file:
            yield line.number, to_json(line.puzzle).decode()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Tell the client what is wrong with its file, which it does not know by the path."""
    try:
        yield
    except (InputError, DataSetError, MemoryError) as error:
        raise ProblemError(422, f"the file can't be read: {str(error).replace(str(path), 'it')}", "body") from error


def _open(path: Path, tasks: list[Task], max_bytes: int) -> PuzzleFile:
    with _readable(path):
        file = PuzzleFile(path, tasks, max_bytes, quiet=True)
    if not len(file):
        raise ProblemError(422, "the file has no puzzle", "body")
    return file


def _value(text: str) -> JsonValue:
    """The value of an option in the query."""
    try:
        value: JsonValue = from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return value


def _request(fields: JsonValue) -> SamplingRequest:
    """What is asked of each puzzle. Raises RequestValidationError or ProblemError."""
    kind = SolveRequest if isinstance(fields, dict) and "puzzle" in fields else GenerateRequest
    try:
        asked: SamplingRequest = kind.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from error
    for name in ("timeout_seconds", "stream", "stream_steps"):
        if getattr(asked, name):
            raise ProblemError(422, "a job has no deadline and no stream; leave it out", name)
    return asked
