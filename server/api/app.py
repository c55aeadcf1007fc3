"""The application, and the service that runs it beside its engine."""

import asyncio
import logging
import os
import signal
import sys
import time

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from server import __version__
from server.api import problems, routes
from server.api.service import Service, read_models
from server.metrics import HttpMetrics, Metrics
from server.settings import ServerSettings
from server.supervisor import Supervisor

log = logging.getLogger("gram")


def create_app(service: Service) -> FastAPI:
    """The HTTP surface of a service."""
    app = FastAPI(
        title="GRAM server",
        summary="Puzzles in, ranked and checked answers of a generative recursive reasoning model out.",
        version=__version__,
        middleware=[
            Middleware(HttpMetrics, metrics=service.metrics),
            Middleware(problems.BodyLimit, max_bytes=service.settings.max_body_bytes),
        ],
    )
    app.state.service = service
    problems.install(app)
    app.include_router(routes.router)
    return app


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
    metrics = Metrics()

    def on_ready(slots: int, where: str) -> None:
        for name in models:
            metrics.slots.labels(name).set(slots)
        log.info("ready after %.1f s: %s on %s, %d slots", time.monotonic() - begin, ", ".join(models), where, slots)

    engine = Supervisor(settings, metrics.on_report, on_ready)
    metrics.restarts.set_function(lambda: engine.restarts)
    app = create_app(Service(settings, models, metrics, engine))
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level="warning", timeout_graceful_shutdown=settings.grace_seconds
    )
    server = uvicorn.Server(config)
    # uvicorn stops at these signals, and then sends them to the process again: to be told that it stopped, not to die.
    signal.signal(signal.SIGTERM, lambda *_: None)
    http = asyncio.create_task(server.serve())
    supervision = asyncio.create_task(engine.run())
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
