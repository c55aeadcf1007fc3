"""How a checkpoint answers puzzles, whose right answers may be known. They may be very many: nothing is kept of each."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from gram.models.data_sets import UNSCORED
from gram.models.tasks import Tokens
from gram.server.engine.engine import Engine
from gram.server.evaluation.case import Case
from gram.server.local import Question, collect
from gram.server.sampling.collector import Candidate, Collector
from gram.server.sampling.options import Options


@dataclass
class Shares:
    """Of so many puzzles, the sums of what share of the trajectories is right, whether the choice is, and whether any is."""

    puzzles: int = 0
    single: float = 0.0
    chosen: float = 0.0
    any: float = 0.0

    def add(self, ranked: list[Candidate], right: list[bool], trajectories: int) -> None:
        """Count a puzzle, by its candidates in the order of their rank."""
        self.puzzles += 1
        self.single += sum(c.votes for c, is_right in zip(ranked, right, strict=True) if is_right) / trajectories
        self.chosen += bool(right) and right[0]
        self.any += any(right)

    def merge(self, other: "Shares") -> None:
        """Count the puzzles of others, too."""
        self.puzzles += other.puzzles
        self.single += other.single
        self.chosen += other.chosen
        self.any += other.any


@dataclass
class Measured:
    """What was measured under some options. `exact`: answers that equal the known one. `valid`: those the checker accepts."""

    options: Options
    exact: Shares = field(default_factory=Shares)
    valid: Shares = field(default_factory=Shares)
    by_rating: dict[float, Shares] = field(default_factory=lambda: defaultdict(Shares))
    """By rating to three digits: exact if answers are known, else valid."""
    puzzles: int = 0
    steps: int = 0
    seconds: float = 0.0

    @property
    def mean_steps(self) -> float:
        """The supervision steps of a trajectory."""
        return self.steps / (self.puzzles * self.options.num_trajectories)

    @property
    def saved(self) -> float:
        """The share of the steps that halting saved."""
        return 1 - self.mean_steps / self.options.max_steps

    @property
    def rate(self) -> float:
        """Puzzles per second, reading included."""
        return self.puzzles / self.seconds

    def add(self, case: Case, collector: Collector) -> None:
        """Count a puzzle whose trajectories have all ended."""
        self.puzzles += 1
        self.steps += collector.steps_run
        ranked = collector.ranked("lprm", None)
        verdicts: list[tuple[Shares, list[bool]]] = []
        if case.answer is not None:
            verdicts.append((self.exact, [_equals(case, candidate.answer) for candidate in ranked]))
        if case.task.checked:
            verdicts.append((self.valid, [bool(candidate.valid) for candidate in ranked]))
        if verdicts and case.rating is not None:
            verdicts.append((self.by_rating[float(f"{case.rating:.3g}")], verdicts[0][1]))
        for shares, right in verdicts:
            shares.add(ranked, right, collector.num_trajectories)


def _equals(case: Case, answer: Tokens) -> bool:
    assert case.answer is not None
    return bool(np.all((answer == case.answer) | (case.answer == UNSCORED)))


def measure(engine: Engine, cases: Iterable[Case], count: int, options: Options, title: str) -> Measured:
    """Sample each of `count` cases, case number i with seed + i - 1, and count what comes. Shows a progress bar."""
    measured, seed = Measured(options), options.chosen_seed()
    waiting: dict[int, Case] = {}

    def questions() -> Iterator[Question]:
        for case in cases:
            waiting[case.number] = case
            yield Question(case.number, case.task, case.puzzle, None, seed + case.number - 1)

    begun = time.monotonic()
    for number, collector in tqdm(collect(engine, questions(), options), total=count, desc=title, unit="puzzle"):
        measured.add(waiting.pop(number), collector)
    measured.seconds = time.monotonic() - begun
    return measured
