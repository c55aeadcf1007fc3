"""Measure what pruning by the LPRM is worth: the puzzles solved within equal supervision steps, with it and without it.

Neither a trajectory nor whether it is pruned depends on a later one. So one run of K trajectories for each puzzle contains
the results of every smaller K.
"""

import argparse
import itertools
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

from gram.models.config import read_config
from gram.models.markdown import table
from gram.models.tasks import Task, Tokens, task_of
from gram.models.temperature import temperature_text
from gram.server.catalog import model_name
from gram.server.engine.engine import Engine
from gram.server.engine.messages import Trajectory
from gram.server.local import sample
from gram.server.sampling.collector import Collector
from gram.server.sampling.options import Guidance, Options, Pruning
from gram.server.settings import EngineSettings

_PRUNINGS = (Pruning(), Pruning(keep=0.25, steps=(4,)), Pruning(keep=0.5, steps=(4, 8, 16)))

Choice = Literal["LPRM", "majority", "first valid"]
_CHOICES: tuple[Choice, ...] = ("LPRM", "majority", "first valid")
_CHOICES_OF_PRUNED: tuple[Choice, ...] = ("LPRM", "first valid")


@dataclass(frozen=True)
class Point:
    """A strategy with at most k trajectories a puzzle: supervision steps per puzzle and the share of puzzles solved."""

    strategy: str
    k: int
    steps: float
    solved: float


def measure(folder: Path, puzzles: Tokens, options: Options) -> list[Point]:
    """Return the curves of all strategies on the puzzles [n, N]. Puzzle i is sampled with seed + i."""
    task, engine = task_of(read_config(folder)), Engine(EngineSettings(model=[folder]))
    prunings = [pruning for pruning in _PRUNINGS if pruning.steps[-1] < options.max_steps]  # the others would never prune
    points = curves("none", task, puzzles, sample(engine, puzzles, options, "none"), _CHOICES)
    for pruning in prunings:
        name = f"keep {pruning.keep:g} at {', '.join(map(str, pruning.steps))}"
        guided = options.model_copy(update={"guidance": Guidance(prune=pruning)})
        points += curves(name, task, puzzles, sample(engine, puzzles, guided, name), _CHOICES_OF_PRUNED)
    return points


def curves(
    guidance: str, task: Task, puzzles: Tokens, sampled: list[list[Trajectory]], choices: Collection[Choice]
) -> list[Point]:
    """Return a curve for each choice, given the trajectories of each puzzle in the order of their index."""
    ks = prefix_lengths(len(sampled[0]))
    judged = [dict(_prefixes(task, puzzle, row, ks)) for puzzle, row in zip(puzzles, sampled, strict=True)]
    points = []
    for choice, k in itertools.product(choices, ks):
        steps, solved = zip(*(results[choice, k] for results in judged), strict=True)
        points.append(Point(f"{guidance}: {choice}", k, fmean(steps), fmean(solved)))
    return points


def prefix_lengths(samples: int) -> list[int]:
    """Return 1, 2, 5, 10, 20, 40, ... below the number of samples, and that number."""
    doubling = itertools.takewhile(lambda k: k < samples, (10 << i for i in itertools.count()))
    return [k for k in (1, 2, 5) if k < samples] + [*doubling, samples]


def solved_at(points: list[Point], steps: float) -> float | None:
    """Interpolate the share solved at a number of steps per puzzle, on one strategy's curve. None outside the curve."""
    if not points[0].steps <= steps <= points[-1].steps:
        return None
    return float(np.interp(steps, [p.steps for p in points], [p.solved for p in points]))


def curve_table(points: list[Point]) -> str:
    """Return all points as a Markdown table."""
    rows = [[p.strategy, str(p.k), f"{p.steps:.1f}", f"{p.solved:.1%}"] for p in points]
    return table(["strategy", "K", "steps per puzzle", "solved"], rows)


def comparison_table(points: list[Point]) -> str:
    """Return what each strategy solves with the steps that the first one takes at each K, as a Markdown table."""
    by_strategy = {name: list(curve) for name, curve in itertools.groupby(points, lambda p: p.strategy)}
    budgets = [p.steps for p in next(iter(by_strategy.values()))]
    rows = []
    for name, curve in by_strategy.items():
        shares = [solved_at(curve, budget) for budget in budgets]
        rows.append([name, *("-" if share is None else f"{share:.1%}" for share in shares)])
    return table(["solved at steps per puzzle", *(f"{budget:.1f}" for budget in budgets)], rows)


def _prefixes(
    task: Task, puzzle: Tokens, trajectories: list[Trajectory], ks: Collection[int]
) -> Iterator[tuple[tuple[Choice, int], tuple[int, bool]]]:
    """Yield, for each choice and k, the steps of a puzzle's first k trajectories and whether the chosen answer is valid."""
    every = Collector(task, puzzle, len(trajectories))
    until_valid = Collector(task, puzzle, len(trajectories), stop="first_valid")
    for k, trajectory in enumerate(trajectories, 1):
        every.add(trajectory)
        until_valid.add(trajectory)
        if k in ks:
            # There may be no candidate, since all trajectories may have been dropped.
            yield ("LPRM", k), (every.steps_run, any(c.valid for c in every.ranked("lprm", top=1)))
            yield ("majority", k), (every.steps_run, any(c.valid for c in every.ranked("majority", top=1)))
            yield ("first valid", k), (until_valid.steps_run, bool(until_valid.distinct_valid))


def main() -> None:
    """Print the curves, and what the strategies solve within equal steps."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guidance", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--set", help="test set; default: the task's last")
    parser.add_argument("--puzzles", type=int, help="use only the first PUZZLES of the set; default: all")
    parser.add_argument("--samples", type=int, default=80, help="trajectories per puzzle; default: %(default)s")
    parser.add_argument(
        "--max-steps", type=int, default=16, help="most supervision steps of a trajectory; default: %(default)s"
    )
    parser.add_argument(
        "--temperature", type=json.loads, default=1.0, help="a number, or a list as in the API; default: %(default)s"
    )
    parser.add_argument("--no-symmetries", action="store_true", help="show all trajectories the puzzle itself, not its images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first puzzle; default: %(default)s")
    parser.add_argument("--json", type=Path, help="also write the curves to this file")
    arguments = parser.parse_args()
    test_sets = task_of(read_config(arguments.checkpoint)).test_sets
    name = arguments.set or list(test_sets)[-1]
    if name not in test_sets:
        parser.error(f"--set: the test sets are {', '.join(map(repr, test_sets))}")
    puzzles = test_sets[name][: arguments.puzzles]
    options = Options(
        num_trajectories=arguments.samples,
        max_steps=arguments.max_steps,
        temperature=arguments.temperature,
        symmetries=not arguments.no_symmetries,
        seed=arguments.seed,
    )
    points = measure(arguments.checkpoint, puzzles, options)
    sampling = f"temperature {temperature_text(options.temperature)}, at most {options.max_steps} steps, seed {options.seed}"
    print(f"{model_name(arguments.checkpoint)}, {len(puzzles)} puzzles of {name!r}, {sampling}\n")
    print(curve_table(points), comparison_table(points), sep="\n\n")
    if arguments.json:
        sampled = options.model_dump(include={"num_trajectories", "max_steps", "temperature", "symmetries", "seed"})
        result = {"model": model_name(arguments.checkpoint), "set": name, "puzzles": len(puzzles), **sampled}
        arguments.json.write_text(json.dumps({**result, "points": [asdict(p) for p in points]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
