"""Measure what each part of inference is worth: the same weights without the learned mean, without noise, without halting."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from gram.models.checkpoint import load_checkpoint, save_checkpoint
from gram.models.config import ZOO, read_config
from gram.models.evaluation.records import Evaluation
from gram.models.evaluation.scores import Conditions, evaluate, judge
from gram.models.markdown import table
from gram.models.tasks import task_of
from gram.server.catalog import model_name
from gram.server.engine.engine import Engine
from gram.server.evaluation.evaluate import draw, draw_without_halting
from gram.server.settings import EngineSettings

_DEPTH = 16
_FIGURES = ("single", "lprm", "majority", "any", "coverage")


def measure(folder: Path, samples: int, limit: int | None) -> dict[str, Evaluation]:
    """Evaluate each ablation on the task's first test set. Puzzle i is sampled with seed i."""
    task = task_of(read_config(folder))
    name, puzzles = next(iter(task.test_sets.items()))
    puzzles = puzzles[:limit]
    engine = Engine(EngineSettings(model=[folder]))
    (lane,) = engine.lanes.values()
    full = Conditions(name, temperature=1.0, max_steps=_DEPTH, seed=0, symmetries=False)
    still = replace(full, temperature=0.0)

    def served(conditions: Conditions) -> Evaluation:
        return evaluate(judge(task, conditions, puzzles, draw(engine, task, conditions, puzzles, samples)))

    def unhalted(conditions: Conditions) -> Evaluation:
        drawn = draw_without_halting(lane, task, conditions, puzzles, samples)[_DEPTH]
        return evaluate(judge(task, conditions, puzzles, drawn))

    results = {"full": served(full), "no halting": unhalted(full), "sigma = 0": served(still)}
    with tempfile.TemporaryDirectory() as changed:
        engine = Engine(EngineSettings(model=[_without_mean(folder, Path(changed) / "mu-0")]))
        (lane,) = engine.lanes.values()
        return results | {"mu = 0": served(full), "mu = 0, no halting": unhalted(full)}


def _without_mean(folder: Path, to: Path) -> Path:
    """Write a copy of a checkpoint whose mu is 0, and return its folder."""
    config = read_config(folder)
    model = load_checkpoint(folder, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        model.prior.mean.down.weight.zero_()
    save_checkpoint(to, config, model)
    return to


def main() -> None:
    """Print the table of all ablations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", default=ZOO / "nqueens-8", help="checkpoint folder; default: the bundled nqueens-8"
    )
    parser.add_argument("--samples", type=int, default=20, help="trajectories per puzzle; default: %(default)s")
    parser.add_argument("--puzzles", type=int, help="use only the first PUZZLES of the test set; default: all")
    arguments = parser.parse_args()
    results = measure(arguments.checkpoint, arguments.samples, arguments.puzzles)
    print(
        f"{model_name(arguments.checkpoint)}, {results['full'].puzzles} puzzles, {arguments.samples} samples, temperature 1\n"
    )
    rows = [[name, *(f"{getattr(e, figure):.1%}" for figure in _FIGURES), f"{e.mean_steps:.1f}"] for name, e in results.items()]
    print(table(["inference", *_FIGURES, "steps"], rows))


if __name__ == "__main__":
    main()
