"""The engine loop: receive, admit, step, report; and the process around it."""

import argparse
import dataclasses
import itertools
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from models.checkpoint import fingerprint, load_checkpoint
from models.config import CheckpointError, read_config
from models.gram import GRAM
from models.tasks import TASKS, Task
from models.temperature import listed
from server import logs
from server.engine.calibration import calibrate
from server.engine.device import memory_bytes, num_devices, resolve, trim
from server.engine.graphs import GraphRunner
from server.engine.messages import (
    Cancel,
    Failed,
    FromEngine,
    LaneStats,
    Load,
    Loaded,
    NotLoaded,
    Ping,
    Pong,
    Ready,
    Step,
    Stepping,
    StepReport,
    Submit,
    ToEngine,
    Trajectory,
    Unframer,
    Unload,
    frame,
)
from server.engine.runner import Observed, Runner
from server.engine.scheduler import Observation, Scheduler
from server.engine.slots import Start
from server.engine.views import Views
from server.settings import DeviceError, EngineSettings, model_name

_log = logging.getLogger("gram")

_TRIM_PINGS = 60
"""After so many signs of life, a second apart, freed memory goes back to the system."""


@dataclass
class Lane:
    """One model in the engine: its runner, its slots and their scheduler."""

    name: str
    task: Task
    runner: Runner
    num_slots: int
    submitted: dict[int, tuple[Submit, float]] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)
    watched: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = self.runner.pool(self.num_slots)
        self.scheduler = Scheduler(self.num_slots)
        self.views = Views(self.task, self.num_slots)
        self._starts: list[Start] = []
        self._started: dict[int, float] = {}

    def submit(self, message: Submit) -> None:
        """Queue a request's trajectories."""
        least = min(len(listed(message.temperature)), message.max_steps)
        self.scheduler.submit(message.request, message.first_trajectory, message.num_trajectories, message.prune, least)
        self.submitted[message.request] = message, time.monotonic()
        if message.suspect:
            self.suspects.add(message.request)
        if message.watch:
            self.watched[message.request] = message.watch

    def cancel(self, request: int) -> None:
        """Free what the request holds; nothing more is reported of it."""
        self.pool.release(self.scheduler.cancel(request))
        self._forget(request)

    def admit(self) -> Set[int]:
        """Give the free slots to waiting trajectories, which start with the next step; returns the requests that it is of."""
        for slot, request, index in self.scheduler.admit():
            message, submitted_at = self.submitted[request]
            if index == message.first_trajectory:
                self._started[request] = time.monotonic() - submitted_at
            keys = message.seed, index, message.temperature
            self._starts.append(Start(slot, message.puzzle, *keys, message.max_steps, message.symmetries))
        return self.scheduler.running

    def launch(self, lap: Callable[[], float]) -> Callable[[], StepReport]:
        """Fill the free slots and start a step; the function returned waits for it and retires the rows that ended.

        `lap` says how long it took. Where the memory does not hold it, the requests in the slots end; those that wait have
        their turn.
        """
        requests = self.admit()
        try:
            finish = self._launch(lap)
        except RuntimeError as error:
            report = self._end(requests, error, lap)
            return lambda: report

        def finish_or_end() -> StepReport:
            try:
                return finish()
            except RuntimeError as error:
                return self._end(requests, error, lap)

        return finish_or_end

    def _launch(self, lap: Callable[[], float]) -> Callable[[], StepReport]:
        starts, self._starts = self._starts, []
        started, self._started = self._started, {}
        self.pool.place(self.views.show(starts))
        wait = self.runner.launch(self.pool)

        def finish() -> StepReport:
            observed = wait()
            rows = {slot: row for row, slot in enumerate(self.pool.slots)}
            scores = observed.score.tolist()
            shown = dict(zip(rows, map(Observation, scores, observed.retires.tolist(), observed.finite.tolist()), strict=True))
            finished = []
            ended = self.scheduler.step(shown)
            for (slot, request, index, steps, pruned), answer in zip(ended, self._answers(ended, rows, observed), strict=True):
                _, _, finite = shown[slot]
                score = scores[rows[slot]] if finite else 0.0
                finished.append(Trajectory(request, index, steps, score, answer if finite and not pruned else None, pruned))
                if not self.scheduler.holds(request):
                    self._forget(request)
            shows = self._watch(rows, observed) if self.watched else []
            self.pool.release([slot for slot, *_ in ended])
            return StepReport(self.name, finished, started, len(rows), lap(), self.stats(), steps=shows)

        return finish

    def _watch(self, rows: Mapping[int, int], observed: Observed) -> list[Step]:
        """What the trajectories that go on show, of requests that watch."""
        shown = [running for running in self.scheduler.trajectories if running[2] < self.watched.get(running[1], 0)]
        return [
            Step(request, index, steps, float(observed.score[rows[slot]]), answer)
            for (slot, request, index, steps), answer in zip(shown, self._answers(shown, rows, observed), strict=True)
        ]

    def _answers(self, of: Sequence[tuple[int, ...]], rows: Mapping[int, int], observed: Observed) -> list[bytes]:
        """What decoding gives of these trajectories, the first number of each its slot, as answers to the puzzle as written."""
        slots = [slot for slot, *_ in of]
        return self.views.answers(slots, observed.answer[[rows[slot] for slot in slots]])

    def _end(self, requests: Set[int], error: RuntimeError, lap: Callable[[], float]) -> StepReport:
        """End the requests of a step that the memory did not hold. Raises any other error again."""
        if not _out_of_memory(error):
            raise error
        _log.error("the memory of the device did not hold a step of %s: %s", self.name, error)
        self.pool.clear()
        for request in requests:
            self.scheduler.cancel(request)
            self._forget(request)
        return StepReport(self.name, [], {}, 0, lap(), self.stats(), sorted(requests))

    def warm_up(self) -> None:
        """Make a step, so that the first request pays no first-call cost. Raises DeviceError for too little memory."""
        model = self.runner.model
        # As many new puzzles as can come at once: on a GPU, memory that is left to others now may be gone later.
        model.encode(torch.zeros(self.num_slots, model.config.seq_len, dtype=torch.int64, device=self.runner.device))
        self.submit(Submit(-1, self.name, bytes(model.config.seq_len), self.runner.tile * 2, 1, 0, 1.0))
        while not self.scheduler.idle:
            _hold(self.launch(laps())())

    def stats(self) -> LaneStats:
        """Its load now."""
        return LaneStats(self.scheduler.live, self.scheduler.waiting)

    def _forget(self, request: int) -> None:
        self.submitted.pop(request, None)
        self.suspects.discard(request)
        self.watched.pop(request, None)


