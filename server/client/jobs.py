"""The calls about jobs, as both clients make them."""

import secrets
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from gram.server.client.calls import Call, as_lists
from gram.server.jobs.schemas import JobInfo, JobResult

PAGE = 1000
"""The results that are asked for at a time."""
_JOB, _JOBS = TypeAdapter(JobInfo), TypeAdapter(list[JobInfo])
_RESULTS, _NOTHING = TypeAdapter(list[JobResult]), TypeAdapter(None)

LIST = Call(_JOBS, "/v1/jobs")


def submit(puzzles: Any, options: dict[str, Any]) -> Call[JobInfo]:
    """The call that submits a file (its bytes), or puzzles. It may be sent again: the server knows it by its key."""
    content = puzzles if isinstance(puzzles, bytes) else b"".join(to_json(p, fallback=as_lists) + b"\n" for p in puzzles)
    query = {name: v if isinstance(v, str) else to_json(v).decode() for name, v in options.items() if v is not None}
    return Call(_JOB, "/v1/jobs", content=content, content_type="application/x-ndjson", query=query, once=secrets.token_hex(16))


def submit_generate(options: dict[str, Any]) -> Call[JobInfo]:
    """The call that submits a job of new boards."""
    return Call(_JOB, "/v1/jobs", body=options, once=secrets.token_hex(16))


def show(job: str) -> Call[JobInfo]:
    """The call that says how far a job is."""
    return Call(_JOB, f"/v1/jobs/{job}")


def results(job: str, start: int) -> Call[list[JobResult]]:
    """The call that reads a page of results."""
    return Call(_RESULTS, f"/v1/jobs/{job}/results", query={"from": str(start), "limit": str(PAGE)}, lines=True)


def delete(job: str) -> Call[None]:
    """The call that cancels and deletes a job."""
    return Call(_NOTHING, f"/v1/jobs/{job}", method="DELETE")
