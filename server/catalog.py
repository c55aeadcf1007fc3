"""The checkpoints that can be served: where they are, what they are called, and which answers."""

import json
from dataclasses import dataclass
from pathlib import Path

from gram.models.config import CONFIG_FILE, EVALUATION_FILE, ZOO, CheckpointConfig, CheckpointError, read_config
from gram.models.tasks import TASKS, Task


def bundled_models() -> list[Path]:
    """The checkpoints that come with the code, in the order of the tasks: the first is what a command without a task takes."""
    folders = [path.parent for path in ZOO.glob(f"*/{CONFIG_FILE}")]
    return sorted(folders, key=lambda folder: ([*TASKS].index(read_config(folder).task), folder.name))


def checkpoints(folder: Path) -> list[Path]:
    """The folder itself, or where it is no checkpoint the checkpoints in it, if there are any."""
    if (folder / CONFIG_FILE).exists():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}")) or [folder]


def checkpoint_in(root: Path, name: str) -> Path:
    """The checkpoint of this name in a folder of them, and nowhere else. Raises FileNotFoundError."""
    for folder in checkpoints(root):
        if folder.name == name and folder.resolve().parent == root.resolve():
            return folder
    raise FileNotFoundError(f"there is no checkpoint {name!r} in the server's --models-root")


def model_name(folder: Path) -> str:
    """A checkpoint is called by its folder's name."""
    return folder.resolve().name


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
