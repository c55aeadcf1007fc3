"""What a checkpoint is worth on held-out puzzles: accuracy, coverage and how well the LPRM tells right from wrong."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.tasks import Task, Tokens


@dataclass(frozen=True)
class Sample:
    """One trajectory's answer [N], its LPRM score and the supervision steps it took."""

    answer: Tokens
    score: float
    steps: int


class Evaluation(BaseModel):
    """Means over the puzzles, each with `samples` trajectories. Shares are in [0, 1]."""

    model_config = ConfigDict(extra="forbid")

    test_set: str
    puzzles: int
    samples: int
    temperature: float
    max_steps: int
    seed: int
    single: float = Field(description="a single trajectory is valid")
    lprm: float = Field(description="the trajectory that the LPRM scores highest is valid")
    majority: float = Field(description="the most frequent answer is valid")
    any: float = Field(description="at least one trajectory is valid")
    coverage: float = Field(description="distinct valid answers found, of all valid ones")
    conflicts: int = Field(description="broken constraints in the LPRM's choices, of all puzzles together (colouring: edges)")
    coverage_limit: float = Field(description="the same for as many draws uniform over the valid answers")
    auroc: float | None = Field(description="of the LPRM's score for validity, over all trajectories; null if all are alike")
    mean_steps: float = Field(description="supervision steps to the halt")


def evaluate(
    task: Task,
    test_set: str,
    puzzles: Tokens,
    samples: list[list[Sample]],
    *,
    temperature: float,
    max_steps: int,
    seed: int,
) -> Evaluation:
    """Judge the samples of each puzzle [n, N] by the task's exact checker. All puzzles have equally many samples."""
    count = len(samples[0])
    valid = np.array([[task.check(p, s.answer) for s in row] for p, row in zip(puzzles, samples, strict=True)])
    scores = np.array([[s.score for s in row] for row in samples])
    chosen = scores.argmax(1)
    conflicts = sum(task.conflicts(p, row[i].answer) for p, row, i in zip(puzzles, samples, chosen, strict=True))
    majority, coverage, limit = [], [], []
    for puzzle, row, ok in zip(puzzles, samples, valid, strict=True):
        votes = Counter(s.answer.tobytes() for s in row)
        frequent = np.frombuffer(votes.most_common(1)[0][0], row[0].answer.dtype)
        majority.append(task.check(puzzle, frequent))
        solutions = len(task.solutions(puzzle))
        coverage.append(len({s.answer.tobytes() for s, good in zip(row, ok, strict=True) if good}) / solutions)
        limit.append(1 - (1 - 1 / solutions) ** count)
    return Evaluation(
        test_set=test_set,
        puzzles=len(puzzles),
        samples=count,
        temperature=temperature,
        max_steps=max_steps,
        seed=seed,
        single=float(valid.mean()),
        lprm=float(valid[np.arange(len(puzzles)), chosen].mean()),
        majority=fmean(majority),
        any=float(valid.any(1).mean()),
        coverage=fmean(coverage),
        conflicts=conflicts,
        coverage_limit=fmean(limit),
        auroc=auroc(scores.ravel(), valid.ravel()),
        mean_steps=fmean(s.steps for row in samples for s in row),
    )


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The chance that a positive scores above a negative, ties counting half; None without both kinds."""
    positives, negatives = scores[positive], np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.mean() / (2 * len(negatives)))
