"""What the API says of models, tasks and errors, as the OpenAPI document shows it. Sampling has its own room."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gram.models.config import Origin
from gram.server.causes import Cause
from gram.server.logs import request_id
from gram.server.sampling.answers import Board


class DrawnPuzzle(BaseModel):
    """A puzzle from a task's held-out sets."""

    task: str = Field(description="the puzzle's task")
    seed: int = Field(description="the seed that gives this puzzle again")
    puzzle: Board = Field(description="the puzzle, whose text may be sent to POST /v1/solve")


class ModelInfo(BaseModel):
    """A loaded checkpoint."""

    name: str = Field(description="the name by which requests choose it")
    task: str = Field(description="the task that it was trained for")
    status: Literal["serving", "out_of_rotation"] = Field(
        description="out_of_rotation: engines died of it repeatedly, or its files have changed; its requests get 503"
    )
    generates: bool = Field(description="whether POST /v1/generate may name it")
    origin: Origin | None = Field(description="where an imported checkpoint came from; null if it was not imported")
    kernels: str | None = Field(
        description="who makes its steps: this project's kernels (AVX-512, Triton step, Triton beside PyTorch's products), "
        "oneDNN or PyTorch; each rounds differently, so only a server with the same one gives the same last bits; null until "
        "an engine is ready"
    )
    config: dict[str, JsonValue] = Field(description="the configuration of the network")
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

    name: str = Field(description="the name by which requests choose it")
    title: str = Field(description="a sentence that explains the task")
    formats: list[str] = Field(description="the accepted spellings of a puzzle, a sentence each")
    examples: list[JsonValue] = Field(description="one puzzle, in each of the formats")
    checked: bool = Field(description="whether an exact checker tells which answers are valid")
    models: list[str] = Field(description="the loaded models of this task")


class FieldProblem(BaseModel):
    """One fault in a request: where it is, and what is wrong."""

    place: str = Field(description="the wrong field, such as guidance.prune.keep, or the wrong place in the body")
    message: str = Field(description="what is wrong there, and what to do")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field("about:blank", description="always the same; `cause` tells the kinds of errors apart")
    title: str = Field(description="the name of the HTTP status")
    status: int = Field(description="the HTTP status; in a stream that has begun, the one that the answer would have had")
    detail: str = Field(description="what is wrong, where, and what to do")
    errors: list[FieldProblem] = Field(
        [], description="the faults in the request, one for each place; empty if the error has no place"
    )
    cause: Cause = Field(description="the kind of the error, for programs")
    request_id: str | None = Field(default_factory=request_id, description="the answer's X-Request-ID, also in the log")
