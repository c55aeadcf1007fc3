"""The application, and the service that runs it beside its engine."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gram import __version__
from gram.server.api import admin, headers, problems, routes
from gram.server.api.access import authenticate, require_admin
from gram.server.api.admission import Admission
from gram.server.api.connection import MAX_HEAD_BYTES, Protocol
from gram.server.api.keys import Keys
from gram.server.api.observe import QUIET, REQUEST_ID, Observe
from gram.server.api.page import page
from gram.server.api.problems import ProblemError
from gram.server.api.service import Service
from gram.server.catalog import read_models
from gram.server.engine.messages import Ready, StepReport
from gram.server.metrics import Metrics
from gram.server.sampling.requests import GenerateRequest, SolveRequest
from gram.server.settings import ServerSettings
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.supervisor import Listener

log = logging.getLogger("gram")

_STOPPING = "the server is stopping, and the time for running requests is over; send it again"
_LAST_SECONDS = 5
"""For clients to read that."""


def create_app(service: Service) -> ASGIApp:
    """The HTTP surface of a service."""
    app = FastAPIOffline(
        title="GRAM server",
        summary="Puzzles in, ranked and checked answers of a generative recursive reasoning model out.",
        version=__version__,
        # Traces alone, and they only where OTEL_EXPORTER_OTLP_ENDPOINT says where they go.
        telemetry={
            "auto_configure": True,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in QUIET,
        },
        redoc_url=None,
        middleware=[Middleware(problems.BodyLimit, max_bytes=service.settings.max_body_bytes)],
    )
    if origins := service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "traceparent", REQUEST_ID],
            expose_headers=["retry-after", REQUEST_ID],
        )
    app.state.service = service
    problems.install(app)
    if service.keys:
        refusals: dict[int | str, dict[str, Any]] = {status: problems.DOCUMENTED[status] for status in (401, 429)}
        app.include_router(routes.v1, dependencies=[Depends(authenticate)], responses=refusals)
        app.include_router(admin.v1, dependencies=[Depends(authenticate), Depends(require_admin)], responses=refusals)
    else:
        app.include_router(routes.v1)
        app.include_router(admin.v1, dependencies=[Depends(require_admin)])
    app.include_router(routes.probes)
    app.include_router(page)
    _declare_limits(app, service.settings)
    secured = headers.SecurityHeaders(app, {"/": headers.PAGE, "/docs": headers.DOCS})
    return Observe(secured, service.metrics)


def _declare_limits(app: FastAPI, settings: ServerSettings) -> None:
    """Write into the OpenAPI document what this server allows at most."""
    schemas = app.openapi()["components"]["schemas"]
    for request in (SolveRequest, GenerateRequest):
        properties = schemas[request.__name__]["properties"]
        for name, limit in settings.request_limits.items():
            declared = properties[request.model_fields[name].alias or name]
            declared.get("anyOf", [declared])[0]["maximum"] = limit  # of what may be left out, the first is the number


class Server(uvicorn.Server):
    """On a signal it takes no more requests, and those that run have `grace_seconds` to end by themselves."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, end_requests: Callable[[], None]) -> None:
        """`end_requests` tells those that are left that the time is over."""
        self._grace_seconds = settings.grace_seconds
        self._end_requests = end_requests
        protocol = partial(
            Protocol,
            client_seconds=settings.client_seconds,
            # A client that is refused for its large body may first send all of a somewhat larger one.
            max_request_bytes=MAX_HEAD_BYTES + 2 * settings.max_body_bytes,
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=protocol,  # type: ignore[arg-type]  # it is called as a class is
                ws="none",
                server_header=False,
                log_config=None,  # ours
                log_level="warning",
                timeout_keep_alive=settings.client_seconds,  # an idle connection waits for its next request as any other
                timeout_graceful_shutdown=settings.grace_seconds + _LAST_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._grace_seconds, self._end_requests)
        await super().shutdown(sockets)


async def serve(settings: ServerSettings) -> None:
    """Serve until a signal. Raises CheckpointError for a checkpoint that can't be read, EngineUnavailableError for an
    engine that can't be started or kept alive.

    The API listens at once; until the engine is ready it says so at /health/ready, and requests wait.
    """
    begin = time.monotonic()
    # On a CPU the engine computes on the same cores. A batch process does not interrupt its threads in the middle of a tile,
    # for which the whole step would wait.
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    models = read_models(settings.model)
    metrics = Metrics({name: model.task.name for name, model in models.items()})

    def on_ready(number: int, ready: Ready) -> None:
        metrics.on_ready(number, ready.slots)
        where = f"{ready.device} in {ready.dtype}, {ready.slots} slots"
        log.info("engine %d ready after %.1f s: %s on %s", number, time.monotonic() - begin, ", ".join(ready.models), where)

    admission = Admission(settings)

    def on_report(number: int, report: StepReport) -> None:
        metrics.on_report(number, report)
        admission.on_report(report)

    fleet = Fleet(settings, Listener(on_report, metrics.on_pong, on_ready, metrics.restarts.inc))
    metrics.watch(fleet)
    keys = Keys(settings.keys_file) if settings.keys_file else None
    app = create_app(Service(settings, models, metrics, fleet, admission, keys))
    server = Server(app, settings, end_requests=lambda: fleet.end_all(ProblemError(503, _STOPPING, cause="stopping")))
    # uvicorn stops at these signals, and then sends them to the process again: to be told that it stopped, not to die.
    signal.signal(signal.SIGTERM, lambda *_: None)
    http = asyncio.create_task(server.serve())
    supervision = asyncio.create_task(fleet.run())
    try:
        await asyncio.wait({http, supervision}, return_when=asyncio.FIRST_COMPLETED)
        if supervision.done():
            server.should_exit = True  # requests that still wait are told that no engine can answer
        await http
        if supervision.done():
            supervision.result()
    finally:
        supervision.cancel()
        await asyncio.gather(supervision, return_exceptions=True)
