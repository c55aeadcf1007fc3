"""The routes of the jobs: submit, show, list, read results, delete."""

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic_core import from_json

from gram.server import logs
from gram.server.api.problems import ProblemError, documented
from gram.server.api.service import Service, service_of
from gram.server.api.submission import FULL, submission
from gram.server.jobs.errors import StoreError, StoreFullError, TooManyJobsError, TooManyPuzzlesError
from gram.server.jobs.runner import Runner
from gram.server.jobs.schemas import JobInfo, JobResult
from gram.server.jobs.store import Job
from gram.server.sampling.requests import SamplingRequest

PATH = "/v1/jobs"
"""Where files are uploaded."""
v1 = APIRouter(prefix=PATH)

log = logging.getLogger("gram")

_MOST_RESULTS, _PAGE = 10_000, 100
"""The results of an answer, and those that are read from the store at a time."""
_NO_PLACE = {"model", "task", "seed", "puzzle", "timeout_seconds", "stream", "stream_steps"}
"""Fields of a request that are no options of its job."""
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"anyOf": [{"$ref": f"#/components/schemas/{r}"} for r in ("SolveRequest", "GenerateRequest")]}
        },
        "application/x-ndjson": {"schema": {"type": "string"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
Name = Annotated[str, Path(description="the job's id")]


@v1.post(
    "",
    status_code=202,
    summary="Submit a job",
    responses=documented(400, 404, 413, 415, 422, 429, 503, 507),
    openapi_extra={"requestBody": _BODY},
)
async def submit(
    request: Request,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(max_length=256, description="if a job was accepted with the same one, it is answered again")
    ] = None,
) -> JobInfo:
    """Keep a job, which runs when no other request needs the engines, also after a restart of the server.

    As `application/json` the body is that of POST /v1/solve or, without a `puzzle`, of POST /v1/generate. With any other
    content type it is a file of puzzles, such as NDJSON with a puzzle a line, in any format that `gram solve --input` reads;
    its options are then in the query: `?task=sudoku-9x9&num_trajectories=50&seed=1`, each as text or JSON. Line n has the seed
    of the job + n - 1. A wrong puzzle of a file is answered by its error. A job has no deadline and no stream.
    """
    service, jobs = service_of(request), _jobs(request)
    async with submission(request, service) as (asked, puzzles):
        job = await _add(jobs, asked, puzzles, idempotency_key)
    jobs.wake()
    response.headers["location"] = f"{PATH}/{job.id}"
    return _info(service, jobs, job)


@v1.get("", summary="Your jobs", responses=documented(503))
async def listed(request: Request) -> list[JobInfo]:
    """List the jobs of the key, the newest first; on a server without keys, everybody's."""
    service, jobs = service_of(request), _jobs(request)
    with _told():
        found = await jobs.store.call(jobs.store.jobs, _owner())
    return [_info(service, jobs, job) for job in found]


@v1.get("/{name}", summary="How far a job is", responses=documented(404, 503))
async def show(name: Name, request: Request) -> JobInfo:
    """Say how far a job is. If it has one puzzle and runs here, `partial` has the ranking until now."""
    service, jobs = service_of(request), _jobs(request)
    return _info(service, jobs, await _job(jobs, name))


@v1.get(
    "/{name}/results",
    summary="Results of a job",
    response_class=StreamingResponse,
    responses={
        200: {"model": JobResult, "content": {"application/x-ndjson": {}}, "description": "a JobResult a line"},
        **documented(404, 422, 503),
    },
)
async def results(
    name: Name,
    request: Request,
    from_: Annotated[int, Query(alias="from", ge=0, lt=2**63, description="the index of the first result")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_RESULTS, description="how many results at most")] = 1000,
) -> StreamingResponse:
    """The results as NDJSON, in the order of their index, up to the first puzzle that has none yet.

    So the next call begins behind the last line of this one, whether or not the job still runs.
    """
    jobs = _jobs(request)
    await _job(jobs, name)
    with _told():
        first = await jobs.store.call(jobs.store.results, name, from_, min(limit, _PAGE))

    async def lines() -> AsyncGenerator[str]:
        page, sent = first, 0
        while page:
            yield "".join(f"{result.text}\n" for result in page)
            sent += len(page)
            ended = len(page) < _PAGE or sent >= limit
            page = [] if ended else await jobs.store.call(jobs.store.results, name, from_ + sent, min(limit - sent, _PAGE))

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@v1.delete(
    "/{name}", status_code=204, response_class=Response, summary="Cancel and delete a job", responses=documented(404, 503)
)
async def delete(name: Name, request: Request) -> None:
    """Forget a job and its results. What it has in the engines is cancelled before their next step."""
    jobs = _jobs(request)
    job = await _job(jobs, name)
    with _told():
        await jobs.store.call(jobs.store.delete, job.id)
    await jobs.cancel(job.id)


