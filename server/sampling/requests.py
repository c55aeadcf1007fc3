"""What a client may ask: to solve a puzzle, or to generate boards, and by which model."""

import re
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from gram.models.config import Ability
from gram.models.tasks import TASKS, Task, Tokens, only_one, pose, readings
from gram.server.sampling.options import WATCHED, GenerateOptions, Options

DEFAULT_TASK = next(iter(TASKS.values()))

_NUMBER = re.compile(r"\s*[-+]?[\d_.]+(e[-+]?\d+)?\s*", re.IGNORECASE)


Priority = Literal["interactive", "batch"]


class TimedOptions(Options):
    """The options of a request that a server answers: how to sample, and how long it may take."""

    timeout_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="answer after this time with the trajectories that have ended by then (504 if none has); refused with 429 "
        "if the model has other requests and, by the measured rate, not all would end in time (default: the server's limit)",
    )

    @field_validator(
        "num_trajectories", "max_steps", "seed", "temperature", "halt", "stop", "top", "timeout_seconds", mode="before"
    )
    @classmethod
    def _numbers_are_numbers(cls, value: object) -> object:
        """Refuse true for 1 and "5" for 5: pydantic takes them, which a command line needs, but in JSON they are mistakes."""
        if isinstance(value, bool) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
            raise ValueError("write a number, without quotes")
        return value


class SamplingRequest(TimedOptions, ABC):
    """What to sample, and from which model."""

    ability: ClassVar[Ability]

    model: str | None = Field(None, description="a name from GET /v1/models")
    task: str | None = Field(
        None,
        description="a name from GET /v1/tasks; a loaded model of this task answers. POST /v1/solve finds it by the "
        "puzzle where only one can be meant",
        json_schema_extra={"anyOf": [{"enum": [*TASKS]}, {"type": "string"}, {"type": "null"}]},
    )
    priority: Priority = Field(
        "interactive",
        description="who gets free slots first: a batch request gets those that no interactive one waits for, and now and then "
        "one that they do, so that it ends some day; its timeout_seconds is no promise",
    )
    stream: bool = Field(
        False, description="send each trajectory when it ends: as SSE, or as NDJSON with Accept: application/x-ndjson"
    )
    stream_steps: bool = Field(
        False,
        description=f"also send the first {WATCHED} trajectories after every step, as far as the client reads fast enough; "
        "needs stream",
    )

    @abstractmethod
    def input(self, task: Task) -> tuple[Task, Tokens]:
        """The task as the client sees it, and the input of the model [N]. Raises PuzzleError."""

    def meant(self, tasks: list[Task]) -> str | None:  # noqa: ARG002
        """The name of the task that is meant, of those that can be had. Raises PuzzleError if that can't be told."""
        return self.task

    @model_validator(mode="after")
    def _steps_are_streamed(self) -> Self:
        if self.stream_steps and not self.stream:
            raise ValueError("stream_steps needs stream: true")
        return self


class SolveRequest(SamplingRequest):
    """A puzzle, and how to solve it."""

    ability = "solve"
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task": DEFAULT_TASK.name, "puzzle": example, "num_trajectories": 20, "seed": 1}
                for example in DEFAULT_TASK.examples
            ]
        },
    )

    puzzle: JsonValue = Field(description="the puzzle, in any spelling that GET /v1/tasks lists for the task")

    def input(self, task: Task) -> tuple[Task, Tokens]:
        return pose(self.puzzle, task)

    def meant(self, tasks: list[Task]) -> str | None:
        named = self.task or (tasks[0].name if len(set(tasks)) == 1 else None)
        # A task without code reads any numbers, so it is meant only if no other task reads them.
        checked, others = ([task for task in tasks if task.checked is checked] for checked in (True, False))
        return named or only_one(readings(self.puzzle, checked) or readings(self.puzzle, others))


class GenerateRequest(GenerateOptions, SamplingRequest):
    """New boards, from the task's empty input."""

    ability = "generate"
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task": DEFAULT_TASK.name, "num_samples": 20, "seed": 1},
                {
                    "task": DEFAULT_TASK.name,
                    "num_samples": 20,
                    "seed": 1,
                    "guidance": {"prune": {"keep": 0.5, "steps": [2, 4]}},
                },
            ]
        },
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.model is None and self.task is None:
            raise ValueError("name a model or a task")
        return self

    def input(self, task: Task) -> tuple[Task, Tokens]:
        assert task.blank is not None, "a model that generates has a task with an empty input: see read_models"
        return task, task.blank
