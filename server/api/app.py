"""The HTTP application, and the server process that runs it beside the engines."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial

import uvicorn
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gram import __version__
from gram.models.tasks import Task
from gram.server.api import admin, headers, info, jobs, problems, routes
from gram.server.api.access import authenticate, require_admin
from gram.server.api.admission import Admission
from gram.server.api.background import keep_jobs
from gram.server.api.body import ReadBody
from gram.server.api.connection import IDLE_SECONDS, MAX_HEAD_BYTES, Protocol
from gram.server.api.inference import routes as inference
from gram.server.api.inference.message import LENGTH_HEADER
from gram.server.api.inference.schemas import InferenceParameters, InferenceRequest
from gram.server.api.keys import Keys
from gram.server.api.observe import QUIET, REQUEST_ID, Observe
from gram.server.api.page import page
from gram.server.api.service import Service
from gram.server.catalog import read_models
from gram.server.engine.messages import Ready, StepReport
from gram.server.jobs.place import open_store
from gram.server.jobs.runner import Runner
from gram.server.metrics import Metrics
from gram.server.sampling.requests import GenerateRequest, SolveRequest
from gram.server.settings import ServerSettings
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.supervisor import Listener

log = logging.getLogger("gram")

_LAST_SECONDS = 5
"""Time after the grace period for clients to read that the server is stopping."""


def create_app(service: Service) -> ASGIApp:
    """Make the HTTP application of a service."""
    app = FastAPIOffline(
        title="GRAM server",
        summary="Takes puzzles, and returns ranked and checked answers of a generative recursive reasoning model.",
        version=__version__,
        # Traces only, and only if OTEL_EXPORTER_OTLP_ENDPOINT says where to send them.
        telemetry={
            "auto_configure": True,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in QUIET,
        },
        redoc_url=None,
        middleware=[
            Middleware(
                ReadBody,
                max_bytes=service.settings.max_body_bytes,
                larger={jobs.PATH: service.settings.max_upload_bytes},
            )
        ],
    )
    if origins := service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "authorization",
                "content-encoding",
                "content-type",
                "idempotency-key",
                LENGTH_HEADER,
                "traceparent",
                REQUEST_ID,
            ],
            expose_headers=[LENGTH_HEADER, "location", "retry-after", REQUEST_ID],
        )
    app.state.service = service
    problems.install(app)
    guards, refusals = ([Depends(authenticate)], (401, 429)) if service.keys else ([], ())
    for router in (routes.v1, jobs.v1, info.guarded):
        app.include_router(router, dependencies=guards, responses=problems.documented(*refusals))
    app.include_router(inference.v2, dependencies=guards, responses=inference.errors(*refusals))
    app.include_router(admin.v1, dependencies=[*guards, Depends(require_admin)], responses=problems.documented(*refusals))
    app.include_router(routes.probes)
    app.include_router(info.public)
    app.include_router(inference.probes)
    app.include_router(page)
    _declare_inference_request(app)
    _declare_limits(app, service.settings)
    secured = headers.SecurityHeaders(headers.HeadAsGet(app), {"/": headers.PAGE, "/docs": headers.DOCS})
    return Observe(secured, service.metrics)


class _InOrder(GenerateJsonSchema):
    """Leaves everything in the order in which the code has it, examples too."""

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        return value


def _declare_inference_request(app: FastAPI) -> None:
    """Write what an inference request may say into the OpenAPI document; FastAPI does not know, since it does not read it."""
    schema = InferenceRequest.model_json_schema(ref_template="#/components/schemas/{model}", schema_generator=_InOrder)
    app.openapi()["components"]["schemas"] |= {**schema.pop("$defs"), InferenceRequest.__name__: schema}


def _declare_limits(app: FastAPI, settings: ServerSettings) -> None:
    """Write the limits of this server into the OpenAPI document."""
    schemas = app.openapi()["components"]["schemas"]
    for request in (SolveRequest, GenerateRequest, InferenceParameters):
        properties = schemas[request.__name__]["properties"]
        for name, limit in settings.request_limits.items():
            declared = properties[request.model_fields[name].alias or name]
            declared.get("anyOf", [declared])[0]["maximum"] = limit  # of an optional field, the first alternative is the number


class Server(uvicorn.Server):
    """The HTTP server. On a signal it takes no more requests, and running ones have `grace_seconds` to end."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, end_jobs: Callable[[], object], end_requests: Callable[[], None]
    ) -> None:
        """`end_jobs`: puts the jobs aside. `end_requests`: tells the requests that are left that the grace period is over."""
        self._end_jobs = end_jobs
        self._grace_seconds = settings.grace_seconds
        self._end_requests = end_requests
        protocol = partial(
            Protocol,
            client_seconds=settings.client_seconds,
            # A client that is refused for the size of its body may still send a somewhat larger one to its end.
            max_request_bytes=MAX_HEAD_BYTES + 2 * settings.max_body_bytes,
            larger={jobs.PATH: MAX_HEAD_BYTES + 2 * settings.max_upload_bytes},
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=protocol,  # type: ignore[arg-type]  # it is called like a class
                ws="none",
                server_header=False,
                log_config=None,  # the log is configured in logs.py
                log_level="warning",
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=settings.grace_seconds + _LAST_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_jobs()
        asyncio.get_running_loop().call_later(self._grace_seconds, self._end_requests)
        await super().shutdown(sockets)


async def serve(settings: ServerSettings, make_fleet: Callable[[ServerSettings, Listener], Fleet] = Fleet) -> None:
    """Serve until a signal.

    The API listens at once. Until an engine is ready, /health/ready says so and requests wait. Raises CheckpointError if a
    checkpoint can't be read, EngineUnavailableError if no engine can be started or kept alive.
    """
    begin = time.monotonic()
    # On a CPU the engine computes on the same cores. As a batch process, the API does not interrupt a thread of the engine in
    # the middle of a tile, for which the whole step would wait.
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    models = read_models(settings.model)
    metrics = Metrics({name: model.task.name for name, model in models.items()})

    def on_ready(number: int, ready: Ready) -> None:
        metrics.on_ready(number, ready.slots)
        service.engines[number] = ready
        where = f"{ready.device} in {ready.dtype}, {ready.slots} slots"
        log.info("engine %d ready after %.1f s: %s on %s", number, time.monotonic() - begin, ", ".join(ready.models), where)

    admission = Admission(settings)

    def on_report(number: int, report: StepReport) -> None:
        metrics.on_report(number, report)
        admission.on_report(report)

    fleet = make_fleet(settings, Listener(on_report, metrics.on_pong, on_ready, metrics.restarts.inc))
    metrics.watch(fleet)
    keys = Keys(settings.keys_file) if settings.keys_file else None
    service = Service(settings, models, metrics, fleet, admission, keys)
    if store := open_store(settings):
        keep_jobs(service, store)
    server = Server(
        create_app(service),
        settings,
        end_jobs=lambda: working.cancel(),
        end_requests=lambda: fleet.end_all(problems.stopping()),
    )
    # uvicorn stops at a signal, and then raises it again: the process should go on to its end, not die of it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    http = asyncio.create_task(server.serve())
    supervision = asyncio.create_task(fleet.run())
    working = asyncio.create_task(work(service.jobs))
    counting = asyncio.create_task(asyncio.to_thread(_count_once, {model.task for model in models.values()}))
    try:
        await asyncio.wait({http, supervision}, return_when=asyncio.FIRST_COMPLETED)
        if supervision.done():
            server.should_exit = True  # waiting requests are told that no engine can answer
        await http
        if supervision.done():
            supervision.result()
    finally:
        working.cancel()
        supervision.cancel()
        await asyncio.gather(working, supervision, counting, return_exceptions=True)
        if store:
            store.close()


async def work(jobs: Runner | None) -> None:
    """Run the jobs. An error of our own in their runner stops them, not the server."""
    try:
        if jobs:
            await jobs.run()
    except Exception:
        log.exception("the jobs stop; restart the server")


def _count_once(tasks: Iterable[Task]) -> None:
    """Count the solutions of a puzzle of each task, so that the first request does not wait for its solver to be compiled."""
    for task in tasks:
        task.count_solutions(task.parse(task.examples[0]))
