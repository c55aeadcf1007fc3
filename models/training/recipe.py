"""Training recipes, read from TOML files. Unknown keys are refused, and all defaults stand here."""

import tomllib
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gram.models.config import CheckpointConfig, ModelConfig, describe
from gram.models.data_sets import DataSetError, open_folder
from gram.models.tasks import TASKS, Task, Tokens
from gram.models.training.labelled import Labelled

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class ConfigError(ValueError):
    """A recipe can't be used; the message names each bad key."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(_Strict):
    """A run of updates with one learning-rate schedule: linear warm-up, then a cosine to lr * final_lr."""

    name: str
    updates: Count
    lr: Positive
    warmup: int = Field(200, ge=0)
    final_lr: Share = Field(0.05, description="the last learning rate, as a share of lr")
    ema: Share = Field(0.999, description="decay of the averaged weights, which become the checkpoint; warmed up at the start")
    prior_share: Share = Field(0.0, description="rows that roll out under the prior, towards the nearest solution")
    prior_free_steps: int = Field(
        0, ge=0, description="first supervision steps of prior rows that carry no loss if their puzzle is ambiguous"
    )
    group: Count = Field(1, description="prior rows that start on the same puzzle together")
    balanced_steps: int = Field(
        0, ge=0, description="first supervision steps in which a group's targets are spread evenly over the solutions"
    )
    start_share: Share = Field(
        0.0, description="at the end of the stage, the averaged weights go back this share of the way to those of --start"
    )
    halt_weight: float = Field(
        0.0, ge=0, description="weight of the halt head's loss on prior rows; above 0 it shapes the core, not the head alone"
    )

    def prior_rows(self, batch_size: int) -> int:
        """How many rows of a batch, the first ones, roll out under the prior."""
        return round(self.prior_share * batch_size)


class HeadsStage(_Strict):
    """The fit of the halt head and the LPRM on rollouts of the prior, with the core frozen."""

    puzzles: Count = 4096
    steps: Count = Field(16, description="supervision steps of each rollout")
    max_temperature: float = Field(
        3.0, ge=1, description="rollouts draw their temperatures from [1, this], so that the heads see failures, too"
    )
    caution: Positive = Field(
        50.0, description="weight of a wrong answer in the halt head's fit: a halt too early costs more than a step"
    )
    least_steps: Count = Field(1, description="halting before this step counts as wrong, whatever the answer")
    iterations: Count = Field(200, description="iterations of L-BFGS for each head")


class TrainingConfig(_Strict):
    """The training of one checkpoint. `model` may leave out vocab_size and seq_len, which the task or the data determine."""

    task: str = Field(description="a registered task; with `data` it may be left out: then the task has no code")
    data: Path | None = Field(None, description="folder of a data set, whose pairs take the place of the task's own")
    generates: bool = False
    one_solution: bool = Field(False, description="train on puzzles with one solution only, under prior and posterior")
    model: ModelConfig
    sees_neighbours: bool = Field(
        False, description="on a square grid, the position mixers begin as filters over each cell and those beside it"
    )
    stages: Annotated[list[Stage], Field(min_length=1)]
    heads: HeadsStage = HeadsStage()
    seed: int = 0
    batch_size: Count = 96
    beta: float = Field(1.0, ge=0, description="weight of the KL; 1 is the evidence lower bound per token")
    kl_balance: Share = Field(0.8, description="share of the KL that trains the prior alone")
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    clip: Positive = 1.0
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="dtype of the activations: auto takes bfloat16 if the machine multiplies in it natively, else float32",
    )

    @model_validator(mode="after")
    def _grid_is_square(self) -> Self:
        model = self.model
        if self.sees_neighbours and (
            model.mixing != "swiglu" or model.mixer_dim % model.seq_len or isqrt(model.seq_len) ** 2 != model.seq_len
        ):
            raise ValueError(
                f"sees_neighbours needs mixing = swiglu, a square of cells ({model.seq_len} are given), "
                f"and a mixer_dim ({model.mixer_dim}) that is a multiple of it"
            )
        return self

    @property
    def updates(self) -> int:
        return sum(stage.updates for stage in self.stages)

    @cached_property
    def source(self) -> Task:
        """Where the pairs come from, and what checks answers: the task, or the data set. Raises DataSetError."""
        return Labelled.open(self.data, self.task) if self.data else TASKS[self.task]

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Draw training pairs: puzzles and solutions, both [count, N]."""
        return self._draw(rng, count, ambiguous=False) if self.one_solution else self.source.sample(rng, count)

    def sample_posterior(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Draw training pairs for rows under the posterior, both [count, N].

        Their puzzles are ambiguous, unless the recipe has none: the posterior says which solution is meant. Of a puzzle with
        one solution it would tell what the model is to find. A data set is drawn from as it is if there is no posterior, or
        no puzzle with several labels.
        """
        if isinstance(self.source, Labelled) and (self.model.guidance == "none" or not self.source.has_ambiguous):
            return self.sample(rng, count)
        return self._draw(rng, count, ambiguous=not self.one_solution)

    def _draw(self, rng: np.random.Generator, count: int, *, ambiguous: bool) -> tuple[Tokens, Tokens]:
        """Draw pairs until there are `count` whose puzzles are ambiguous, or are not."""
        task = self.source
        puzzles, answers = task.sample(rng, count)
        while len(refused := np.flatnonzero(task.is_ambiguous(puzzles) != ambiguous)):
            puzzles[refused], answers[refused] = task.sample(rng, len(refused))
        return puzzles, answers

    @property
    def checkpoint(self) -> CheckpointConfig:
        """The configuration of the finished checkpoint."""
        checked = self.task in TASKS
        return CheckpointConfig(task=self.task, checked=checked, generates=self.generates, model=self.model)


DATA_RECIPE = Path(__file__).with_name("data.toml")
"""The recipe for a data set without another."""


def load_training_config(path: Path, data: Path | None = None) -> TrainingConfig:
    """Read a recipe; `data`: the folder of a data set to train on. Raises ConfigError naming the file and every bad key."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        if data is not None:
            raw["data"] = data.resolve()
        name, vocab_size, seq_len = _sizes(raw, path)
        model = raw.setdefault("model", {})
        if isinstance(model, dict):
            for key, size in (("vocab_size", vocab_size), ("seq_len", seq_len)):
                if model.setdefault(key, size) != size:
                    raise ConfigError(f"{path}: model.{key}: {model[key]} is not {name}'s {size}; leave it out")
        if raw.get("generates") and (raw.get("data") or TASKS[name].blank is None):
            raise ConfigError(f"{path}: generates: {name} has no empty input to generate from; leave it out")
        config = TrainingConfig.model_validate(raw)
        if isinstance(config.source, Labelled):
            config.source.raise_unless_trainable(with_posterior=config.model.guidance != "none")
        return config
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from error
    except DataSetError as error:
        raise ConfigError(str(error)) from error


def _sizes(raw: dict[str, Any], path: Path) -> tuple[str, int, int]:
    """The task that a recipe means, its vocab_size and its seq_len. A data set has the name of its folder."""
    named, folder = raw.get("task"), raw.get("data")
    if not (isinstance(named, str) and named in TASKS) and (named is not None or not folder):
        raise ConfigError(f"{path}: unknown task {named!r}; known tasks: {', '.join(TASKS)}; only --data needs none")
    if not folder:
        task = TASKS[str(named)]
        return task.name, task.vocab_size, task.seq_len
    data = open_folder(Path(folder), "train")
    name = raw["task"] = named or Path(folder).resolve().name
    if registered := TASKS.get(name):
        data.fit(name, registered.seq_len, registered.vocab_size)
    return name, data.vocab_size, data.seq_len
