"""Errors as problem+json (RFC 9457): every one names the place and the mend."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.schemas import FieldProblem, Problem
from server.supervisor import EngineUnavailableError

MEDIA_TYPE = "application/problem+json"
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {MEDIA_TYPE: {}}, "description": HTTPStatus(status).phrase}
    for status in (400, 404, 413, 422, 503)
}
"""The error responses of /v1/solve and /v1/generate, for the OpenAPI document."""


class ProblemError(Exception):
    """An error to answer with; `place` names the field."""

    def __init__(self, status: int, detail: str, place: str | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=f"{place}: {detail}" if place else detail,
            errors=[FieldProblem(place=place, message=detail)] if place else [],
        )


def respond(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The problem as a response."""
    return JSONResponse(problem.model_dump(), problem.status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""

    @app.exception_handler(ProblemError)
    async def own(_: Request, error: ProblemError) -> JSONResponse:
        return respond(error.problem)

    @app.exception_handler(EngineUnavailableError)
    async def no_engine(_: Request, error: EngineUnavailableError) -> JSONResponse:
        return respond(unavailable(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return respond(ProblemError(error.status_code, str(error.detail)).problem, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        if broken := next((e for e in errors if e["type"] == "json_invalid"), None):
            reason = broken.get("ctx", {}).get("error", broken["msg"])
            return respond(ProblemError(400, f"not JSON: {reason}", f"character {broken['loc'][-1]} of the body").problem)
        problems = [FieldProblem(place=_place(e["loc"]), message=_message(e["type"], e["msg"])) for e in errors]
        detail = "; ".join(f"{p.place}: {p.message}" for p in problems)
        return respond(Problem(title=HTTPStatus(422).phrase, status=422, detail=detail, errors=problems))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> JSONResponse:
        return respond(ProblemError(500, "an error of the server's own; its log says more").problem)


def unavailable(error: EngineUnavailableError) -> Problem:
    """The problem of a service without an engine."""
    return ProblemError(503, f"no engine can answer: {error}").problem


def _place(location: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in location if part != "body") or "body"


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "not an option of this request; leave it out or correct its name"
    return message.removeprefix("Value error, ")


class BodyLimit:
    """Refuses bodies over a limit, by their announced length or as they come in."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise HTTPException(413, f"the body has more than {self.max_bytes} bytes; send a smaller one")
            return message

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_bytes:
            problem = ProblemError(413, f"has {int(length)} bytes; send {self.max_bytes} at most", "body").problem
            await respond(problem)(scope, receive, send)
            return
        await self.app(scope, limited, send)
