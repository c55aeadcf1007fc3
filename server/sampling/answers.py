"""What a client gets: the events of a stream, and the ranked answers."""

from typing import Self

from pydantic import BaseModel, Field

from gram.models.tasks import Grid, Task, Tokens
from gram.server.engine.messages import Step, Trajectory
from gram.server.sampling.collector import Candidate, Collector, answer_of
from gram.server.sampling.options import Options


class Board(BaseModel):
    """A puzzle or an answer, as text and as numbers."""

    text: str
    grid: Grid

    @classmethod
    def of(cls, task: Task, tokens: Tokens) -> Self:
        return cls(text=task.text(tokens), grid=task.grid(tokens))


class StartEvent(BaseModel):
    """How the server understood the request: the first event of a stream with `stream_steps`."""

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
    """A trajectory on its way: what it would answer after these steps, and the reward model's score of that."""

    trajectory: int
    steps: int
    score: float

    @classmethod
    def of_step(cls, task: Task, step: Step) -> Self:
        return cls(
            **dict(Board.of(task, answer_of(task, step.answer))), trajectory=step.index, steps=step.steps, score=step.score
        )


class PrunedEvent(BaseModel):
    """A trajectory that `guidance` ended. It is sent with `stream_steps`."""

    trajectory: int
    steps: int


class TrajectoryEvent(Board):
    """A trajectory that ended, as a stream sends it. `valid` is the checker's word, `score` the reward model's."""

    trajectory: int
    steps: int
    score: float
    valid: bool

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

    model: str
    task: str
    puzzle: Board
    seed: int
    candidates: list[RankedCandidate]
    complete: bool = Field(description="false if a deadline came before all trajectories had ended; another run may give more")
    trajectories: int = Field(
        description="the trajectories that ended and count: num_trajectories, or fewer after an early stop or a deadline"
    )
    dropped: list[int] = Field(description="the trajectories whose state became infinite or NaN; they give no candidate")
    pruned: int = Field(description="the number of trajectories that `guidance` ended; they give no candidate")
    distinct_valid: int = Field(description="the number of distinct answers that the checker finds valid")
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
