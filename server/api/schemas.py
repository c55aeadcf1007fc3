"""Requests and responses, as the OpenAPI document shows them."""

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
    """A puzzle of a task's test sets."""

    task: str
    seed: int
    puzzle: Board


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
