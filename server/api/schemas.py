"""What the API says of models, tasks and errors, as the OpenAPI document shows it. Sampling has its own room."""

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
)

from gram.server.causes import Cause
from gram.server.logs import request_id
from gram.server.sampling.answers import Board


class DrawnPuzzle(BaseModel):
    """A puzzle from a task's held-out sets."""

    task: str
    seed: int
    puzzle: Board


class ModelInfo(BaseModel):
    """A loaded checkpoint."""

    name: str
    task: str
    status: Literal["serving", "out_of_rotation"] = Field(
        description="out_of_rotation: engines died of it repeatedly, or its files have changed; its requests get 503"
    )
    solves: bool = Field(description="whether POST /v1/solve may name it")
    generates: bool = Field(description="whether POST /v1/generate may name it")
    config: dict[str, JsonValue]
    evaluation: JsonValue = Field(
        description="the figures that `gram eval` measured on held-out puzzles and from the empty input; null if there are none"
    )


class LoadRequest(BaseModel):
    """The checkpoint to load."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        description="the name of its folder in the server's --models-root", json_schema_extra={"example": "nqueens-8"}
    )


class TaskInfo(BaseModel):
    """A kind of puzzle, and how to write it."""

    name: str
    title: str
    formats: list[str]
    examples: list[JsonValue] = Field(description="one puzzle, in each of the formats")
    models: list[str]


class FieldProblem(BaseModel):
    """One fault in a request: where it is, and what is wrong."""

    place: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []
    cause: Cause = Field(description="the kind of the error, for programs")
    request_id: str | None = Field(default_factory=request_id, description="the answer's X-Request-ID, also in the log")
