"""The training recipe, read from a TOML file: unknown keys are refused, defaults stand here."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gram.models.config import CheckpointConfig, ModelConfig, describe
from gram.models.tasks import TASKS, Tokens

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class ConfigError(ValueError):
    """A training file that can't be used; the message names each bad key."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(_Strict):
    """A run of updates with one learning-rate schedule: linear warm-up, then a cosine to lr * final_lr."""

    name: str
    updates: Count
    lr: Positive
    warmup: int = Field(200, ge=0)
    final_lr: Share = Field(0.05, description="the last learning rate, as a share of lr")
    ema: Share = Field(0.999, description="decay of the averaged weights, which are the checkpoint's; warmed up at the start")
    prior_share: Share = Field(0.0, description="rows that roll out under the prior, towards the nearest solution")
    prior_free_steps: int = Field(0, ge=0, description="first supervision steps of prior rows that carry no loss")
    group: Count = Field(1, description="prior rows that start on the same puzzle together")
    balanced_steps: int = Field(
        0, ge=0, description="first supervision steps in which a group's targets are spread evenly over the solutions"
    )
    halt_weight: float = Field(
        0.0, ge=0, description="weight of the halt head's loss on prior rows; above 0 it shapes the core, not the head alone"
    )

    def prior_rows(self, batch_size: int) -> int:
        """How many rows of a batch roll out under the prior: the first ones."""
        return round(self.prior_share * batch_size)


class HeadsStage(_Strict):
    """The fit of the halt head and the LPRM on rollouts of the prior, the core frozen."""

    puzzles: Count = 4096
    steps: Count = Field(16, description="supervision steps of each rollout")
    max_temperature: float = Field(3.0, ge=1, description="rollouts draw theirs from [1, this], to see failures too")
    caution: Positive = Field(
        50.0, description="weight of a wrong answer in the halt head's fit: a halt too early costs more than a step"
    )
    least_steps: Count = Field(1, description="to halt before this step counts as wrong, whatever the answer")
    iterations: Count = Field(200, description="of L-BFGS, for each head")


class TrainingConfig(_Strict):
    """One checkpoint's training: `model` may leave out vocab_size and seq_len, which are the task's."""

    task: str
    solves: bool = True
    generates: bool = False
    """Without `solves`, all inputs are the empty one."""
    model: ModelConfig
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
        "auto", description="of the activations: auto takes bfloat16 where the machine multiplies in it, else float32"
    )

    @property
    def updates(self) -> int:
        return sum(stage.updates for stage in self.stages)

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        """Training pairs [count, N]: puzzles and solutions; if the model only generates, empty inputs and full boards."""
        task = TASKS[self.task]
        if self.solves or task.blank is None:
            return task.sample(rng, count)
        return np.tile(task.blank, (count, 1)), task.sample_boards(rng, count)

    @property
    def checkpoint(self) -> CheckpointConfig:
        """What the finished checkpoint says of itself."""
        return CheckpointConfig(task=self.task, solves=self.solves, generates=self.generates, model=self.model)


def load_training_config(path: Path) -> TrainingConfig:
    """Read a recipe. Raises ConfigError naming the file and every bad key."""
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
        task = next((task for name, task in TASKS.items() if name == raw.get("task")), None)
        if task is None:
            raise ConfigError(f"{path}: task {raw.get('task')!r} is not known; tasks: {', '.join(TASKS)}")
        model = raw.setdefault("model", {})
        if isinstance(model, dict):
            for key, size in (("vocab_size", task.vocab_size), ("seq_len", task.seq_len)):
                if model.setdefault(key, size) != size:
                    raise ConfigError(f"{path}: model.{key}: {model[key]} is not {task.name}'s {size}; leave it out")
        if raw.get("generates") and task.blank is None:
            raise ConfigError(f"{path}: generates: {task.name} has no empty input to generate from; leave it out")
        return TrainingConfig.model_validate(raw)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from error
