"""The engine loop: receive, admit, step, report; and the process around it."""

import argparse
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

import torch

from models.checkpoint import load_checkpoint
from server.engine.device import resolve
from server.engine.messages import (
    Cancel,
    Failed,
    FromEngine,
    LaneStats,
    Ready,
    StepReport,
    Submit,
    ToEngine,
    Trajectory,
    Unframer,
    frame,
)
from server.engine.runner import Runner
from server.engine.scheduler import Observation, Scheduler
from server.engine.slots import Start
from server.settings import EngineSettings, model_name


@dataclass
class Lane:
    """One model in the engine: its runner, its slots and their scheduler."""

    name: str
    runner: Runner
    num_slots: int
    submitted: dict[int, tuple[Submit, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = self.runner.pool(self.num_slots)
        self.scheduler = Scheduler(self.num_slots)

    def submit(self, message: Submit) -> None:
        """Queue a request's trajectories."""
        self.scheduler.submit(
            message.request, message.first_trajectory, message.num_trajectories, message.max_steps, message.prune
        )
        self.submitted[message.request] = message, time.monotonic()

    def cancel(self, request: int) -> None:
        """Free what the request holds; nothing more is reported of it."""
        self.pool.release(self.scheduler.cancel(request))
        self.submitted.pop(request, None)

    def step(self) -> StepReport:
        """Fill the free slots, make one supervision step, retire the rows that ended."""
        begin = time.monotonic()
        started: dict[int, float] = {}
        starts = []
        for slot, request, index in self.scheduler.admit():
            message, submitted_at = self.submitted[request]
            if index == message.first_trajectory:
                started[request] = begin - submitted_at
            starts.append(Start(slot, message.puzzle, message.seed, index, message.temperature))
        self.pool.place(starts)
        observed = self.runner.step(self.pool)
        rows = {slot: row for row, slot in enumerate(self.pool.slots)}
        columns = observed.halt_probability.tolist(), observed.score.tolist(), observed.finite.tolist()
        shown = dict(zip(rows, map(Observation, *columns), strict=True))
        ended = self.scheduler.step(shown)
        finished = []
        for slot, request, index, steps, pruned in ended:
            _, score, finite = shown[slot]
            answer = observed.answer[rows[slot]].tobytes() if finite and not pruned else None
            finished.append(Trajectory(request, index, steps, score if finite else 0.0, answer, pruned))
            if not self.scheduler.holds(request):
                self.submitted.pop(request, None)
        self.pool.release([slot for slot, *_ in ended])
        stats = LaneStats(self.scheduler.live, self.scheduler.waiting)
        return StepReport(self.name, finished, started, len(rows), time.monotonic() - begin, stats)


class Engine:
    """All models of one device. Works without a process of its own too: `gram solve` and `gram eval` drive it so."""

    def __init__(self, settings: EngineSettings) -> None:
        """Loads the models. Raises CheckpointError, or ValueError for a device that is not there."""
        torch.set_num_threads(1)  # a tile is one thread's; see runner.py
        self.placement = resolve(settings)
        device, dtype, slots = self.placement.device, self.placement.dtype, self.placement.slots
        self.lanes = {
            model_name(folder): Lane(model_name(folder), Runner(load_checkpoint(folder, device, dtype), device), slots)
            for folder in settings.model
        }

    @property
    def idle(self) -> bool:
        """Whether there is nothing to step."""
        return all(lane.scheduler.idle for lane in self.lanes.values())

    def handle(self, message: ToEngine) -> None:
        """Take a message from the API process."""
        match message:
            case Submit():
                self.lanes[message.model].submit(message)
            case Cancel():
                for lane in self.lanes.values():
                    lane.cancel(message.request)

    def step(self) -> list[StepReport]:
        """One supervision step of each model that has work."""
        return [lane.step() for lane in self.lanes.values() if not lane.scheduler.idle]

    def warm_up(self) -> None:
        """Make a step of each model, so that the first request pays no first-call cost."""
        for name, lane in self.lanes.items():
            puzzle = bytes(lane.runner.model.config.seq_len)
            self.handle(Submit(-1, name, puzzle, lane.runner.tile * 2, 1, 0, 1.0))
            while not self.idle:
                self.step()


def serve(channel: socket.socket, engine: Engine) -> None:
    """Serve messages until the other end closes. Between two steps everything that arrived is taken."""
    unframer: Unframer[ToEngine] = Unframer(ToEngine)
    while True:
        ready, _, _ = select.select([channel], [], [], None if engine.idle else 0)
        if ready:
            data = channel.recv(1 << 20)
            if not data:
                return
            for message in unframer.feed(data):
                engine.handle(message)
        if not engine.idle:
            for report in engine.step():
                send(channel, report)


def send(channel: socket.socket, message: FromEngine) -> None:
    """Send a message whole."""
    channel.sendall(frame(message))


def main() -> None:
    """The engine process: started by the API process with one end of a socket pair."""
    parser = argparse.ArgumentParser(prog="python -m server.engine.loop", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the socket to the API process")
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    options = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # not the API process's policy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the API process ends this one
    channel = socket.socket(fileno=options.fd)
    try:
        settings = EngineSettings.model_validate_json(options.settings)
        engine = Engine(settings)
        engine.warm_up()
    except Exception as error:
        send(channel, Failed(f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    place = engine.placement
    send(channel, Ready([model_name(f) for f in settings.model], str(place.device), str(place.dtype), place.slots))
    try:
        serve(channel, engine)
    except ConnectionError:
        os._exit(0)  # the API process is gone, and with it everyone who waited


if __name__ == "__main__":
    main()
