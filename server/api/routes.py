"""The routes of the API, and the probes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.types import Message, Receive, Scope, Send

from gram.models.tasks import TASKS
from gram.server import logs
from gram.server.api import accept
from gram.server.api.admission import Ticket
from gram.server.api.leaving import unless_disconnected
from gram.server.api.problems import ProblemError, documented, problem_of, told
from gram.server.api.request import SamplingRun
from gram.server.api.schemas import DrawnPuzzle, ModelInfo, TaskInfo
from gram.server.api.service import service_of
from gram.server.sampling.answers import EVENTS, Board, SolveResponse
from gram.server.sampling.options import chosen
from gram.server.sampling.requests import DEFAULT_TASK, GenerateRequest, SamplingRequest, SolveRequest

v1 = APIRouter(prefix="/v1")
"""The routes that need a key on a server with API keys."""
probes = APIRouter()
"""The routes that are open to all: for the orchestrator and for Prometheus."""

log = logging.getLogger("gram")

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_SSE = "text/event-stream"
_LAST = "end"
"""The id of an SSE stream's last event. Clients that connect again after it say so by Last-Event-ID, and there is no more."""


def _sse(name: str, data: str) -> str:
    last = f"id: {_LAST}\n" if name in ("result", "error") else ""
    return f"event: {name}\n{last}data: {data}\n\n"


def _ndjson(name: str, data: str) -> str:
    return f'{{"event":"{name}","data":{data}}}\n'


_STREAMS: dict[str, Callable[[str, str], str]] = {_SSE: _sse, _NDJSON: _ndjson}
_COMMENT, _QUIET_SECONDS = b": waiting\n\n", 2.5
"""What an SSE stream sends so that no proxy takes it for dead, if it has sent nothing between two looks at this interval."""
_EVENT_NAMES = {kind: name for name, kind in EVENTS.items()}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {_SSE: {}, _NDJSON: {}},
        "description": "the ranked answers; with `stream`, events before them",
    },
    **documented(400, 404, 406, 413, 415, 422, 429, 503, 504),
}


@v1.post("/solve", summary="Solve a puzzle", response_model=SolveResponse, responses=_RESPONSES)
async def solve(body: SolveRequest, request: Request) -> Response:
    """Sample K trajectories for a puzzle, check their answers, count equal ones together and rank them.

    With `stream` the answer is a stream of events: `trajectory` for each trajectory that gives an answer, and at the end
    `result` or `error`. With `stream_steps` it begins with `start`, and has `step` and `pruned` events, too.
    """
    return await _answer(body, request)


@v1.post("/generate", summary="Make new boards", response_model=SolveResponse, responses=_RESPONSES)
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Sample boards from the task's empty input, and check and rank them. Answer and stream are as in POST /v1/solve."""
    return await _answer(body, request)


async def _answer(body: SamplingRequest, request: Request) -> Response:
    offered = [*_STREAMS] if body.stream else [_JSON]
    media_type = accept.choose(",".join(request.headers.getlist("accept")), offered)
    if media_type is None:
        raise ProblemError(406, f"the accept header refuses all that can be sent; allow one of: {', '.join(offered)}")
    if media_type == _SSE and request.headers.get("last-event-id") == _LAST:
        return Response(status_code=204)  # an SSE client that has had it all connects again: this makes it stop
    service = service_of(request)
    run = await SamplingRun.read(service, body)
    key = service.answers.key(run.model.name, body)
    if kept := service.answers.get(key):
        service.metrics.cached.labels(run.model.name).inc()
        return Response(kept.body, media_type=media_type, headers={"age": str(kept.age)})
    ticket = run.admit()
    if body.stream:
        return _Stream(ticket, _events(run, ticket, _STREAMS[media_type]), media_type)
    with ticket:
        result = await unless_disconnected(request, run.result(ticket))
    if result is None:
        return Response(status_code=499)  # nobody reads it; the log and the metrics show this status
    answer = result.model_dump_json().encode()
    service.answers.put(key, result, answer)
    return Response(answer, media_type=media_type)