def _lanes(runners: Mapping[str, tuple[Task, Runner]], slots: int, *, fewer: bool) -> dict[str, Lane]:
    """A lane for each runner of a task. Where the memory can't hold the slots, half as many are tried if `fewer` may do.

    Raises DeviceError where nothing fits.
    """
    while True:
        try:
            return {name: Lane(name, task, runner, slots) for name, (task, runner) in runners.items()}
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            fault = f"the memory of the device does not hold {slots} slots"
        if not fewer or slots == 1:
            raise DeviceError(f"{fault}; take fewer --slots")
        slots //= 2
        _log.warning("%s: taking %d", fault, slots)


def _hold(report: StepReport) -> StepReport:
    """The report. Raises DeviceError where the memory did not hold the step."""
    if report.out_of_memory:
        raise DeviceError(f"the memory of the device does not hold a step of {report.model}; take fewer --slots")
    return report


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # on a GPU, on a CPU


def laps() -> Callable[[], float]:
    """A stopwatch: each call returns the seconds since the one before it.

    The steps of several models are launched together and waited for in turn, so their times overlap; their laps do not.
    """
    last = time.monotonic()

    def lap() -> float:
        nonlocal last
        before, last = last, time.monotonic()
        return last - before

    return lap


class Engine:
    """All models of one device. Works without a process of its own too: `gram solve` and `gram eval` drive it so."""

    def __init__(
        self, settings: EngineSettings, known: Mapping[str, str] | None = None, number: int = 0, *, calibrated: bool = False
    ) -> None:
        """Loads the models on the device of this number. Raises CheckpointError, or DeviceError for a device that is not there
        or too small.

        `known`: the fingerprints of models that an engine before this one served. Where the files of one are no longer those,
        it is left out and `missing` says why: what it would answer now is not what its requests were promised.
        `calibrated`: on a CPU, measure which threads and slots suit it, where the settings leave that open.
        """
        known = known or {}
        torch.set_num_threads(1)  # a tile is one thread's; see runner.py
        place = self.placement = resolve(settings, number)
        models: dict[str, tuple[Task, GRAM]] = {}
        self.fingerprints: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        for folder in settings.model:
            name = model_name(folder)
            try:
                task, model, loaded = self._read(folder)
                if known.get(name, loaded) != loaded:
                    raise CheckpointError(f"{folder}: its files are not those that were served before")
            except (CheckpointError, OSError) as error:
                if name not in known:
                    raise
                self.missing[name] = str(error)
                continue
            models[name], self.fingerprints[name] = (task, model), loaded
        if calibrated and place.device.type == "cpu" and models:
            _, first = next(iter(models.values()))
            place = calibrate(first, place, threads=settings.threads is None, slots=settings.slots is None)
        self._threads = ThreadPoolExecutor(place.threads, thread_name_prefix="tile") if place.threads > 1 else None
        runners = {name: (task, self._runner(model)) for name, (task, model) in models.items()}
        self.lanes = _lanes(runners, place.slots, fewer=settings.slots is None)
        slots = min((lane.num_slots for lane in self.lanes.values()), default=place.slots)
        self.placement = dataclasses.replace(place, slots=slots)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to step."""
        return all(lane.scheduler.idle for lane in self.lanes.values())

    @property
    def suspects(self) -> bool:
        """Whether it has a request that an engine may have died of."""
        return any(lane.suspects for lane in self.lanes.values())

    @property
    def busy(self) -> list[Lane]:
        """The models that have work."""
        return [lane for lane in self.lanes.values() if not lane.scheduler.idle]

    def handle(self, message: Submit | Cancel) -> None:
        """Take a message from the API process."""
        match message:
            case Submit():
                self.lanes[message.model].submit(message)
            case Cancel():
                for lane in self.lanes.values():
                    lane.cancel(message.request)

    def pong(self) -> Pong:
        """The answer to a ping."""
        return Pong({name: lane.stats() for name, lane in self.lanes.items()}, memory_bytes(self.placement.device))

    def step(self) -> list[StepReport]:
        """One supervision step of each model that has work. Raises DeviceError where the memory does not hold it."""
        return [_hold(finish()) for finish in self.launch()]

    def launch(self) -> list[Callable[[], StepReport]]:
        """Start such a step; the functions returned wait for it. Until then nobody may call the engine."""
        lap = laps()
        return [lane.launch(lap) for lane in self.busy]

    def warm_up(self) -> None:
        """Make a step of each model."""
        for lane in self.lanes.values():
            lane.warm_up()

    def load(self, folder: Path) -> Loaded | NotLoaded:
        """Take a model more, with as many slots as the others have."""
        name = model_name(folder)
        try:
            task, model, loaded = self._read(folder)
            (lane,) = _lanes({name: (task, self._runner(model))}, self.placement.slots, fewer=False).values()
            lane.warm_up()
        except (CheckpointError, DeviceError, OSError, RuntimeError) as error:
            return NotLoaded(name, str(error))
        self.lanes[name] = lane
        return Loaded(name, loaded)

    def unload(self, name: str) -> None:
        """Free a model, which has no requests."""
        del self.lanes[name]
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _read(self, folder: Path) -> tuple[Task, GRAM, str]:
        """The checkpoint's task, its model and its fingerprint. Raises CheckpointError, OSError."""
        model = load_checkpoint(folder, self.placement.device, self.placement.dtype)
        return TASKS[read_config(folder).task], model, fingerprint(folder)  # after the load: what was loaded was no older

    def _runner(self, model: GRAM) -> Runner:
        """What runs it on this device."""
        device = self.placement.device
        return GraphRunner(model, device) if device.type == "cuda" else Runner(model, device, self._threads)


