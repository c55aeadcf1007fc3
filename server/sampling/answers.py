"""What a client gets: the events of a stream, and the ranked answers."""

from typing import Annotated, Self

from pydantic import BaseModel, Field

from gram.models.tasks import MOST_COUNTED, Grid, Task, Tokens
from gram.server.engine.messages import Step, Trajectory
from gram.server.sampling.collector import Candidate, Collector, answer_of
from gram.server.sampling.options import Options

ModelName = Annotated[str, Field(description="the model that answers")]
TaskName = Annotated[str, Field(description="the model's task")]
Seed = Annotated[int, Field(description="the seed of the run: with it, the same request gives the same answer")]
Index = Annotated[int, Field(description="the trajectory's number in the request, from 0")]
Steps = Annotated[int, Field(description="the supervision steps that the trajectory has made")]
Score = Annotated[float, Field(description="the reward model's score of the answer, from 0 to 1")]


class Board(BaseModel):
    """A puzzle or an answer, as text and as numbers."""

    text: str = Field(description="as people write it; a puzzle may be sent to the server in this form")
    grid: Grid = Field(description="the same as numbers")

    @classmethod
    def of(cls, task: Task, tokens: Tokens) -> Self:
        return cls(text=task.text(tokens), grid=task.grid(tokens))


Asked = Annotated[Board, Field(description="the puzzle as the server read it; of POST /v1/generate, the task's empty input")]


class StartEvent(BaseModel):
    """How the server understood the request: the first event of a stream with `stream_steps`."""

    model: ModelName
    task: TaskName
    puzzle: Asked
    seed: Seed
    num_trajectories: int = Field(description="K, the number of trajectories to sample")
    max_steps: int = Field(description="the supervision steps after which a trajectory ends if it has not halted")

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
    """A trajectory on its way: what it would answer after these steps, and the reward model's score of that."""

    trajectory: Index
    steps: Steps
    score: Score

    @classmethod
    def of_step(cls, task: Task, puzzle: Tokens, step: Step) -> Self:
        board = Board.of(task, answer_of(task, puzzle, step.answer))
        return cls(**dict(board), trajectory=step.index, steps=step.steps, score=step.score)


class PrunedEvent(BaseModel):
    """A trajectory that `guidance` ended. It is sent with `stream_steps`."""

    trajectory: Index
    steps: Steps


class TrajectoryEvent(Board):
    """A trajectory that ended with an answer, as a stream sends it."""

    trajectory: Index
    steps: Steps
    score: Score
    valid: bool | None = Field(
        description="whether the task's exact checker finds the answer valid; null if the task has no checker"
    )

    @classmethod
    def of_trajectory(cls, task: Task, trajectory: Trajectory, candidate: Candidate) -> "TrajectoryEvent":
        """The event of a trajectory that gave a candidate's answer."""
        board = Board.of(task, candidate.answer)
        return TrajectoryEvent(
            text=board.text,
            grid=board.grid,
            trajectory=trajectory.index,
            steps=trajectory.steps,
            score=trajectory.score,
            valid=candidate.valid,
        )


class RankedCandidate(TrajectoryEvent):
    """A distinct answer. Trajectory, steps and score are those of the best-scored trajectory that gave it."""

    votes: int = Field(description="the number of trajectories that gave this answer")

    @classmethod
    def of_candidate(cls, task: Task, candidate: Candidate) -> Self:
        """The candidate as a client gets it."""
        event = TrajectoryEvent.of_trajectory(task, candidate.best, candidate)
        return cls(**dict(event), votes=candidate.votes)


class SolveResponse(BaseModel):
    """The ranked answers to a request."""

    model: ModelName
    task: TaskName
    puzzle: Asked
    seed: Seed
    candidates: list[RankedCandidate] = Field(description="the distinct answers, the best first, ranked as `select` says")
    complete: bool = Field(description="false if a deadline came before all trajectories had ended; another run may give more")
    trajectories: int = Field(
        description="the trajectories that ended and count: num_trajectories, or fewer after an early stop or a deadline"
    )
    dropped: list[int] = Field(description="the trajectories whose state became infinite or NaN; they give no candidate")
    pruned: int = Field(description="the number of trajectories that `guidance` ended; they give no candidate")
    distinct_valid: int | None = Field(
        description="the number of distinct answers that the checker finds valid; null if the task has no checker"
    )
    solutions: int | None = Field(
        None,
        description=f"how many solutions the puzzle has; {MOST_COUNTED} means as many or more; null if counting "
        "took too long, or nothing counts them",
    )
    steps_run: int = Field(description="the supervision steps of the trajectories that count")
    queue_ms: float = Field(description="milliseconds until the first trajectory got a slot")
    compute_ms: float = Field(description="milliseconds from then to the last trajectory")

    @classmethod
    def of(cls, model: str, collector: Collector, seed: int, options: Options, queue: float, compute: float) -> Self:
        """The answer from what a collector has collected; queue and compute are in seconds."""
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
            solutions=collector.solutions,
            steps_run=collector.steps_run,
            queue_ms=round(queue * 1e3, 3),
            compute_ms=round(compute * 1e3, 3),
        )


Event = StartEvent | StepEvent | PrunedEvent | TrajectoryEvent | SolveResponse
"""What a stream sends. The SolveResponse is the last."""

EVENTS: dict[str, type[Event]] = {
    "start": StartEvent,
    "step": StepEvent,
    "pruned": PrunedEvent,
    "trajectory": TrajectoryEvent,
    "result": SolveResponse,
}
"""The events by the names that a stream gives them."""
