"""Requests and responses, as the OpenAPI document shows them."""

import re
import secrets
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    field_validator,
    model_validator,
)

from models.config import Ability
from models.tasks import TASKS, Grid, Task, Tokens
from models.temperature import LONGEST, listed
from server.engine.messages import Step, Submit
from server.engine.pruning import Prune
from server.logs import request_id
from server.solving import Candidate, Collector, Outcome, Select, answer_of

DEFAULT_TASK = next(iter(TASKS.values()))
Score = Annotated[float, Field(ge=0, le=1)]

_NUMBER = re.compile(r"\s*[-+]?[\d_.]+(e[-+]?\d+)?\s*", re.IGNORECASE)

WATCHED = 256
"""So many trajectories of a request, the first ones, are shown on their way."""


def chosen(seed: int | None) -> int:
    """The seed, or a random one of 53 bits: a number that survives a JSON parser of any language."""
    return secrets.randbits(53) if seed is None else seed


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number")
    return value


Heat = Annotated[float, Field(ge=0, le=10), BeforeValidator(_no_boolean)]
Heats = Annotated[
    Annotated[Heat, Tag("<number>")] | Annotated[list[Heat], Field(min_length=1, max_length=LONGEST), Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list | tuple) else "<number>"),
]
"""The tags keep errors to the kind that was meant."""


class Pruning(BaseModel):
    """At each checkpoint step, end the trajectories that rank below the best share of those with an index up to theirs."""

    model_config = ConfigDict(extra="forbid")

    keep: float = Field(0.5, gt=0, lt=1, description="the share that goes on, rounded up")
    steps: tuple[Annotated[int, Field(ge=1), BeforeValidator(_no_boolean)], ...] = Field(
        (2, 4, 8), min_length=1, max_length=8, description="the checkpoint steps; those from max_steps on have no effect"
    )

    @field_validator("steps")
    @classmethod
    def _ascend(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not all(step < following for step, following in pairwise(steps)):
            raise ValueError("write each step once, in ascending order")
        return steps


class Guidance(BaseModel):
    """How the reward model steers the sampling."""

    model_config = ConfigDict(extra="forbid")

    prune: Pruning


class Options(BaseModel):
    """How to sample and rank."""

    model_config = ConfigDict(extra="forbid")

    num_trajectories: int = Field(20, ge=1, description="K: trajectories to sample")
    max_steps: int = Field(16, ge=1, description="supervision steps after which a trajectory that has not halted ends")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="the same seed gives the same answer, whatever the load; chosen and returned when absent",
    )
    temperature: Heats = Field(
        1.0,
        description="scales sigma; above 1 finds more solutions, each less surely. A list: that of each supervision step, its "
        "last one also of those after it; no trajectory halts before the list's end",
    )
    symmetries: bool = Field(
        True,
        description="each trajectory sees another image of the puzzle under the task's symmetries, and its answer is turned "
        "back, for what the model prefers and where it fails differ between images; false: all see the puzzle as it is",
    )
    select: Select = Field("lprm", description="rank by the reward model's score, or by votes")
    stop: Literal["all", "first_valid"] | Score = Field(
        "all",
        description="run all trajectories, or stop with the lowest-numbered one that the checker finds valid, "
        "or whose score reaches this number",
    )
    top: int | None = Field(None, ge=1, description="return only this many candidates (default: all)")
    guidance: Literal["none"] | Guidance = Field(
        "none", description="give the slots of trajectories that the reward model ranks low at a step to those that wait"
    )

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if (steps := len(listed(self.temperature))) > self.max_steps:
            raise ValueError(f"temperature lists {steps} steps, above max_steps {self.max_steps}; raise that or list fewer")
        return self

    def chosen_seed(self) -> int:
        """The seed, or a random one."""
        return chosen(self.seed)

    def submit(self, number: int, model: str, puzzle: Tokens, seed: int, *, watch: bool = False) -> Submit:
        """The engine's order for these options; `watch`: to show the trajectories on their way, too."""
        return Submit(
            request=number,
            model=model,
            puzzle=puzzle.astype(np.uint8).tobytes(),
            num_trajectories=self.num_trajectories,
            max_steps=self.max_steps,
            seed=seed,
            temperature=self.temperature,
            symmetries=self.symmetries,
            prune=None if self.guidance == "none" else Prune(self.guidance.prune.keep, self.guidance.prune.steps),
            watch=WATCHED if watch else 0,
        )


