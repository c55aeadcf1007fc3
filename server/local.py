"""The engine in this process, without HTTP: what `gram solve` and `gram eval` use."""

from collections.abc import Iterable, Iterator

from server.engine.loop import Engine
from server.engine.messages import Submit, Trajectory


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
