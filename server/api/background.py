"""Runs the puzzles of jobs as requests of their own, in the background."""

import json
import logging
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from gram.models.config import describe
from gram.server import logs
from gram.server.api.problems import ProblemError, problem_of
from gram.server.api.request import SamplingRun
from gram.server.api.service import Service
from gram.server.jobs.runner import NotNowError, Runner, Solver
from gram.server.jobs.schemas import Fault, JobResult
from gram.server.jobs.store import Job, Puzzle, Result, Store
from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.requests import GenerateRequest, SamplingRequest, SolveRequest

log = logging.getLogger("gram")

_SHOWN = 20
"""The candidates of a ranking that is not final."""
_MOST_SEED = 2**63


class Background(Solver):
    """What the runner of the jobs works with."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runs: dict[str, SamplingRun] = {}

    def models(self) -> list[str]:
        fleet = self._service.fleet
        return [model for model in self._service.models if model not in fleet.out_of_rotation] if fleet.ready else []

    async def solve(self, job: Job, puzzle: Puzzle) -> Result:
        logs.begin(logs.RequestLog(f"job-{job.id}-{puzzle.number}"))
        try:
            answer, fault = await self._answer(job, puzzle), None
        except Exception as error:
            problem = problem_of(error)
            if isinstance(error, ValidationError):  # the server's limits or rules have changed since
                problem = ProblemError(422, describe(error)).problem
            if problem.cause == "stopping" or job.model not in self.models():
                raise NotNowError(problem.detail) from error
            if problem.cause == "internal":
                log.exception("a puzzle of a job ends with an internal error")
            answer, fault = None, Fault(status=problem.status, detail=problem.detail, cause=problem.cause)
        finally:
            self._runs.pop(job.id, None)
        result = JobResult(index=puzzle.number, line=puzzle.line, answer=answer, error=fault)
        return Result(puzzle.number, result.model_dump_json(), fault is not None)

    def so_far(self, job: Job) -> SolveResponse | None:
        run = self._runs.get(job.id)
        return run.so_far(_SHOWN) if run else None

    async def _answer(self, job: Job, puzzle: Puzzle) -> SolveResponse:
        run = await SamplingRun.read(self._service, request_of(job, puzzle))
        if job.puzzles == 1:
            self._runs[job.id] = run
        with self._service.admission.admit_job(run.request.num_trajectories) as ticket:
            return await run.result(ticket)


def keep_jobs(service: Service, store: Store) -> None:
    """Let a service keep jobs in a store, and show them in its metrics."""
    service.jobs = Runner(store, Background(service), service.metrics.on_job_result)
    service.metrics.watch_jobs(service.jobs)


def request_of(job: Job, puzzle: Puzzle) -> SamplingRequest:
    """The request of a puzzle of a job: that of line n has the job's seed + n - 1. Raises ValidationError."""
    fields: dict[str, Any] = {**json.loads(job.options), "model": job.model, "task": job.task}
    fields["seed"] = (job.seed + puzzle.line - 1) % _MOST_SEED
    if job.ability == "generate":
        return GenerateRequest.model_validate(fields)
    return SolveRequest.model_validate({**fields, "puzzle": from_json(puzzle.puzzle)})