class GenerateOptions(Options):
    """How to sample boards: the same options, one of them by another name."""

    num_trajectories: int = Field(20, ge=1, alias="num_samples", description="boards to sample")


class SamplingRequest(Options, ABC):
    """What to sample from which model."""

    ability: ClassVar[Ability]

    model: str | None = Field(None, description="a name from GET /v1/models")
    task: str | None = Field(
        None,
        description="a name from GET /v1/tasks: a loaded model of it answers, of several one that can only do this",
        json_schema_extra={"enum": [*TASKS, None]},
    )
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="end after so long with the trajectories that have ended by then (504 where none has); refused with 429 "
        "where by the measured rate not all would end in time (default: as long as the server allows)",
    )
    stream: bool = Field(
        False, description="send each trajectory as it finishes: SSE, or NDJSON by Accept: application/x-ndjson"
    )
    stream_steps: bool = Field(
        False,
        description=f"of a stream: send the first {WATCHED} trajectories on their way too, after every step, as far as the "
        "client reads fast enough",
    )

    @field_validator("num_trajectories", "max_steps", "seed", "temperature", "stop", "top", "timeout_seconds", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: object) -> object:
        """To pydantic true is a 1 and "5" a 5, which a command line needs; in JSON they are something else."""
        if isinstance(value, bool) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
            raise ValueError("write a number, without quotes")
        return value

    @abstractmethod
    def input(self, task: Task) -> Tokens:
        """What the model is given [N]. Raises PuzzleError."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.model is None and self.task is None:
            raise ValueError("name a model or a task")
        return self

    @model_validator(mode="after")
    def _steps_are_streamed(self) -> Self:
        if self.stream_steps and not self.stream:
            raise ValueError("stream_steps needs stream: true")
        return self


class SolveRequest(SamplingRequest):
    """A puzzle and how to solve it."""

    ability = "solve"
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task": DEFAULT_TASK.name, "puzzle": example, "num_trajectories": 20, "seed": 1}
                for example in DEFAULT_TASK.examples
            ]
        },
    )

    puzzle: JsonValue = Field(description="in any spelling that GET /v1/tasks lists for the task")

    def input(self, task: Task) -> Tokens:
        return task.parse(self.puzzle)


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

    def input(self, task: Task) -> Tokens:
        assert task.blank is not None, "a model that generates has a task with an empty input: see read_models"
        return task.blank


class Board(BaseModel):
    """A puzzle or an answer, as text and as numbers."""

    text: str
    grid: Grid

    @classmethod
    def of(cls, task: Task, tokens: Tokens) -> Self:
        return cls(text=task.text(tokens), grid=task.grid(tokens))


class DrawnPuzzle(BaseModel):
    """A puzzle of a task's test sets."""

    task: str
    seed: int
    puzzle: Board


class StartEvent(BaseModel):
    """What was understood of the request: the first event of a stream with `stream_steps`."""

    model: str
    task: str
    puzzle: Board
    seed: int
    num_trajectories: int
    max_steps: int

    @classmethod
    def of(cls, model: str, task: Task, puzzle: Tokens, seed: int, options: Options) -> Self:
        return cls(
            model=model,
            task=task.name,
            puzzle=Board.of(task, puzzle),
            seed=seed,
            num_trajectories=options.num_trajectories,
            max_steps=options.max_steps,
        )


class StepEvent(Board):
    """A trajectory on its way: what it would answer after so many steps, and the reward model's value of it."""

    trajectory: int
    steps: int
    score: float

    @classmethod
    def of_step(cls, task: Task, step: Step) -> Self:
        return cls(
            **dict(Board.of(task, answer_of(task, step.answer))), trajectory=step.index, steps=step.steps, score=step.score
        )


class PrunedEvent(BaseModel):
    """A trajectory that `guidance` ended; sent with `stream_steps`."""

    trajectory: int
    steps: int


