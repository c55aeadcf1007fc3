"""Drives an engine in this process, without HTTP, for `gram solve`, `gram generate` and `gram eval`."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from tqdm import tqdm

from gram.models.tasks import Task, Tokens
from gram.server.engine.engine import Engine
from gram.server.engine.lane import raise_if_out_of_memory
from gram.server.engine.messages import Cancel, Ending, StepReport, Submit, Trajectory
from gram.server.sampling.answers import Event, PrunedEvent, SolveResponse, StepEvent, TrajectoryEvent
from gram.server.sampling.collector import Collector
from gram.server.sampling.options import Options

_IN_FLIGHT = 64
"""The number of puzzles that an evaluation samples at the same time."""


def steps(engine: Engine, requests: Iterable[Submit], *, in_flight: int) -> Iterator[StepReport]:
    """Run requests to their end, at most `in_flight` at a time, and yield the report of each step.

    A caller that has enough of a request cancels it.
    """
    waiting = iter(requests)
    with _interruptible() as interrupted:
        while not interrupted():
            while sum(len(lane.submitted) for lane in engine.lanes.values()) < in_flight and (request := next(waiting, None)):
                engine.handle(request)
            if engine.idle:
                return
            engine.start()
            yield from (raise_if_out_of_memory(outcome.report()) for outcome in engine.finish())
        raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether there was a Ctrl-C, even if its KeyboardInterrupt was lost.

    If the signal arrives while pydantic calls isinstance(), pydantic takes the exception for the answer "no".
    """
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(signum, frame)

    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default:  # a background job ignores Ctrl-C
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def run(engine: Engine, requests: Iterable[Submit], *, in_flight: int) -> Iterator[Trajectory]:
    """Run requests as `steps` does, and yield their trajectories as they end."""
    for report in steps(engine, requests, in_flight=in_flight):
        yield from report.finished


class Question(NamedTuple):
    """A puzzle to solve."""

    number: int
    task: Task
    """The task as the puzzle's writer sees it."""
    puzzle: Tokens
    """The model's input [N]."""
    solutions: int | None
    """Its `Task.solvable`."""
    seed: int


def solve(
    engine: Engine, questions: Iterable[Question], options: Options, *, watch: bool = False
) -> Iterator[tuple[int, Event]]:
    """Solve puzzles with the engine's only model.

    Yields a puzzle's number with its answer, as soon as that is known; with `watch`, first with the events of its stream.
    """
    (model,) = engine.lanes
    open_: dict[int, tuple[Collector, int, float]] = {}  # a puzzle's collector, its seed, and when it was submitted

    def submits() -> Iterator[Submit]:
        for number, task, puzzle, solutions, seed in questions:
            collector = Collector(task, puzzle, options.num_trajectories, options.stop, solutions)
            open_[number] = collector, seed, time.monotonic()
            yield options.submit(number, model, puzzle, seed, watch=watch)

    for report in steps(engine, submits(), in_flight=_in_flight(engine, options)):
        for step in report.steps:
            if step.request in open_:
                collector, _, _ = open_[step.request]
                yield step.request, StepEvent.of_step(collector.task, collector.puzzle, step)
        for ended in report.finished:
            number = ended.request
            if number not in open_:
                continue  # the puzzle's answer is known already
            collector, seed, begun = open_[number]
            if watch and ended.ending is Ending.PRUNED:
                yield number, PrunedEvent(trajectory=ended.index, steps=ended.steps)
            for trajectory, candidate in collector.add(ended):
                if watch:
                    yield number, TrajectoryEvent.of_trajectory(collector.task, trajectory, candidate)
            if collector.done:
                del open_[number]
                engine.handle(Cancel(number))
                yield number, SolveResponse.of(model, collector, seed, options, 0.0, time.monotonic() - begun)


def collect(engine: Engine, questions: Iterable[Question], options: Options) -> Iterator[tuple[int, Collector]]:
    """Sample puzzles with the engine's only model. Yields a puzzle's number and its trajectories when all have ended."""
    (model,) = engine.lanes
    open_: dict[int, Collector] = {}

    def submits() -> Iterator[Submit]:
        for number, task, puzzle, solutions, seed in questions:
            open_[number] = Collector(task, puzzle, options.num_trajectories, solutions=solutions)
            yield options.submit(number, model, puzzle, seed)

    for ended in run(engine, submits(), in_flight=_in_flight(engine, options)):
        open_[ended.request].add(ended)
        if open_[ended.request].done:
            yield ended.request, open_.pop(ended.request)


def _in_flight(engine: Engine, options: Options) -> int:
    """The number of puzzles to sample at a time. They take turns, so more than fill the slots twice would only wait."""
    return 1 + math.ceil(2 * engine.placement.slots / options.num_trajectories)


def sample(engine: Engine, puzzles: Tokens, options: Options, title: str) -> list[list[Trajectory]]:
    """Sample each of the puzzles [n, N], puzzle i with seed + i, in the order of the index. Shows a progress bar."""
    (model,) = engine.lanes
    seed = options.chosen_seed()
    requests = [options.submit(i, model, puzzle, seed + i) for i, puzzle in enumerate(puzzles)]
    sampled: list[list[Trajectory]] = [[] for _ in puzzles]
    finished = run(engine, requests, in_flight=_IN_FLIGHT)
    bar = tqdm(finished, total=len(puzzles) * options.num_trajectories, desc=title, unit="trajectory")
    for ended in sorted(bar, key=lambda ended: ended.index):
        sampled[ended.request].append(ended)
    return sampled
