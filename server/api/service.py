"""What the routes work with: the loaded checkpoints, the engines and the metrics."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

from models.config import EVALUATION_FILE, CheckpointConfig, CheckpointError, read_config
from models.tasks import TASKS, Task
from server.api.admission import Admission
from server.api.keys import Keys
from server.api.problems import ProblemError
from server.api.schemas import ModelInfo
from server.engines import Engines
from server.metrics import Metrics
from server.settings import ServerSettings, model_name


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint that the engines serve."""

    name: str
    folder: Path
    config: CheckpointConfig

    @property
    def task(self) -> Task:
        return TASKS[self.config.task]

    def evaluation(self) -> object:
        """The figures that `gram eval` wrote beside the weights, if it has."""
        path = self.folder / EVALUATION_FILE
        return json.loads(path.read_bytes()) if path.exists() else None


@dataclass
class Service:
    """What the routes work with."""

    settings: ServerSettings
    models: dict[str, LoadedModel]
    metrics: Metrics
    engines: Engines
    admission: Admission
    keys: Keys | None = None
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def info(self, model: LoadedModel) -> ModelInfo:
        """What a client is told of a model."""
        return ModelInfo(
            name=model.name,
            task=model.task.name,
            status="out_of_rotation" if model.name in self.engines.out_of_rotation else "serving",
            solves=model.config.solves,
            generates=model.config.generates,
            config=model.config.model.model_dump(),
            evaluation=model.evaluation(),
        )

    def model(self, name: str) -> LoadedModel:
        """The model of this name. Raises ProblemError."""
        try:
            return self.models[name]
        except KeyError:
            loaded = ", ".join(self.models) or "none"
            raise ProblemError(404, f"{name!r} is not loaded; loaded: {loaded}", "model") from None

    async def load(self, folder: Path) -> LoadedModel:
        """Take a model more. Raises CheckpointError, EngineUnavailableError, and ProblemError where it is there."""
        (model,) = read_models([folder]).values()
        async with self._changing:
            if model.name in self.models:
                raise ProblemError(409, f"{model.name} is loaded; unload it first, if its files have changed", "name")
            await self.engines.load(folder)
            self.metrics.add_model(model.name, model.task.name)
            self.models[model.name] = model
        return model

    async def unload(self, name: str) -> None:
        """Let no more requests of a model in, and free it when those that run have ended."""
        del self.models[name]
        async with self._changing:
            await self.engines.unload(name)
            self.metrics.remove_model(name)


def choose(able: list[LoadedModel], task: str | None) -> LoadedModel | None:
    """Of models that can do what is asked, the one that answers where only a task is named, or not even that.

    It is the one of the task (without it, of the first model's) that can do the least else: a model that is trained for one
    thing does that better. Of equals it is the first; None if no model is of the task.
    """
    of_task = [model for model in able if model.task.name == (task or able[0].task.name)]
    return min(of_task, key=lambda model: len(model.config.abilities), default=None)


def read_models(folders: list[Path]) -> dict[str, LoadedModel]:
    """The checkpoints' configurations by name (the folder's). Raises CheckpointError."""
    if not folders:
        raise CheckpointError("no checkpoint to serve; name one with --model")
    loaded: dict[str, LoadedModel] = {}
    for folder in folders:
        config = read_config(folder)
        if config.task not in TASKS:
            raise CheckpointError(f"{folder}: its task {config.task!r} is not known; tasks: {', '.join(TASKS)}")
        if config.generates and TASKS[config.task].blank is None:
            raise CheckpointError(f"{folder}: it can't generate, for {config.task} has no empty input; set generates to false")
        name = model_name(folder)
        if name in loaded:
            raise CheckpointError(f"two checkpoints are called {name}: {loaded[name].folder} and {folder}; rename one folder")
        loaded[name] = LoadedModel(name, folder, config)
    return loaded
