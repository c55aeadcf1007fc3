"""What a client is told of its jobs."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from gram.models.config import Ability
from gram.server.causes import Cause
from gram.server.sampling.answers import ModelName, SolveResponse, TaskName

State = Literal["queued", "running", "done"]


class JobInfo(BaseModel):
    """A job, and how far it is."""

    id: str = Field(description="its name in the other calls")
    state: State = Field(description="queued: no server works on it now; running; or done, when every puzzle has a result")
    waits: str | None = Field(None, description="what a queued job waits for, if not for its turn")
    ability: Ability = Field(description="what it does with its puzzles")
    model: ModelName
    task: TaskName
    seed: int = Field(description="the seed of line 1; line n has this seed + n - 1")
    options: dict[str, JsonValue] = Field(description="the options of each puzzle's request")
    puzzles: int = Field(description="how many it has")
    done: int = Field(description="how many of them have a result")
    failed: int = Field(description="how many of these results are errors")
    created: datetime = Field(description="when it was accepted")
    expires: datetime = Field(description="when it is deleted with its results, unless a server still works on it")
    partial: SolveResponse | None = Field(
        None, description="of a job of one puzzle that runs on the server that is asked: the best candidates so far"
    )


class Fault(BaseModel):
    """Why a puzzle has no answer."""

    status: int = Field(description="the HTTP status that POST /v1/solve would have had")
    detail: str = Field(description="what is wrong, where, and what to do")
    cause: Cause = Field(description="the kind of the error, for programs")


class JobResult(BaseModel):
    """The result of one puzzle of a job: an answer or an error."""

    index: int = Field(description="the puzzle's number in the job, from 0")
    line: int = Field(description="the number of its line in the file, from 1; of an array, of its row")
    answer: SolveResponse | None = Field(None, description="what POST /v1/solve or /v1/generate would have answered")
    error: Fault | None = Field(None, description="or why there is no answer")
