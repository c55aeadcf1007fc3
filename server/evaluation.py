"""`gram eval`: the held-out puzzles through the engine that serves, so that what is measured is what is served."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from models.config import read_config
from models.evaluation import Evaluation, Sample, evaluate
from models.tasks import TASKS
from server.api.schemas import Options
from server.engine.loop import Engine
from server.local import run
from server.settings import model_name

if TYPE_CHECKING:
    from server.cli import Eval

_IN_FLIGHT = 64
_COLUMNS = ("single", "lprm", "majority", "any", "conflicts", "coverage", "coverage_limit", "auroc", "mean_steps")


def evaluate_checkpoint(folder: Path, options: "Eval") -> list[Evaluation]:
    """One evaluation for each test set and temperature. Puzzle i of a set is sampled with seed + i."""
    task = TASKS[read_config(folder).task]
    engine = Engine(options.for_checkpoint(folder))
    evaluations = []
    for (name, test_set), temperature in itertools.product(task.test_sets.items(), options.temperatures):
        puzzles = test_set[: options.limit]
        sampling = Options(num_trajectories=options.samples, max_steps=options.max_steps, temperature=temperature)
        requests = [sampling.submit(i, model_name(folder), p, options.seed + i) for i, p in enumerate(puzzles)]
        samples: list[list[Sample]] = [[] for _ in puzzles]
        total = len(puzzles) * options.samples
        finished = run(engine, requests, in_flight=_IN_FLIGHT)
        for ended in tqdm(finished, total=total, desc=f"{name}, temperature {temperature:g}", unit="trajectory"):
            # A dropped trajectory counts as a wrong one.
            answer = task.canonical(np.frombuffer(ended.answer or bytes(task.seq_len), np.uint8).astype(np.int64))
            samples[ended.request].append(Sample(answer, ended.score, ended.steps))
        evaluations.append(
            evaluate(task, name, puzzles, samples, temperature=temperature, max_steps=options.max_steps, seed=options.seed)
        )
    return evaluations


def table(evaluations: list[Evaluation], paper: dict[str, float]) -> str:
    """The figures, a line for each test set and temperature, and the paper's."""
    rows = [["puzzles", "temperature", *_COLUMNS]]
    for evaluation in evaluations:
        figures = [_figure(getattr(evaluation, column)) for column in _COLUMNS]
        rows.append([f"{evaluation.puzzles} {evaluation.test_set}", f"{evaluation.temperature:g}", *figures])
    rows.append(["paper", "", *(_figure(paper[column]) if column in paper else "" for column in _COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _figure(figure: float | None) -> str:
    if figure is None:
        return "-"
    return str(figure) if isinstance(figure, int) else f"{figure:.4f}"