class _Stream(StreamingResponse):
    """A stream that holds its ticket to its end. As SSE it is never silent for long."""

    def __init__(self, ticket: Ticket, events: AsyncGenerator[str], media_type: str) -> None:
        super().__init__(events, media_type=media_type, headers={"x-accel-buffering": "no"})  # nginx would hold events back
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.ticket:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        async def noted(message: Message) -> None:
            self.quiet = False
            await send(message)

        commenting = asyncio.create_task(self._comment(send))
        try:
            await super().stream_response(noted)
        finally:
            commenting.cancel()

    async def _comment(self, send: Send) -> None:
        while self.media_type == _SSE:  # NDJSON has no comments
            self.quiet = True
            await asyncio.sleep(_QUIET_SECONDS)
            if self.quiet:
                await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})


async def _events(run: SamplingRun, ticket: Ticket, write: Callable[[str, str], str]) -> AsyncGenerator[str]:
    """The run's events as text. When the client leaves, the response closes this generator, and with it the run."""
    try:
        async with aclosing(run.events(ticket)) as events:
            async for event in events:
                yield write(_EVENT_NAMES[type(event)], event.model_dump_json())
    except Exception as error:
        problem = problem_of(error)
        if problem.cause == "internal":
            log.exception("a stream ends with an internal error")
        yield write("error", told(problem).model_dump_json())


@v1.delete(
    "/requests/{request_id}",
    status_code=204,
    response_class=Response,
    summary="Cancel a request",
    responses=documented(404),
)
async def cancel(
    request_id: Annotated[str, Path(description="its X-Request-ID, as the client sent it")], request: Request
) -> None:
    """End an open solve or generate request that was sent with the same key, and free its slots. Its client is told by 409."""
    service, key = service_of(request), logs.current().key
    everywhere = service.cancel_everywhere
    if not (await everywhere(request_id, key) if everywhere else service.cancel(request_id, key)):
        raise ProblemError(404, "no open request of yours has this id; it may have ended", "request_id")


@v1.get("/models", summary="Loaded checkpoints and their measured quality")
async def models(request: Request) -> list[ModelInfo]:
    """List the loaded models: name, task, sizes, and the figures that `gram eval` measured."""
    service = service_of(request)
    return [service.info(model) for model in service.models.values()]


@v1.get("/tasks", summary="Kinds of puzzles, and how to write them")
async def tasks(request: Request) -> list[TaskInfo]:
    """List the registered tasks and those of the loaded models, with the accepted spellings of a puzzle and an example each."""
    loaded = service_of(request).models.values()
    return [
        TaskInfo(
            name=task.name,
            title=task.title,
            formats=task.formats,
            examples=task.examples,
            checked=task.checked,
            models=[model.name for model in loaded if model.task == task],
        )
        for task in dict.fromkeys([*TASKS.values(), *(model.task for model in loaded)])
    ]


@v1.get(
    "/tasks/{name}/puzzle",
    summary="A puzzle to try",
    responses=documented(404, 422),
)
def puzzle(
    name: Annotated[str, Path(description="a name from GET /v1/tasks", examples=[DEFAULT_TASK.name])],
    seed: Annotated[
        int | None,
        Query(ge=0, lt=2**63, description="the same seed gives the same puzzle; chosen at random and returned if absent"),
    ] = None,
) -> DrawnPuzzle:
    """Draw one of the held-out puzzles that the models are measured on, from a random one of their sets."""
    # Not a coroutine, so that it runs in a thread: reading the held-out sets for the first time takes up to a second.
    if name not in TASKS:
        detail = f"there are no held-out puzzles of {name!r}; tasks that have them: {', '.join(TASKS)}"
        raise ProblemError(404, detail, "name")
    task, seed = TASKS[name], chosen(seed)
    return DrawnPuzzle(task=name, seed=seed, puzzle=Board.of(task, task.held_out_puzzle(np.random.default_rng(seed))))


class Health(BaseModel):
    """The answer of a probe."""

    status: str = Field(description="live or ready, as the probe is called")


@probes.get("/health/live", summary="Whether the process is alive")
async def live() -> Health:
    """Answer as long as the process runs."""
    return Health(status="live")


@probes.get("/health/ready", summary="Whether an engine can answer", responses=documented(503))
async def ready(request: Request) -> Health:
    """Answer 503 while the engines start, or if none can be started."""
    service_of(request).check_ready()
    return Health(status="ready")


@probes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format."""
    return Response(generate_latest(service_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
