"""The application: what is loaded, the engine behind it, and the routes."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from server import __version__
from server.api import problems, routes
from server.api.service import Service, read_models
from server.metrics import HttpMetrics, Metrics
from server.settings import ServerSettings
from server.supervisor import Supervisor

log = logging.getLogger("gram")


def create_app(settings: ServerSettings) -> FastAPI:
    """The app; its lifespan starts and stops the engine. Raises CheckpointError for a checkpoint that can't be read."""
    models = read_models(settings.model)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        begin = time.monotonic()
        engine = Supervisor(settings, metrics.on_report)
        metrics.restarts.set_function(lambda: engine.restarts)
        app.state.service = Service(settings, models, metrics, engine)
        try:
            ready = await engine.start()
            for name in models:
                metrics.slots.labels(name).set(ready.slots)
                metrics.live_slots.labels(name).set(0)
                metrics.queue_depth.labels(name).set(0)
            log.info(
                "ready in %.1f s: %s on %s, %d slots", time.monotonic() - begin, ", ".join(models), ready.device, ready.slots
            )
            yield
        finally:
            await engine.stop()

    app = FastAPI(
        title="GRAM server",
        summary="Puzzles in, ranked and checked answers of a generative recursive reasoning model out.",
        version=__version__,
        lifespan=lifespan,
        middleware=[
            Middleware(HttpMetrics, metrics=metrics),
            Middleware(problems.BodyLimit, max_bytes=settings.max_body_bytes),
        ],
    )
    problems.install(app)
    app.include_router(routes.router)
    return app
