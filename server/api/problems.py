"""HTTP errors are made here, as problem+json (RFC 9457). Each one says where the fault is and what to do."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Self

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.types import Scope

from gram.models.config import place
from gram.server import logs
from gram.server.api.schemas import FieldProblem, Problem
from gram.server.causes import Cause, cause_of
from gram.server.supervision.errors import EngineUnavailableError, SlowClientError

MEDIA_TYPE = "application/problem+json"
INFERENCE_PROTOCOL = "/v2"
"""Under this path errors are those of the Open Inference Protocol: {"error": detail}."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses with these statuses, for the OpenAPI document."""
    return {
        status: {"model": Problem, "content": {MEDIA_TYPE: {}}, "description": HTTPStatus(status).phrase} for status in statuses
    }


class ProblemError(Exception):
    """An error to answer with. `place` names the field that is wrong, if there is one."""

    def __init__(
        self,
        status: int,
        detail: str,
        place: str | None = None,
        cause: Cause | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = headers
        self.problem = Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=f"{place}: {detail}" if place else detail,
            errors=[FieldProblem(place=place, message=detail)] if place else [],
            cause=cause or cause_of(status),
        )

    @classmethod
    def at(cls, faults: list[FieldProblem], status: int = 422) -> Self:
        """The error of a request with these faults."""
        error = cls(status, "; ".join(f"{fault.place}: {fault.message}" for fault in faults))
        error.problem.errors = faults
        return error


def stopping() -> ProblemError:
    """What the requests are told that a server which stops has not finished in time."""
    return ProblemError(503, "the server is stopping, and the grace period is over; send the request again", cause="stopping")


def told(problem: Problem) -> Problem:
    """Return the problem as the running request tells it, after noting it in that request's log line."""
    request = logs.current()
    request.error = problem.cause
    return problem.model_copy(update={"request_id": request.request_id})  # it may be one that was made for many requests


def respond(scope: Scope, problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """Make the response of a problem, in the form of what was asked: the Open Inference Protocol has one of its own."""
    problem = told(problem)
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path == INFERENCE_PROTOCOL or path.startswith(f"{INFERENCE_PROTOCOL}/"):
        return JSONResponse({"error": problem.detail}, problem.status, headers=headers)
    return JSONResponse(problem.model_dump(), problem.status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""

    @app.exception_handler(ProblemError)
    async def own(request: Request, error: ProblemError) -> JSONResponse:
        return respond(request.scope, error.problem, error.headers)

    @app.exception_handler(EngineUnavailableError)
    async def no_engine(request: Request, error: EngineUnavailableError) -> JSONResponse:
        return respond(request.scope, problem_of(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        path = getattr(request.scope.get("route"), "path", None)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (operations := app.openapi()["paths"].get(path)):
            headers["Allow"] = ", ".join(map(str.upper, operations))  # Starlette names only those of the first route
        return respond(request.scope, ProblemError(error.status_code, str(error.detail)).problem, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        if isinstance(error.body, bytes):  # FastAPI reads as JSON what is declared to be
            sent = request.headers.get("content-type", "none")
            detail = f"send the body with the header 'content-type: application/json'; this one had: {sent[:100]}"
            return respond(request.scope, ProblemError(415, detail).problem)
        if broken := next((e for e in errors if e["type"] == "json_invalid"), None):
            reason = broken.get("ctx", {}).get("error", broken["msg"])
            return respond(
                request.scope, ProblemError(400, f"not JSON: {reason}", f"character {broken['loc'][-1]} of the body").problem
            )
        return respond(request.scope, ProblemError.at(faults(errors)).problem)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return respond(request.scope, problem_of(error))


def problem_of(error: Exception) -> Problem:
    """The problem that tells the client of an error. An unforeseen one tells no more than where to look."""
    match error:
        case ProblemError():
            return error.problem
        case EngineUnavailableError():
            return ProblemError(503, str(error), cause=error.cause).problem
        case SlowClientError():
            return ProblemError(
                408,
                "too many trajectories of this stream are unread; read faster, or drop `stream`",
                cause="slow_client",
            ).problem
        case _:
            return ProblemError(500, "internal error; search the server's log for this request_id").problem


def faults(errors: Iterable[ErrorDetails], *outer: str) -> list[FieldProblem]:
    """What pydantic found wrong, each with its place. `outer`: where in the body that is which was validated."""
    return [FieldProblem(place=_place((*outer, *e["loc"])), message=_message(e["type"], e["msg"])) for e in errors]


def _place(location: tuple[str | int, ...]) -> str:
    return place(part for part in location if part != "body") or "body"


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "not an option of this request; remove it or correct its name"
    return message.removeprefix("Value error, ")
