"""The engine in this process, without HTTP: what `gram solve` and `gram eval` use."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

from gram.models.tasks import Task, Tokens
from gram.server.engine.engine import Engine
from gram.server.engine.messages import Cancel, Ending, StepReport, Submit, Trajectory
from gram.server.sampling.answers import Event, PrunedEvent, SolveResponse, StepEvent, TrajectoryEvent
from gram.server.sampling.collector import Collector
from gram.server.sampling.options import Options

_IN_FLIGHT = 64
"""Puzzles that an evaluation samples side by side."""


def steps(engine: Engine, requests: Iterable[Submit], *, in_flight: int) -> Iterator[StepReport]:
    """Run the requests to their ends, at most `in_flight` of them in the engine; yields what each step brought.

    Whoever has enough of a request cancels it.
    """
    waiting = iter(requests)
    with _interruptible() as interrupted:
        while not interrupted():
            while sum(len(lane.submitted) for lane in engine.lanes.values()) < in_flight and (request := next(waiting, None)):
                engine.handle(request)
            if engine.idle:
                return
            yield from engine.step()
        raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether there was a Ctrl-C whose KeyboardInterrupt was lost.

    pydantic takes an isinstance() that raises for one that says no, and the signal may come just then.
    """
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(signum, frame)

    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default:  # a job in the background ignores it
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def run(engine: Engine, requests: Iterable[Submit], *, in_flight: int) -> Iterator[Trajectory]:
    """The same; yields trajectories as they finish."""
    for report in steps(engine, requests, in_flight=in_flight):
        yield from report.finished


def solve(
    engine: Engine, task: Task, puzzles: Iterable[tuple[int, Tokens, int]], options: Options, *, watch: bool = False
) -> Iterator[tuple[int, Event]]:
    """Solve puzzles, each a number, what the model is given [N] and a seed, with the engine's only model.

    Yields each one's number with its answer when it is known; to `watch`, also with the events of a stream before it.
    """
    (model,) = engine.lanes
    open_: dict[int, tuple[Collector, int, float]] = {}

    def submits() -> Iterator[Submit]:
        for number, puzzle, seed in puzzles:
            open_[number] = Collector(task, puzzle, options.num_trajectories, options.stop), seed, time.monotonic()
            yield options.submit(number, model, puzzle, seed, watch=watch)

    # They take turns, so more at a time than fill the slots, with as many in wait, would only end later, and all together.
    in_flight = 1 + math.ceil(2 * engine.placement.slots / options.num_trajectories)
    for report in steps(engine, submits(), in_flight=in_flight):
        for step in report.steps:
            yield step.request, StepEvent.of_step(task, step)
        for ended in report.finished:
            number = ended.request
            if number not in open_:
                continue  # enough was known before
            collector, seed, begun = open_[number]
            if watch and ended.ending is Ending.PRUNED:
                yield number, PrunedEvent(trajectory=ended.index, steps=ended.steps)
            for trajectory, candidate in collector.add(ended):
                if watch:
                    yield number, TrajectoryEvent.of_trajectory(task, trajectory, candidate)
            if collector.done:
                del open_[number]
                engine.handle(Cancel(number))
                yield number, SolveResponse.of(model, collector, seed, options, 0.0, time.monotonic() - begun)


def sample(engine: Engine, puzzles: Tokens, options: Options, title: str) -> list[list[Trajectory]]:
    """The trajectories of each puzzle [n, N] in the order of their index, puzzle i with seed + i. Shows a progress bar."""
    (model,) = engine.lanes
    seed = options.chosen_seed()
    requests = [options.submit(i, model, puzzle, seed + i) for i, puzzle in enumerate(puzzles)]
    sampled: list[list[Trajectory]] = [[] for _ in puzzles]
    finished = run(engine, requests, in_flight=_IN_FLIGHT)
    bar = tqdm(finished, total=len(puzzles) * options.num_trajectories, desc=title, unit="trajectory")
    for ended in sorted(bar, key=lambda ended: ended.index):
        sampled[ended.request].append(ended)
    return sampled
