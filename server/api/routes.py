"""The calls."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from models.tasks import TASKS
from server.api.problems import DOCUMENTED, ProblemError, unavailable
from server.api.schemas import (
    GenerateRequest,
    ModelInfo,
    SamplingRequest,
    SolveRequest,
    SolveResponse,
    TaskInfo,
    TrajectoryEvent,
)
from server.api.service import Service
from server.api.solve import Solve
from server.supervisor import EngineUnavailableError

router = APIRouter()

_NDJSON = "application/x-ndjson"
_SSE = "text/event-stream"
_STREAMS: dict[str, Callable[[str, str], str]] = {
    _SSE: lambda name, data: f"event: {name}\ndata: {data}\n\n",
    _NDJSON: lambda name, data: f'{{"event":"{name}","data":{data}}}\n',
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {_SSE: {}, _NDJSON: {}},
        "description": "the ranked answers; with `stream`, each trajectory before them",
    },
    **DOCUMENTED,
}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.post("/v1/solve", summary="Solve a puzzle", response_model=SolveResponse, responses=_RESPONSES)
async def solve(body: SolveRequest, request: Request) -> Response:
    """Sample K trajectories for a puzzle; check, vote and rank their answers.

    With `stream` the answer is a stream of events: `trajectory` for each that gives an answer, then one `result` (or `error`).
    """
    return await _answer(body, request)


@router.post("/v1/generate", summary="Make new boards", response_model=SolveResponse, responses=_RESPONSES)
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Sample boards from the task's empty input; check, vote and rank them. The answer and the stream are those of a solve."""
    return await _answer(body, request)


async def _answer(body: SamplingRequest, request: Request) -> Response:
    work = Solve.read(_service(request), body)
    if body.stream:
        media_type = _NDJSON if _NDJSON in request.headers.get("accept", "") else _SSE
        return StreamingResponse(_stream(work, _STREAMS[media_type]), media_type=media_type)
    result = await _unless_disconnected(request, work)
    if result is None:
        return Response(status_code=499)  # nobody reads it; it is the status in the log and the metrics
    return Response(result.model_dump_json(), media_type="application/json")


async def _stream(work: Solve, write: Callable[[str, str], str]) -> AsyncIterator[str]:
    """The events as text. When the client leaves, the response closes this and with it the work."""
    try:
        async with aclosing(work.run()) as items:
            async for item in items:
                if isinstance(item, SolveResponse):
                    yield write("result", item.model_dump_json())
                else:
                    yield write("trajectory", TrajectoryEvent.of_outcome(work.model.task, item).model_dump_json())
    except EngineUnavailableError as error:
        yield write("error", unavailable(error).model_dump_json())


async def _unless_disconnected(request: Request, work: Solve) -> SolveResponse | None:
    """The result, or None if the client leaves first: then the work is cancelled."""

    async def result() -> SolveResponse:
        async with aclosing(work.run()) as items:
            async for item in items:
                if isinstance(item, SolveResponse):
                    return item
        raise AssertionError("a solve ends with its result")

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    solving, leaving = asyncio.create_task(result()), asyncio.create_task(disconnected())
    try:
        await asyncio.wait({solving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return solving.result() if solving.done() else None
    except asyncio.CancelledError:
        raise ProblemError(503, "the server is stopping and the time for running requests is over; send it again") from None
    finally:
        solving.cancel()
        leaving.cancel()
        await asyncio.gather(solving, leaving, return_exceptions=True)


@router.get("/v1/models", summary="Loaded checkpoints and their measured quality")
async def models(request: Request) -> list[ModelInfo]:
    """Each model's name, task, abilities, sizes and the figures that `gram eval` measured."""
    return [
        ModelInfo(
            name=model.name,
            task=model.task.name,
            solves=model.config.solves,
            generates=model.config.generates,
            config=model.config.model.model_dump(),
            evaluation=model.evaluation(),
        )
        for model in _service(request).models.values()
    ]


@router.get("/v1/tasks", summary="Kinds of puzzles and how to write them")
async def tasks(request: Request) -> list[TaskInfo]:
    """Each task's accepted spellings, with an example of each."""
    loaded = _service(request).models.values()
    return [
        TaskInfo(
            name=task.name,
            title=task.title,
            formats=task.formats,
            examples=task.examples,
            models=[model.name for model in loaded if model.task is task],
        )
        for task in TASKS.values()
    ]


class Health(BaseModel):
    """A probe's answer."""

    status: str


@router.get("/health/live", summary="Whether the process answers")
async def live() -> Health:
    """Answers as long as the process runs."""
    return Health(status="live")


@router.get("/health/ready", summary="Whether an engine can answer", responses={503: DOCUMENTED[503]})
async def ready(request: Request) -> Health:
    """Answers 503 while the engine starts, or when none can be started."""
    if not _service(request).engine.ready:
        raise ProblemError(503, "the engine is starting; try again in a few seconds")
    return Health(status="ready")


@router.get("/metrics", summary="For Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """The Prometheus exposition."""
    return Response(generate_latest(_service(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
