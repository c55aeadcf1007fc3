"""The engine loop: receive, admit, step, report; and the process around it."""

import argparse
import dataclasses
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from models.checkpoint import load_checkpoint
from server.engine.device import resolve
from server.engine.graphs import GraphRunner
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
from server.settings import DeviceError, EngineSettings, model_name

_log = logging.getLogger("gram")


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
        self.scheduler.submit(message.request, message.first_trajectory, message.num_trajectories, message.prune)
        self.submitted[message.request] = message, time.monotonic()

    def cancel(self, request: int) -> None:
        """Free what the request holds; nothing more is reported of it."""
        self.pool.release(self.scheduler.cancel(request))
        self.submitted.pop(request, None)

    def launch(self) -> Callable[[], StepReport]:
        """Fill the free slots and start a step; the function returned waits for it and retires the rows that ended."""
        begin = time.monotonic()
        started: dict[int, float] = {}
        starts = []
        for slot, request, index in self.scheduler.admit():
            message, submitted_at = self.submitted[request]
            if index == message.first_trajectory:
                started[request] = begin - submitted_at
            starts.append(Start(slot, message.puzzle, message.seed, index, message.temperature, message.max_steps))
        self.pool.place(starts)
        wait = self.runner.launch(self.pool)

        def finish() -> StepReport:
            observed = wait()
            rows = {slot: row for row, slot in enumerate(self.pool.slots)}
            scores = observed.score.tolist()
            shown = dict(zip(rows, map(Observation, scores, observed.retires.tolist()), strict=True))
            finished = []
            ended = self.scheduler.step(shown)
            for slot, request, index, steps, pruned in ended:
                row = rows[slot]
                finite = bool(observed.finite[row])
                answer = observed.answer[row].tobytes() if finite and not pruned else None
                finished.append(Trajectory(request, index, steps, scores[row] if finite else 0.0, answer, pruned))
                if not self.scheduler.holds(request):
                    self.submitted.pop(request, None)
            self.pool.release([slot for slot, *_ in ended])
            stats = LaneStats(self.scheduler.live, self.scheduler.waiting)
            return StepReport(self.name, finished, started, len(rows), time.monotonic() - begin, stats)

        return finish


def _lanes(runners: Mapping[str, Runner], slots: int, *, fewer: bool) -> dict[str, Lane]:
    """A lane for each runner. Where the memory can't hold the slots, half as many are tried if `fewer` may do.

    Raises DeviceError where nothing fits.
    """
    while True:
        try:
            return {name: Lane(name, runner, slots) for name, runner in runners.items()}
        except RuntimeError as error:  # on a GPU, a torch.OutOfMemoryError
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            fault = f"the memory of the device does not hold {slots} slots"
        if not fewer or slots == 1:
            raise DeviceError(f"{fault}; take fewer --slots")
        slots //= 2
        _log.warning("%s: taking %d", fault, slots)


class Engine:
    """All models of one device. Works without a process of its own too: `gram solve` and `gram eval` drive it so."""

    def __init__(self, settings: EngineSettings) -> None:
        """Loads the models. Raises CheckpointError, or DeviceError for a device that is not there or too small."""
        torch.set_num_threads(1)  # a tile is one thread's; see runner.py
        place = resolve(settings)
        threads = ThreadPoolExecutor(place.threads, thread_name_prefix="tile") if place.threads > 1 else None
        runners: dict[str, Runner] = {}
        for folder in settings.model:
            model = load_checkpoint(folder, place.device, place.dtype)
            on_gpu = place.device.type == "cuda"
            runners[model_name(folder)] = GraphRunner(model, place.device) if on_gpu else Runner(model, place.device, threads)
        self.lanes = _lanes(runners, place.slots, fewer=settings.slots is None)
        slots = min((lane.num_slots for lane in self.lanes.values()), default=place.slots)
        self.placement = dataclasses.replace(place, slots=slots)

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
        return [finish() for finish in self.launch()]

    def launch(self) -> list[Callable[[], StepReport]]:
        """Start such a step; the functions returned wait for it. Until then nobody may call the engine."""
        return [lane.launch() for lane in self.lanes.values() if not lane.scheduler.idle]

    def warm_up(self) -> None:
        """Make a step of each model, so that the first request pays no first-call cost."""
        for name, lane in self.lanes.items():
            model = lane.runner.model
            # As many new puzzles as can come at once: on a GPU, memory that is left to others now may be gone later.
            model.encode(torch.zeros(lane.num_slots, model.config.seq_len, dtype=torch.int64, device=lane.runner.device))
            puzzle = bytes(model.config.seq_len)
            self.handle(Submit(-1, name, puzzle, lane.runner.tile * 2, 1, 0, 1.0))
            while not self.idle:
                self.step()


def serve(channel: socket.socket, engine: Engine) -> None:
    """Serve messages until the other end closes. Between two steps everything that arrived is taken.

    What a step brought is sent while the next one is computed, so that the device does not wait for it.
    """
    unframer: Unframer[ToEngine] = Unframer(ToEngine)
    reports: list[StepReport] = []
    while True:
        ready, _, _ = select.select([channel], [], [], None if engine.idle and not reports else 0)
        if ready:
            data = channel.recv(1 << 20)
            if not data:
                return
            for message in unframer.feed(data):
                engine.handle(message)
        steps = engine.launch()
        for report in reports:
            send(channel, report)
        reports = [finish() for finish in steps]


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
    send(channel, Ready([model_name(f) for f in settings.model], place.where, str(place.dtype), place.slots))
    try:
        serve(channel, engine)
    except ConnectionError:
        os._exit(0)  # the API process is gone, and with it everyone who waited


if __name__ == "__main__":
    main()