class TrajectoryEvent(Board):
    """A finished trajectory, as a stream sends it. `valid` is the checker's word, `score` the reward model's."""

    trajectory: int
    steps: int
    score: float
    valid: bool

    @classmethod
    def of_outcome(cls, task: Task, outcome: Outcome) -> Self:
        return cls(
            text=task.text(outcome.tokens),
            grid=task.grid(outcome.tokens),
            trajectory=outcome.trajectory,
            steps=outcome.steps,
            score=outcome.score,
            valid=outcome.valid,
        )


class RankedCandidate(TrajectoryEvent):
    """A distinct answer; trajectory, steps and score are those of the best-scored trajectory that gave it."""

    votes: int = Field(description="trajectories that gave this answer")

    @classmethod
    def of_candidate(cls, task: Task, candidate: Candidate) -> Self:
        event = TrajectoryEvent.of_outcome(task, candidate.best)
        return cls(**dict(event), votes=candidate.votes)


class SolveResponse(BaseModel):
    """The ranked answers."""

    model: str
    task: str
    puzzle: Board
    seed: int
    candidates: list[RankedCandidate]
    complete: bool = Field(description="false: the time was over before all trajectories had ended; another run may give more")
    trajectories: int = Field(
        description="trajectories that ended and count: num_trajectories, or fewer after an early stop or where not complete"
    )
    dropped: list[int] = Field(description="trajectories whose state turned non-finite; they give no candidate")
    pruned: int = Field(description="trajectories that `guidance` ended; they give no candidate")
    distinct_valid: int = Field(description="distinct answers that the checker finds valid")
    steps_run: int = Field(description="supervision steps of the trajectories that count")
    queue_ms: float = Field(description="time until the first trajectory got a slot")
    compute_ms: float = Field(description="time from then to the last trajectory")

    @classmethod
    def of(cls, model: str, collector: Collector, seed: int, options: Options, queue: float, compute: float) -> Self:
        """The answer that a collector has come to; queue and compute in seconds."""
        task = collector.task
        return cls(
            model=model,
            task=task.name,
            puzzle=Board.of(task, collector.puzzle),
            seed=seed,
            candidates=[RankedCandidate.of_candidate(task, c) for c in collector.ranked(options.select, options.top)],
            complete=collector.complete,
            trajectories=collector.counted,
            dropped=sorted(collector.dropped),
            pruned=collector.pruned,
            distinct_valid=collector.distinct_valid,
            steps_run=collector.steps_run,
            queue_ms=round(queue * 1e3, 3),
            compute_ms=round(compute * 1e3, 3),
        )


Event = StartEvent | StepEvent | PrunedEvent | TrajectoryEvent | SolveResponse
"""What a stream brings. The SolveResponse is the last."""


class ModelInfo(BaseModel):
    """A loaded checkpoint."""

    name: str
    task: str
    status: Literal["serving", "out_of_rotation"] = Field(
        description="out of rotation: engines died of it again and again, or its files have changed; its requests get 503"
    )
    solves: bool = Field(description="POST /v1/solve may name it")
    generates: bool = Field(description="POST /v1/generate may name it")
    config: dict[str, JsonValue]
    evaluation: JsonValue = Field(
        description="measured by `gram eval` on held-out puzzles and from the empty input; null if not measured"
    )


class LoadRequest(BaseModel):
    """A checkpoint to load."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="of its folder in the server's --models-root", json_schema_extra={"example": "nqueens-8"})


class TaskInfo(BaseModel):
    """A kind of puzzle and how to write it."""

    name: str
    title: str
    formats: list[str]
    examples: list[JsonValue] = Field(description="one puzzle in each of the formats")
    models: list[str]


Cause = Literal[
    "invalid",
    "not_found",
    "too_large",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "overloaded",
    "deadline",
    "slow_client",
    "no_engine",
    "out_of_memory",
    "stopping",
    "internal",
]
"""Why a request is not answered: what the metrics count errors by."""


class FieldProblem(BaseModel):
    """One thing wrong in a request."""

    place: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []
    cause: Cause = Field(description="the kind of error, for programs")
    request_id: str | None = Field(default_factory=request_id, description="as X-Request-ID of the answer, and in the log")