def _jobs(request: Request) -> Runner:
    if (jobs := service_of(request).jobs) is None:
        raise ProblemError(
            503, "this server keeps no jobs, as its log says; start it with --jobs or, on Ray, GRAM_JOBS", cause="job_store"
        )
    return jobs


def _owner() -> str | None:
    """The label of the key; None, for everybody, on a server without keys."""
    return logs.current().key


async def _job(jobs: Runner, name: str) -> Job:
    with _told():
        job = await jobs.store.call(jobs.store.get, name, _owner())
    if job is None:
        raise ProblemError(404, f"there is no job {name[:64]!r}; it may have expired", "name")
    return job


async def _add(jobs: Runner, asked: SamplingRequest, puzzles: Iterator[tuple[int, str]], once: str | None) -> Job:
    assert asked.model is not None
    assert asked.task is not None
    options = asked.model_dump_json(exclude=_NO_PLACE, by_alias=True)
    seed, owner = asked.chosen_seed(), _owner() or ""
    with _told():
        return await jobs.store.call(
            jobs.store.add, owner, asked.ability, asked.model, asked.task, options, seed, puzzles, once
        )


def _info(service: Service, jobs: Runner, job: Job) -> JobInfo:
    done = job.done == job.puzzles
    age = service.settings.job_seconds
    return JobInfo(
        id=job.id,
        state="done" if done else "running" if job.held else "queued",
        waits=None if done or job.held else _waits(service, jobs, job),
        ability=job.ability,
        model=job.model,
        task=job.task,
        seed=job.seed,
        options=from_json(job.options),
        puzzles=job.puzzles,
        done=job.done,
        failed=job.failed,
        created=datetime.fromtimestamp(job.created, UTC),
        expires=datetime.fromtimestamp(job.updated + age, UTC),
        partial=jobs.solver.so_far(job),
    )


def _waits(service: Service, jobs: Runner, job: Job) -> str | None:
    if job.model not in service.models:
        return f"{job.model} is not loaded"
    if job.model not in jobs.solver.models():
        return f"no engine answers for {job.model}"
    if jobs.rests or jobs.totals.bytes >= service.settings.max_jobs_bytes:
        return "the store of the jobs is full, or fails"
    return None


@contextmanager
def _told() -> Iterator[None]:
    """Tell the client what the store says."""
    try:
        yield
    except StoreFullError as error:
        log.error("%s", error)
        raise ProblemError(507, FULL, cause="job_store") from error
    except StoreError as error:
        log.error("%s", error)  # which may name files and hosts, so the client is not told
        detail = "the store of the jobs fails, as the server's log says; try again later"
        raise ProblemError(503, detail, cause="job_store", headers={"retry-after": "5"}) from error
    except TooManyJobsError as error:
        raise ProblemError(429, str(error)) from error
    except TooManyPuzzlesError as error:
        raise ProblemError(413, str(error), "body") from error
