"""Evaluation through the engine that serves, so that it measures what is served."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gram.models.evaluation.records import Curves, Evaluation, Figures, Generation
from gram.models.evaluation.scores import Conditions, Sample, evaluate, evaluate_boards, evaluate_traits, evaluate_widths, judge
from gram.models.tasks import Task, Tokens
from gram.models.temperature import temperature_text
from gram.server.catalog import read_models
from gram.server.engine.engine import Engine
from gram.server.engine.lane import Lane
from gram.server.engine.slots import Start
from gram.server.evaluation.settings import EvaluationSettings
from gram.server.local import sample
from gram.server.sampling.collector import answer_of
from gram.server.sampling.options import Options

TestSets = dict[str, Tokens]
"""Puzzles [n, N] by the names of their sets."""


def evaluate_checkpoint(folder: Path, options: EvaluationSettings) -> Figures:
    """Measure how a checkpoint solves and, if it generates, how it generates. Raises CheckpointError."""
    (model,) = read_models([folder]).values()
    engine = Engine(options.for_checkpoint(folder))
    evaluations, curves = evaluate_puzzles(engine, model.task, options, model.task.test_sets)
    generations = evaluate_generation(engine, model.task, options) if model.config.generates else []
    return Figures(evaluations, curves, generations)


def evaluate_puzzles(
    engine: Engine, task: Task, options: EvaluationSettings, test_sets: TestSets
) -> tuple[list[Evaluation], Curves]:
    """Evaluate each test set with each way to sample, and the curves against samples and depth."""
    (lane,) = engine.lanes.values()
    evaluations, curves = [], Curves()
    for name, test_set in test_sets.items():
        puzzles = spread(test_set, options.puzzles)[: options.limit]
        for symmetries, temperature in itertools.product(options.symmetries, options.temperatures):
            conditions = Conditions(name, temperature, options.max_steps, options.seed, symmetries)
            judged = judge(task, conditions, puzzles, draw(engine, task, conditions, puzzles, options.samples))
            evaluations.append(evaluate(judged))
            curves.by_samples += evaluate_widths(judged)
            curves.by_trait += evaluate_traits(task, puzzles, judged)
        if not options.grid_puzzles:
            continue
        puzzles = spread(puzzles, options.grid_puzzles)
        conditions = Conditions(name, 1.0, options.grid_depth or task.evaluation_depth, options.seed, options.symmetries[0])
        for depth, samples in draw_without_halting(lane, task, conditions, puzzles, options.samples).items():
            curves.by_depth += evaluate_widths(judge(task, replace(conditions, max_steps=depth), puzzles, samples))
    return evaluations, curves


def spread(puzzles: Tokens, count: int | None) -> Tokens:
    """Take `count` of the puzzles [n, N] (None: all), spread evenly over a set that may be sorted by difficulty."""
    count = len(puzzles) if count is None else min(count, len(puzzles))
    return puzzles[np.linspace(0, len(puzzles), count, endpoint=False, dtype=int)]


def evaluate_generation(engine: Engine, task: Task, options: EvaluationSettings) -> list[Generation]:
    """Evaluate boards from the empty input, for each way to sample. They are the boards of one generate request."""
    assert task.blank is not None, "a model that generates has a task with an empty input: see read_models"
    count = min(options.boards, options.limit or options.boards)
    generations = []
    for symmetries, temperature in itertools.product(options.symmetries, options.temperatures):
        conditions = Conditions("empty input", temperature, options.max_steps, options.seed, symmetries)
        (samples,) = draw(engine, task, conditions, task.blank[None], count)
        generations.append(evaluate_boards(task, conditions, samples))
    return generations


def draw(engine: Engine, task: Task, conditions: Conditions, puzzles: Tokens, count: int) -> list[list[Sample]]:
    """Draw `count` samples of each puzzle [n, N], in the order of their index."""
    sampling = Options(
        num_trajectories=count,
        max_steps=conditions.max_steps,
        temperature=conditions.temperature,
        symmetries=conditions.symmetries,
        seed=conditions.seed,
    )
    drawn = sample(engine, puzzles, sampling, f"{conditions.test_set}, temperature {temperature_text(conditions.temperature)}")
    return [
        [_sample(task, puzzle, ended.answer, ended.score, ended.steps) for ended in row]
        for puzzle, row in zip(puzzles, drawn, strict=True)
    ]


def draw_without_halting(
    lane: Lane, task: Task, conditions: Conditions, puzzles: Tokens, count: int
) -> dict[int, list[list[Sample]]]:
    """Draw the same trajectories without halting: depth -> their answers there, for depths 1, 2, 4, ... up to max_steps."""
    depths = [1 << i for i in range(conditions.max_steps.bit_length())]
    samples: dict[int, list[list[Sample]]] = {depth: [[] for _ in puzzles] for depth in depths}
    trajectories = [(i, index) for i in range(len(puzzles)) for index in range(count)]
    pool = lane.runner.pool(lane.num_slots)
    title = f"{conditions.test_set}, without halting"
    with tqdm(total=len(trajectories) * depths[-1], desc=title, unit="step") as bar:
        for first in range(0, len(trajectories), lane.num_slots):
            chunk = trajectories[first : first + lane.num_slots]
            starts = [
                Start(
                    slot,
                    puzzles[i].astype(np.uint8).tobytes(),
                    conditions.seed + i,
                    index,
                    conditions.temperature,
                    symmetries=conditions.symmetries,
                )
                for slot, (i, index) in enumerate(chunk)
            ]
            pool.place(lane.views.show(starts))
            for depth in range(1, depths[-1] + 1):
                readout = lane.runner.step(pool)
                bar.update(len(chunk))
                if depth not in samples:
                    continue
                answers = lane.views.answers(pool.slots, readout.answers.numpy())
                for slot, answer, score, finite in zip(
                    pool.slots, answers, readout.score.tolist(), readout.finite.tolist(), strict=True
                ):
                    i, _ = chunk[slot]
                    samples[depth][i].append(_sample(task, puzzles[i], answer if finite else None, score, depth))
            pool.release(range(len(chunk)))
    return samples


def _sample(task: Task, puzzle: Tokens, answer: bytes | None, score: float, steps: int) -> Sample:
    """A sample. A dropped trajectory has no answer, and counts as a wrong one with the lowest score."""
    if answer is None:
        return Sample(np.zeros(task.seq_len, dtype=np.int64), 0.0, steps)
    return Sample(answer_of(task, puzzle, answer), score, steps)
