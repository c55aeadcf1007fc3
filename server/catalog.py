"""The checkpoints that can be served: where they are, what they are called, and which of them answers a request."""

import json
from dataclasses import dataclass
from pathlib import Path

from gram.models.config import CONFIG_FILE, EVALUATION_FILE, ZOO, CheckpointConfig, CheckpointError, read_config
from gram.models.tasks import TASKS, Task, task_of


def bundled_models() -> list[Path]:
    """The bundled checkpoints in the order of their tasks. A command without a task takes the first."""
    folders = [path.parent for path in ZOO.glob(f"*/{CONFIG_FILE}")]
    return sorted(folders, key=lambda folder: ([*TASKS].index(read_config(folder).task), folder.name))


def checkpoints(folder: Path) -> list[Path]:
    """The folder itself, if it is a checkpoint or has none in it; otherwise the checkpoints in it."""
    if (folder / CONFIG_FILE).exists():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}")) or [folder]


def checkpoint_in(root: Path, name: str) -> Path:
    """The checkpoint with this name directly in a folder of checkpoints. Raises FileNotFoundError."""
    for folder in checkpoints(root):
        if folder.name == name and folder.resolve().parent == root.resolve():
            return folder
    raise FileNotFoundError(f"there is no checkpoint {name!r} in the server's --models-root")


def model_name(folder: Path) -> str:
    """The name of a checkpoint: that of its folder."""
    return folder.resolve().name


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint that is served."""

    name: str
    folder: Path
    config: CheckpointConfig

    @property
    def task(self) -> Task:
        return task_of(self.config)

    def evaluation(self) -> object:
        """The figures that `gram eval` wrote beside the weights; None if it did not."""
        path = self.folder / EVALUATION_FILE
        return json.loads(path.read_bytes()) if path.exists() else None


def choose(able: list[LoadedModel], task: str | None) -> LoadedModel | None:
    """The first model of a task (None: the first model), among those that can do what is asked. None if there is none."""
    return next((model for model in able if task in (None, model.task.name)), None)


def read_models(folders: list[Path]) -> dict[str, LoadedModel]:
    """Read the configurations of checkpoints, by their names. Raises CheckpointError."""
    if not folders:
        raise CheckpointError("no checkpoint to serve; name one with --model")
    loaded: dict[str, LoadedModel] = {}
    for folder in folders:
        config = read_config(folder)
        try:
            task = task_of(config)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        if config.generates and task.blank is None:
            raise CheckpointError(f"{folder}: {config.task} has no empty input to generate from; set generates to false")
        name = model_name(folder)
        if name in loaded:
            raise CheckpointError(f"two checkpoints are called {name}: {loaded[name].folder} and {folder}; rename one folder")
        loaded[name] = LoadedModel(name, folder, config)
    return loaded
