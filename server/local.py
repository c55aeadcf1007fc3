"""The engine in this process, without HTTP: what `gram solve` and `gram eval` use."""

from collections.abc import Iterable, Iterator

from tqdm import tqdm

from models.tasks import Tokens
from server.api.schemas import Options
from server.engine.loop import Engine
from server.engine.messages import Submit, Trajectory

_IN_FLIGHT = 64
"""Puzzles that are sampled side by side."""


def run(engine: Engine, requests: Iterable[Submit], *, in_flight: int) -> Iterator[Trajectory]:
    """Run the requests to their ends, at most `in_flight` of them in the engine; yields trajectories as they finish."""
    waiting = iter(requests)
    open_trajectories: dict[int, int] = {}
    while True:
        while len(open_trajectories) < in_flight and (request := next(waiting, None)):
            open_trajectories[request.request] = request.num_trajectories
            engine.handle(request)
        if not open_trajectories:
            return
        for report in engine.step():
            for trajectory in report.finished:
                open_trajectories[trajectory.request] -= 1
                if not open_trajectories[trajectory.request]:
                    del open_trajectories[trajectory.request]
                yield trajectory


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
