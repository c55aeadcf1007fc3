"""GRAM beside the deterministic models it grew out of, on the same held-out puzzles: the paper's Table 1, on our machine."""

import argparse
from pathlib import Path

from models.config import WEIGHTS_FILE, ZOO, read_config
from models.evaluation import Conditions, Evaluation, evaluate, judge
from models.report import table
from models.tasks import TASKS
from server.engine.loop import Engine
from server.evaluation import draw_without_halting
from server.settings import EngineSettings

BASELINES = ZOO.parent / "baselines"
_TASKS = ("nqueens-8", "coloring-8", "sudoku-9x9")
_KINDS = {"": "GRAM", "-trm": "TRM", "-hrm": "HRM", "-looped": "Looped Transformer"}
_DEPTH = 16


def measure(folder: Path, samples: int, limit: int | None) -> tuple[int, list[Evaluation]]:
    """The number of parameters, and one evaluation for each test set, of trajectories of equal depth.

    Halting is no part of the comparison. The trajectories of a deterministic model are all the same, so one is enough.
    """
    config = read_config(folder)
    task = TASKS[config.task]
    (lane,) = Engine(EngineSettings(model=[folder])).lanes.values()
    count = 1 if config.model.guidance == "none" else samples
    evaluations = []
    for name, test_set in task.test_sets.items():
        conditions = Conditions(name, temperature=1.0, max_steps=_DEPTH, seed=0)
        drawn = draw_without_halting(lane, task, conditions, test_set[:limit], count)[_DEPTH]
        evaluations.append(evaluate(judge(task, conditions, test_set[:limit], drawn)))
    return sum(p.numel() for p in lane.runner.model.parameters()), evaluations


def main() -> None:
    """Print a table of all checkpoints that there are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=_TASKS, default=_TASKS, help="default: all")
    parser.add_argument("--samples", type=int, default=20, help="trajectories per puzzle; default: %(default)s")
    parser.add_argument("--puzzles", type=int, help="only the first of each test set; default: all")
    arguments = parser.parse_args()
    rows = []
    for task in arguments.tasks:
        for suffix, kind in _KINDS.items():
            folder = (BASELINES if suffix else ZOO) / (task + suffix)
            if not (folder / WEIGHTS_FILE).exists():
                rows.append([task, kind, "not trained", *[""] * 6])
                continue
            parameters, evaluations = measure(folder, arguments.samples, arguments.puzzles)
            for e in evaluations:
                shares = [f"{share:.1%}" for share in (e.single, e.lprm, e.coverage, e.coverage_limit)]
                rows.append([task, kind, f"{e.puzzles} {e.test_set}", f"{parameters:,}", str(e.samples), *shares])
    print(table(["task", "model", "puzzles", "parameters", "samples", "single", "lprm", "coverage", "coverage limit"], rows))


if __name__ == "__main__":
    main()
