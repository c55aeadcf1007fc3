"""From trajectories to a ranked answer: checking, voting, ranking and the early stop, without torch and HTTP."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gram.models.tasks import MOST_COUNTED, Task, Tokens
from gram.server.engine.messages import Ending, Trajectory

Select = Literal["checked", "lprm", "majority"]
"""Rank valid answers before wrong ones, and either by the LPRM's score; or all by the score alone, or by votes."""

StopAt = Literal["all", "first_valid", "all_solutions"]
Stop = StopAt | float
"""Run all trajectories; or stop at the first one that is valid, at the one that brings the last solution, or at the first one
whose score reaches a number."""


def answer_of(task: Task, puzzle: Tokens, answer: bytes) -> Tokens:
    """The engine's answer to a puzzle [N], one byte a symbol, in the form [N] that all answers with the same meaning share.

    Given cells stay as they are: what the model makes of them is no part of its answer.
    """
    return task.canonical(np.where(task.given(puzzle), puzzle, np.frombuffer(answer, np.uint8).astype(np.int64)))


@dataclass
class Candidate:
    """A distinct answer [N], the checker's verdict, the best trajectory that gave it, and how many gave it.

    `valid` is None if the task has no checker.

    The best trajectory has the highest score and, among equal scores, the lowest index.
    """

    answer: Tokens
    valid: bool | None
    best: Trajectory
    votes: int = 1

    def add(self, trajectory: Trajectory) -> None:
        """Count another trajectory that gave this answer. The order of these calls does not matter."""
        self.votes += 1
        if (-trajectory.score, trajectory.index) < (-self.best.score, self.best.index):
            self.best = trajectory


@dataclass
class Collector:
    """Takes a request's trajectories as they end, and says when enough is known.

    An early stop must not depend on which trajectory happens to end first, or the answer would depend on the load. So with an
    early stop, trajectories count in the order of their index: the request ends with the lowest-numbered trajectory that meets
    its condition, and later ones do not count even if they have ended.
    """

    task: Task
    puzzle: Tokens
    num_trajectories: int
    stop: Stop = "all"
    solutions: int | None = None
    """How many solutions the puzzle has (see `Task.count_solutions`)."""
    done: bool = False
    complete: bool = True
    """Whether no deadline cut the request short."""
    counted: int = 0
    """The number of trajectories that ended and count, including dropped and pruned ones."""
    steps_run: int = 0
    dropped: list[int] = field(default_factory=list)
    """The indices of trajectories whose state was not finite."""
    pruned: int = 0
    _candidates: dict[bytes, Candidate] = field(default_factory=dict)
    _early: dict[int, Trajectory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Solutions are counted up to MOST_COUNTED. If their number is unknown, or above K, not all of them can be found.
        if self.stop == "all_solutions" and not 0 < (self.solutions or 0) <= min(MOST_COUNTED - 1, self.num_trajectories):
            self.stop = "all"

    def add(self, trajectory: Trajectory) -> list[tuple[Trajectory, Candidate]]:
        """Take a trajectory that ended. Return those that now count and gave an answer, each with its candidate."""
        if self.stop == "all":
            return self._count_all([trajectory])
        self._early[trajectory.index] = trajectory
        ready: list[Trajectory] = []
        while (following := self.counted + len(ready)) in self._early:
            ready.append(self._early.pop(following))
        return self._count_all(ready)

    def cut_off(self) -> list[tuple[Trajectory, Candidate]]:
        """At the deadline, count all trajectories that ended, even if earlier ones did not. Return those that now count."""
        self.complete = False
        return self._count_all([self._early[index] for index in sorted(self._early)])

    def ranked(self, select: Select, top: int | None) -> list[Candidate]:
        """The best `top` candidates (None: all). Of score and votes the other, then the index, breaks ties."""

        def rank(c: Candidate) -> tuple[bool, float, float, int]:
            last = select == "checked" and c.valid is False
            figures = (-c.votes, -c.best.score) if select == "majority" else (-c.best.score, -c.votes)
            return last, *figures, c.best.index

        return sorted(self._candidates.values(), key=rank)[:top]

    @property
    def distinct_valid(self) -> int | None:
        """The number of distinct valid answers; None if the task has no checker."""
        return sum(bool(candidate.valid) for candidate in self._candidates.values()) if self.task.checked else None

    def _count_all(self, ready: list[Trajectory]) -> list[tuple[Trajectory, Candidate]]:
        answered = []
        for trajectory in ready:
            if self.done:
                break
            if candidate := self._count(trajectory):
                answered.append((trajectory, candidate))
                self.done = self._is_enough(trajectory, candidate)
            self.done |= self.counted == self.num_trajectories
        return answered

    def _count(self, trajectory: Trajectory) -> Candidate | None:
        self.counted += 1
        self.steps_run += trajectory.steps
        match trajectory.ending:
            case Ending.PRUNED:
                self.pruned += 1
                return None
            case Ending.NOT_FINITE:
                self.dropped.append(trajectory.index)
                return None
        assert trajectory.answer is not None, "a trajectory that halted or made its last step has an answer"
        answer = answer_of(self.task, self.puzzle, trajectory.answer)
        if candidate := self._candidates.get(answer.tobytes()):
            candidate.add(trajectory)
        else:
            valid = self.task.check(self.puzzle, answer) if self.task.checked else None
            candidate = Candidate(answer, valid, trajectory)
            self._candidates[answer.tobytes()] = candidate
        return candidate

    def _is_enough(self, trajectory: Trajectory, candidate: Candidate) -> bool:
        if self.stop == "first_valid":
            return bool(candidate.valid)
        if self.stop == "all_solutions":
            return bool(candidate.valid) and candidate.votes == 1 and self.distinct_valid == self.solutions
        return isinstance(self.stop, float) and trajectory.score >= self.stop
