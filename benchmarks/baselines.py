"""Compare GRAM with the deterministic models that it grew out of, and with itself trained without one of its parts.

All are measured on the same held-out puzzles. This reproduces the paper's Tables 1 and 3.
"""

import argparse
from pathlib import Path

import torch

from gram.models.config import WEIGHTS_FILE, ZOO, read_config
from gram.models.evaluation.records import Evaluation
from gram.models.evaluation.scores import Conditions, evaluate, judge
from gram.models.markdown import table
from gram.models.network import GRAM
from gram.models.tasks import TASKS
from gram.models.training.recipe import load_training_config
from gram.server.engine.engine import Engine
from gram.server.evaluation.evaluate import draw_without_halting, spread
from gram.server.settings import EngineSettings

BASELINES = ZOO.parent / "baselines"
_TASKS = ("nqueens-8", "coloring-8", "sudoku-9x9", "maze-8x8")
_KINDS = {
    "gram": "GRAM",
    "trm": "TRM",
    "hrm": "HRM",
    "looped": "Looped Transformer",
    "noise-only": "GRAM trained with mu = 0",
    "mean-only": "GRAM trained with sigma = exp(-8)",
    "posterior-only": "GRAM trained without prior states",
    "zoo": "GRAM as bundled",
}
_FIGURES = ("single", "lprm", "majority", "any", "coverage", "coverage_limit")
_DEPTH = 16


def checkpoint(task: str, kind: str) -> Path:
    """Return the folder of a task's checkpoint of one kind. A task without a GRAM for this comparison uses the bundled one."""
    folder = BASELINES / f"{task}-{kind}"
    return ZOO / task if kind == "zoo" or (kind == "gram" and not folder.exists()) else folder


def measure(folder: Path, samples: int, limit: int | None, *, symmetries: bool) -> tuple[int, list[Evaluation]]:
    """Return the number of parameters and one evaluation for each test set, of trajectories of equal depth.

    The comparison ignores halting. Without symmetries all trajectories of a deterministic model are the same, so one is
    enough.
    """
    config = read_config(folder)
    task = TASKS[config.task]
    (lane,) = Engine(EngineSettings(model=[folder])).lanes.values()
    count = samples if symmetries or config.model.guidance != "none" else 1
    evaluations = []
    for name, test_set in task.test_sets.items():
        conditions = Conditions(name, temperature=1.0, max_steps=_DEPTH, seed=0, symmetries=symmetries)
        puzzles = spread(test_set, limit)
        drawn = draw_without_halting(lane, task, conditions, puzzles, count)[_DEPTH]
        evaluations.append(evaluate(judge(task, conditions, puzzles, drawn)))
    with torch.device("meta"):
        network = GRAM(config.model, posterior=False)
    return sum(p.numel() for p in network.parameters()), evaluations


def main() -> None:
    """Print a table of all checkpoints that exist."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=_TASKS, default=_TASKS, help="default: all")
    parser.add_argument("--samples", type=int, default=20, help="trajectories per puzzle; default: %(default)s")
    parser.add_argument("--puzzles", type=int, help="use PUZZLES of each test set, spread evenly; default: all")
    parser.add_argument("--symmetries", action="store_true", help="show each trajectory another image of the puzzle")
    arguments = parser.parse_args()
    rows = []
    for task in arguments.tasks:
        for kind, title in _KINDS.items():
            folder = checkpoint(task, kind)
            if not folder.exists() or (kind == "zoo" and folder == checkpoint(task, "gram")):
                continue
            updates = str(load_training_config(folder / "train.toml").updates)
            if not (folder / WEIGHTS_FILE).exists():
                rows.append([task, title, updates, "not trained", *[""] * (2 + len(_FIGURES))])
                continue
            parameters, evaluations = measure(folder, arguments.samples, arguments.puzzles, symmetries=arguments.symmetries)
            for e in evaluations:
                shares = [f"{getattr(e, figure):.1%}" for figure in _FIGURES]
                conflicts = f"{e.conflicts:,}"
                rows.append([task, title, updates, f"{e.puzzles} {e.test_set}", f"{parameters:,}", *shares, conflicts])
    print(table(["task", "model", "updates", "puzzles", "parameters", *_FIGURES, "conflicts"], rows))


if __name__ == "__main__":
    main()
