"""The engine of one device: it loads models, and makes supervision steps of those that have work."""

import dataclasses
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from gram.models.checkpoint import fingerprint, load_checkpoint
from gram.models.config import CheckpointError, read_config
from gram.models.network import GRAM
from gram.models.serving import prepare
from gram.models.tasks import Task, task_of
from gram.server.catalog import model_name
from gram.server.engine.calibration import calibrate
from gram.server.engine.device import is_out_of_memory, memory_bytes, resolve
from gram.server.engine.graphs import GraphRunner
from gram.server.engine.halves import Half
from gram.server.engine.lane import Lane, Outcome, Stopwatch, raise_if_out_of_memory
from gram.server.engine.messages import Cancel, Loaded, NotLoaded, Pong, StepReport, Submit
from gram.server.engine.rows import cpu_runner
from gram.server.engine.runner import CPU_TILE, Runner, Threads
from gram.server.settings import DeviceError, EngineSettings

_log = logging.getLogger("gram")


class Engine:
    """All models of one device. `gram solve` and `gram eval` step an engine in their own process; a server's has its own.

    A step is one of each model that has work, of a half of its slots. `start` and `finish` make steps one after another, so
    that one runs while the host sees to the one before: halves.py.
    """

    def __init__(
        self, settings: EngineSettings, known: Mapping[str, str] | None = None, number: int = 0, *, calibrated: bool = False
    ) -> None:
        """Load the models on the device with this number.

        `known`: the fingerprints of the models that an earlier engine served. A model whose files have changed since is left
        out, and `missing` says why: its requests were promised the answers of the model that was served.
        `calibrated`: on a CPU, measure which numbers of threads and slots are fastest, unless the settings give them.

        Raises CheckpointError, or DeviceError if the device does not exist or has too little memory.
        """
        known = known or {}
        torch.set_num_threads(1)  # each tile is computed by one thread; see runner.py
        place = self.placement = resolve(settings, number)
        self.fingerprints: dict[str, str] = {}
        self.kernels: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        models: dict[str, tuple[Task, GRAM]] = {}
        for folder in settings.model:
            name = model_name(folder)
            try:
                task, model, loaded = self._read(folder)
                if known.get(name, loaded) != loaded:
                    raise CheckpointError(f"{folder}: the checkpoint's files have changed since the server loaded them")
            except (CheckpointError, OSError) as error:
                if name not in known:
                    raise
                self.missing[name] = str(error)
            else:
                models[name], self.fingerprints[name] = (task, model), loaded
        if calibrated and place.device.type == "cpu" and models:
            _, first = next(iter(models.values()))
            place = calibrate(first, place, threads=settings.threads is None, slots=settings.slots is None)
        self._threads = Threads(place.threads) if place.threads > 1 else None
        runners = {name: (task, self._runner(model)) for name, (task, model) in models.items()}
        self.lanes = _open_lanes(runners, place.slots, fewer=settings.slots is None)
        slots = min((lane.num_slots for lane in self.lanes.values()), default=place.slots)
        self.placement = dataclasses.replace(place, slots=slots)
        self._parts = [0, 1]
        """The parts of the slots, that which has rested longest first. A model may have the first one alone."""
        self._running: deque[list[tuple[Lane, Half]]] = deque()
        """The steps that run, in the order of their starts."""
        self._stopwatch = Stopwatch()

    @property
    def idle(self) -> bool:
        """Whether no model has work, and no step runs."""
        return not self._running and not self.busy

    @property
    def has_suspects(self) -> bool:
        """Whether it has a request that an engine may have died of."""
        return any(lane.suspects for lane in self.lanes.values())

    @property
    def busy(self) -> list[Lane]:
        """The lanes that have work."""
        return [lane for lane in self.lanes.values() if not lane.scheduler.idle]

    def handle(self, message: Submit | Cancel) -> None:
        """Take a message about a request."""
        match message:
            case Submit():
                self.lanes[message.model].submit(message)
            case Cancel():
                for lane in self.lanes.values():
                    lane.cancel(message.request)

    def pong(self) -> Pong:
        """The answer to a ping."""
        return Pong({name: lane.stats for name, lane in self.lanes.items()}, memory_bytes(self.placement.device))

    def step(self) -> list[StepReport]:
        """Make a step of all slots of each model that has work. Raises DeviceError if the device runs out of memory."""
        self.start()
        return [raise_if_out_of_memory(outcome.report()) for outcome in self.drain()]

    def start(self) -> None:
        """Start a step of each part of the slots that rests."""
        if not self._running:
            self._stopwatch = Stopwatch()
        resting = [part for part in self._parts if not any(half.part == part for step in self._running for _, half in step)]
        for part in resting:
            self._rest(part)
            halves = [(lane, lane.halves[part]) for lane in self.busy if part < len(lane.halves)]
            if step := [(lane, half) for lane, half in halves if lane.start(half)]:
                self._running.append(step)

    def finish(self) -> list[Outcome]:
        """Wait for the step that was started first, and return what it brought."""
        step = self._running.popleft() if self._running else []
        return [lane.finish(half, self._stopwatch) for lane, half in step]

    def drain(self) -> list[Outcome]:
        """Wait for all steps that run, and return what they brought."""
        return [outcome for _ in range(len(self._running)) for outcome in self.finish()]

    def one_by_one(self) -> Iterator[tuple[Lane, Half]]:
        """The steps to make next if they must not run side by side. None runs now."""
        for part in [*self._parts]:
            self._rest(part)
            yield from ((lane, lane.halves[part]) for lane in self.busy if part < len(lane.halves))

    def _rest(self, part: int) -> None:
        """Move a part to the end of the turns."""
        self._parts.remove(part)
        self._parts.append(part)

    def warm_up(self) -> None:
        """Make a step of each model."""
        for lane in self.lanes.values():
            lane.warm_up()

    def load(self, folder: Path) -> Loaded | NotLoaded:
        """Load one more model, with as many slots as the others have.

        A model of the same name, which must have no requests, is freed first. So it is gone if the load fails.
        """
        name = model_name(folder)
        if name in self.lanes:
            self.unload(name)
        try:
            task, model, loaded = self._read(folder)
            (lane,) = _open_lanes({name: (task, self._runner(model))}, self.placement.slots, fewer=False).values()
            lane.warm_up()
        except (CheckpointError, DeviceError, OSError, RuntimeError) as error:
            return NotLoaded(name, str(error))
        self.lanes[name] = lane
        return Loaded(name, loaded, self.kernels[name])

    def unload(self, name: str) -> None:
        """Free a model. It must have no requests."""
        del self.lanes[name]
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _read(self, folder: Path) -> tuple[Task, GRAM, str]:
        """Read a checkpoint: its task, its model and its fingerprint. Raises CheckpointError, OSError."""
        model = load_checkpoint(folder, self.placement.device, self.placement.dtype)
        self.kernels[model_name(folder)] = prepare(model, CPU_TILE)
        # The fingerprint is taken after the load, so that it is never that of files older than those loaded.
        return task_of(read_config(folder)), model, fingerprint(folder)

    def _runner(self, model: GRAM) -> Runner:
        """The runner of a model on this device."""
        device = self.placement.device
        return GraphRunner(model, device) if device.type == "cuda" else cpu_runner(model, device, self._threads)


def _open_lanes(runners: Mapping[str, tuple[Task, Runner]], slots: int, *, fewer: bool) -> dict[str, Lane]:
    """Open a lane for each runner, by name. With `fewer`, the slots are halved until they fit into the device's memory.

    Raises DeviceError if they do not fit.
    """
    while True:
        try:
            return {name: Lane(name, task, runner, slots) for name, (task, runner) in runners.items()}
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if not fewer or slots == 1:
            raise DeviceError(f"out of device memory: {slots} slots do not fit; use fewer --slots")
        _log.warning("out of device memory: %d slots do not fit, trying %d", slots, slots // 2)
        slots //= 2