def serve(channel: socket.socket, engine: Engine) -> None:
    """Serve messages until the other end closes. Between two steps everything that arrived is taken, and pings are answered.

    What a step brought is sent while the next one is computed, so that the device does not wait for it. Not so with a suspect:
    then one model steps at a time, and says so before, so that the next death is known to be of that.
    """
    unframer: Unframer[ToEngine] = Unframer(ToEngine)
    reports: list[StepReport] = []
    pings = itertools.count(1)
    while True:
        ready, _, _ = select.select([channel], [], [], None if engine.idle and not reports else 0)
        if ready:
            data = channel.recv(1 << 16)
            if not data:
                return
            for message in unframer.feed(data):
                match message:
                    case Ping():
                        send(channel, engine.pong())
                        if next(pings) % _TRIM_PINGS == 0:
                            trim()
                    case Load():
                        send(channel, engine.load(Path(message.folder)))
                    case Unload():
                        engine.unload(message.model)
                    case _:
                        engine.handle(message)
        one_by_one = engine.suspects
        steps = [] if one_by_one else engine.launch()
        for report in reports:
            send(channel, report)
        reports = [finish() for finish in steps]
        for lane in engine.busy if one_by_one else []:
            send(channel, Stepping(lane.name, sorted(lane.admit())))
            send(channel, lane.launch(laps())())


def send(channel: socket.socket, message: FromEngine) -> None:
    """Send a message whole."""
    channel.sendall(frame(message))


def main() -> None:
    """The engine process: started by the API process with one end of a socket pair."""
    parser = argparse.ArgumentParser(prog="python -m server.engine.loop", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the socket to the API process")
    parser.add_argument("--number", type=int, default=0, help="the engine's, and the device's where there are several")
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    parser.add_argument("--known", type=json.loads, default={}, help="fingerprints of models as JSON; see Engine")
    parser.add_argument("--log-format", default="text")
    options = parser.parse_args()
    logs.configure(options.log_format)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # not the API process's policy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the API process ends this one
    channel = socket.socket(fileno=options.fd)
    try:
        settings = EngineSettings.model_validate_json(options.settings)
        engine = Engine(settings, options.known, options.number, calibrated=True)
        engine.warm_up()
    except Exception as error:
        send(channel, Failed(f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    place = engine.placement
    ready = Ready(
        models=engine.fingerprints,
        missing=engine.missing,
        device=place.where,
        devices=num_devices(place.device),
        dtype=str(place.dtype),
        slots=place.slots,
        threads=place.threads if place.device.type == "cpu" else None,
    )
    send(channel, ready)
    try:
        serve(channel, engine)
    except ConnectionError:
        os._exit(0)  # the API process is gone, and with it everyone who waited
    except Exception as error:
        _log.exception("an error of the engine's own")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
