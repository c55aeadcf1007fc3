"""From trajectories to a ranked answer: checking, voting, ranking and the early stop. Without torch and HTTP."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gram.models.tasks import Task, Tokens
from gram.server.engine.messages import Trajectory

Select = Literal["lprm", "majority"]
Stop = Literal["all", "first_valid"] | float


@dataclass(frozen=True)
class Outcome:
    """A finished trajectory, decoded and checked."""

    trajectory: int
    steps: int
    score: float
    tokens: Tokens
    valid: bool


def answer_of(task: Task, answer: bytes) -> Tokens:
    """The engine's answer, a byte for each symbol, in the form that all of the same meaning share."""
    return task.canonical(np.frombuffer(answer, np.uint8).astype(np.int64))


@dataclass
class Candidate:
    """A distinct answer: the best-scored of the trajectories that gave it (the first of equals), and how many did."""

    best: Outcome
    votes: int = 1

    def add(self, outcome: Outcome) -> None:
        """Another trajectory gave this answer. The order in which they come does not matter."""
        self.votes += 1
        if (-outcome.score, outcome.trajectory) < (-self.best.score, self.best.trajectory):
            self.best = outcome


@dataclass
class Collector:
    """Takes a request's trajectories as they finish and says when enough is known.

    An early stop must not depend on which trajectory happens to finish first, or the answer would depend on the load.
    So with one the trajectories count in the order of their index: the request ends with the lowest-numbered one that
    satisfies it, and those after it are left out though they may have finished.
    """

    task: Task
    puzzle: Tokens
    num_trajectories: int
    stop: Stop = "all"
    done: bool = False
    steps_run: int = 0
    dropped: list[int] = field(default_factory=list)
    pruned: int = 0
    complete: bool = True
    _candidates: dict[bytes, Candidate] = field(default_factory=dict)
    _counted: int = 0
    _early: dict[int, Trajectory] = field(default_factory=dict)

    def add(self, trajectory: Trajectory) -> list[Outcome]:
        """Take a finished trajectory; returns the outcomes that now count, dropped and pruned ones left out."""
        if self.stop == "all":
            return self._count_all([trajectory])
        self._early[trajectory.index] = trajectory
        ready: list[Trajectory] = []
        while (following := self._counted + len(ready)) in self._early:
            ready.append(self._early.pop(following))
        return self._count_all(ready)

    def cut_off(self) -> list[Outcome]:
        """The time is over: those that finished count, though some before them did not; returns the outcomes that count now."""
        self.complete = False
        return self._count_all([self._early[index] for index in sorted(self._early)])

    def ranked(self, select: Select, top: int | None) -> list[Candidate]:
        """The distinct answers, best first: by the LPRM's score, or by votes; the other and the index break ties."""

        def by_score(c: Candidate) -> tuple[float, float, int]:
            return -c.best.score, -c.votes, c.best.trajectory

        def by_votes(c: Candidate) -> tuple[float, float, int]:
            return -c.votes, -c.best.score, c.best.trajectory

        return sorted(self._candidates.values(), key=by_score if select == "lprm" else by_votes)[:top]

    @property
    def counted(self) -> int:
        """Trajectories that ended and count, dropped and pruned ones included."""
        return self._counted

    @property
    def distinct_valid(self) -> int:
        return sum(candidate.best.valid for candidate in self._candidates.values())

    def _count_all(self, ready: list[Trajectory]) -> list[Outcome]:
        outcomes = []
        for ended in ready:
            if self.done:
                break
            outcome = self._count(ended)
            if outcome:
                outcomes.append(outcome)
                self.done = self._satisfies(outcome)
            self.done |= self._counted == self.num_trajectories
        return outcomes

    def _count(self, ended: Trajectory) -> Outcome | None:
        self._counted += 1
        self.steps_run += ended.steps
        if ended.pruned:
            self.pruned += 1
            return None
        if ended.answer is None:
            self.dropped.append(ended.index)
            return None
        tokens = answer_of(self.task, ended.answer)
        answer = tokens.tobytes()
        known = self._candidates.get(answer)
        valid = known.best.valid if known else self.task.check(self.puzzle, tokens)
        outcome = Outcome(ended.index, ended.steps, ended.score, tokens, valid)
        if known:
            known.add(outcome)
        else:
            self._candidates[answer] = Candidate(outcome)
        return outcome

    def _satisfies(self, outcome: Outcome) -> bool:
        if self.stop == "first_valid":
            return outcome.valid
        return isinstance(self.stop, float) and outcome.score >= self.stop
