"""The scores of a checkpoint.

On held-out puzzles: accuracy, coverage, and how well the LPRM tells right from wrong. From the empty input: how many boards are
valid, and how evenly they are spread over all boards that exist.
"""

import re
from dataclasses import asdict, dataclass, replace
from math import exp, inf, lgamma, log, log1p
from statistics import fmean
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gram.models.evaluation.records import Evaluation, Generation, Stratum
from gram.models.tasks import MOST_COUNTED, Task, Tokens, cell_entropy
from gram.models.temperature import Temperature

WIDTHS = (1, 2, 5, 10, 20)
"""The numbers of trajectories per puzzle, K, at which curves are drawn."""


@dataclass(frozen=True)
class Sample:
    """One trajectory's answer [N] in its canonical form, its LPRM score and the supervision steps it took."""

    answer: Tokens
    score: float
    steps: int


@dataclass(frozen=True)
class Conditions:
    """How samples were drawn. Puzzle i of the test set has seed + i."""

    test_set: str
    temperature: Temperature
    max_steps: int
    seed: int
    symmetries: bool = True


@dataclass(frozen=True)
class Judged:
    """The exact checker's word on K samples of each of n puzzles. Arrays are [n, K], samples in the order of their index."""

    conditions: Conditions
    solutions: NDArray[np.float64]
    """The number of solutions of each puzzle [n]; infinite for those with too many to count."""
    valid: NDArray[np.bool_]
    conflicts: NDArray[np.int64]
    score: NDArray[np.float64]
    steps: NDArray[np.int64]
    first: NDArray[np.int64]
    """The place of the puzzle's first sample with the same answer, which stands for all of them."""

    def take(self, puzzles: NDArray[np.bool_] | slice, samples: int | None = None) -> Self:
        """Select puzzles, and the first samples of each."""
        arrays = {name: getattr(self, name)[puzzles, :samples] for name in ("valid", "conflicts", "score", "steps", "first")}
        return replace(self, solutions=self.solutions[puzzles], **arrays)


def judge(task: Task, conditions: Conditions, puzzles: Tokens, samples: list[list[Sample]]) -> Judged:
    """Check the samples of each puzzle [n, N], each distinct answer once. All puzzles have equally many samples."""
    first, valid, conflicts = [], [], []
    for puzzle, row in zip(puzzles, samples, strict=True):
        places = _first_of_each(row)
        distinct = {i: row[i].answer for i in places}
        checked = {i: task.check(puzzle, answer) for i, answer in distinct.items()}
        counted = {i: task.conflicts(puzzle, answer) for i, answer in distinct.items()}
        first.append(places)
        valid.append([checked[i] for i in places])
        conflicts.append([counted[i] for i in places])
    return Judged(
        conditions,
        solutions=np.array([_solutions(task, puzzle) for puzzle in puzzles]),
        valid=np.array(valid),
        conflicts=np.array(conflicts),
        score=np.array([[sample.score for sample in row] for row in samples]),
        steps=np.array([[sample.steps for sample in row] for row in samples]),
        first=np.array(first),
    )


def evaluate(judged: Judged) -> Evaluation:
    """The evaluation of all judged puzzles and samples."""
    puzzles, samples = judged.valid.shape
    rows = np.arange(puzzles)
    chosen = judged.score.argmax(1)
    place = np.arange(samples)
    frequent = np.sum(judged.first[:, :, None] == place, axis=1).argmax(1)  # of equally frequent answers, the earliest
    found = np.sum(judged.valid & (judged.first == place), axis=1)
    counted = np.isfinite(judged.solutions)
    return Evaluation(
        **asdict(judged.conditions),
        puzzles=puzzles,
        samples=samples,
        single=float(judged.valid.mean()),
        lprm=float(judged.valid[rows, chosen].mean()),
        majority=float(judged.valid[rows, frequent].mean()),
        any=float(judged.valid.any(1).mean()),
        coverage=fmean(found[counted] / judged.solutions[counted]) if counted.any() else None,
        distinct_valid=float(found.mean()),
        conflicts=int(judged.conflicts[rows, chosen].sum()),
        coverage_limit=fmean(1 - (1 - 1 / judged.solutions[counted]) ** samples) if counted.any() else None,
        auroc=auroc(judged.score.ravel(), judged.valid.ravel()),
        mean_steps=float(judged.steps.mean()),
    )


