"""What the routes work with: the loaded models, the fleet of engines and the metrics."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request

from gram.server.api.admission import Admission
from gram.server.api.cache import AnswerCache
from gram.server.api.keys import Keys
from gram.server.api.problems import ProblemError
from gram.server.api.schemas import ModelInfo
from gram.server.catalog import LoadedModel, read_models
from gram.server.engine.messages import Ready
from gram.server.jobs.runner import Runner
from gram.server.logs import RequestLog
from gram.server.metrics import Metrics
from gram.server.settings import ServerSettings
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.job import Job


@dataclass
class Service:
    """Everything that the routes work with."""

    settings: ServerSettings
    models: dict[str, LoadedModel]
    metrics: Metrics
    fleet: Fleet
    admission: Admission
    keys: Keys | None = None
    jobs: Runner | None = None
    answers: AnswerCache = field(init=False)
    engines: dict[int, Ready] = field(default_factory=dict)
    """What each engine said of itself when it was ready, by its number."""
    running: dict[Job, RequestLog] = field(default_factory=dict)
    """The jobs of the open requests, and whose they are."""
    cancel_everywhere: Callable[[str, str | None], Awaitable[bool]] | None = None
    """Calls `cancel` here and in all other API processes, if there are any, and says whether one of them had the request."""
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.answers = AnswerCache(self.settings.answer_cache_bytes)

    def info(self, model: LoadedModel) -> ModelInfo:
        """Describe a model to a client."""
        return ModelInfo(
            name=model.name,
            task=model.task.name,
            status="out_of_rotation" if model.name in self.fleet.out_of_rotation else "serving",
            generates=model.config.generates,
            origin=model.config.origin,
            kernels=self.fleet.kernels.get(model.name),
            config=model.config.model.model_dump(),
            evaluation=model.evaluation(),
        )

    def model(self, name: str) -> LoadedModel:
        """The loaded model with this name. Raises ProblemError."""
        try:
            return self.models[name]
        except KeyError:
            loaded = ", ".join(self.models) or "none"
            raise ProblemError(404, f"{name!r} is not loaded; loaded models: {loaded}", "model") from None

    def check_ready(self) -> None:
        """Raise ProblemError if no engine can answer."""
        if not self.fleet.ready:
            raise ProblemError(503, "no engine is ready yet; try again in a few seconds")

    def cancel(self, request_id: str, key: str | None) -> bool:
        """End the open requests that have this id and were sent with this key. Returns whether there are any."""
        jobs = [job for job, request in self.running.items() if (request.request_id, request.key) == (request_id, key)]
        for job in jobs:
            self.fleet.end(
                job, ProblemError(409, "the request was cancelled by DELETE /v1/requests/{request_id}", cause="cancelled")
            )
        return bool(jobs)

    async def load(self, folder: Path) -> LoadedModel:
        """Load one more model. Raises CheckpointError, EngineUnavailableError, or ProblemError if it is loaded already."""
        self._check_models_may_change()
        (model,) = read_models([folder]).values()
        async with self._changing:
            if model.name in self.models:
                raise ProblemError(409, f"{model.name} is loaded already; if its files have changed, unload it first", "name")
            await self.fleet.load(folder)
            self.metrics.add_model(model.name, model.task.name)
            self.models[model.name] = model
        return model

    async def unload(self, name: str) -> None:
        """Admit no more requests for a model, and free it when the running ones have ended."""
        self._check_models_may_change()
        del self.models[name]
        async with self._changing:
            await self.fleet.unload(name)
            self.answers.clear()  # another checkpoint may come under the same name
            self.metrics.remove_model(name)

    def _check_models_may_change(self) -> None:
        """Raise ProblemError if they may not."""
        if self.fleet.fixed:
            raise ProblemError(403, "the engines run on Ray, and have the models that they were started with; start them anew")


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service
