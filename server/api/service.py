"""What the routes work with: the loaded models, the fleet of engines and the metrics."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from gram.server.api.admission import Admission
from gram.server.api.keys import Keys
from gram.server.api.problems import ProblemError
from gram.server.api.schemas import ModelInfo
from gram.server.catalog import LoadedModel, read_models
from gram.server.jobs.runner import Runner
from gram.server.metrics import Metrics
from gram.server.settings import ServerSettings
from gram.server.supervision.fleet import Fleet


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
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

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

    async def load(self, folder: Path) -> LoadedModel:
        """Load one more model. Raises CheckpointError, EngineUnavailableError, or ProblemError if it is loaded already."""
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
        del self.models[name]
        async with self._changing:
            await self.fleet.unload(name)
            self.metrics.remove_model(name)