def evaluate_widths(judged: Judged) -> list[Evaluation]:
    """Evaluate the first K samples of each puzzle, for each width K that has enough samples."""
    return [evaluate(judged.take(slice(None), width)) for width in WIDTHS if width <= judged.valid.shape[1]]


def evaluate_traits(task: Task, puzzles: Tokens, judged: Judged) -> list[Stratum]:
    """Evaluate the puzzles [n, N] of each band of each trait of the task, in the order of the bands' numbers."""
    strata = [task.strata(puzzle) for puzzle in puzzles]
    evaluations = []
    for trait in strata[0]:
        bands = np.array([traits[trait] for traits in strata])
        for band in sorted(set(bands.tolist()), key=lambda band: int(re.split(r"\D", band)[0])):
            figures = evaluate(judged.take(bands == band))
            evaluations.append(Stratum(trait=trait, band=band, **figures.model_dump()))
    return evaluations


def evaluate_boards(task: Task, conditions: Conditions, samples: list[Sample]) -> Generation:
    """Evaluate samples of the empty input, for a task that has one."""
    assert task.blank is not None
    judged = judge(task, conditions, task.blank[None], [samples])
    valid, first = judged.valid[0], judged.first[0]
    boards = np.stack([sample.answer for sample in samples])[valid]
    _, counts = np.unique(first[valid], return_counts=True)
    reachable = None if task.boards is None else len(task.boards)
    spread_over = reachable if len(boards) else None
    return Generation(
        temperature=conditions.temperature,
        max_steps=conditions.max_steps,
        seed=conditions.seed,
        symmetries=conditions.symmetries,
        samples=len(samples),
        valid=float(valid.mean()),
        distinct=len(counts),
        reachable=reachable,
        total_variation=None if spread_over is None else total_variation(counts, spread_over),
        total_variation_limit=None if spread_over is None else uniform_total_variation(len(boards), spread_over),
        entropy=cell_entropy(boards) if len(boards) else None,
        entropy_limit=task.board_entropy,
        auroc=auroc(judged.score[0], valid),
        mean_steps=float(judged.steps.mean()),
    )


def total_variation(counts: NDArray[np.int64], outcomes: int) -> float:
    """The distance of draws from uniform, in [0, 1]: half the sum of the differences in probability.

    `counts`: how often each outcome was drawn. Outcomes that were never drawn may be left out.
    """
    never = outcomes - len(counts)
    return float(np.abs(counts / counts.sum() - 1 / outcomes).sum() + never / outcomes) / 2


def uniform_total_variation(draws: int, outcomes: int) -> float:
    """The mean `total_variation` of uniform draws from two outcomes or more.

    It is exact: each outcome's count is binomial, and de Moivre's formula gives its mean absolute deviation,
    E|X - np| = 2 k C(n, k) p^k (1 - p)^(n - k + 1) with k = floor(np) + 1.
    """
    k = draws // outcomes + 1
    ways = lgamma(draws + 1) - lgamma(k + 1) - lgamma(draws - k + 1)
    return k * outcomes / draws * exp(ways - k * log(outcomes) + (draws - k + 1) * log1p(-1 / outcomes))


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive scores above a negative, with ties counting half; None without both kinds."""
    positives, negatives = scores[positive], np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.mean() / (2 * len(negatives)))


def _solutions(task: Task, puzzle: Tokens) -> float:
    """The number of solutions of a puzzle [N], infinite if they are too many to count."""
    listed = len(task.solutions(puzzle))
    return inf if listed == MOST_COUNTED and not task.lists_solutions else listed


def _first_of_each(samples: list[Sample]) -> list[int]:
    """The place of the first sample with the same answer, for each sample."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(sample.answer.tobytes(), i) for i, sample in enumerate(samples)]
