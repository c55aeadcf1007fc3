"""The engine of one device: it loads models, and makes supervision steps of those that have work."""

import dataclasses
import logging
from collections.abc import Mapping
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
from gram.server.engine.lane import Lane, Outcome, Stopwatch, raise_if_out_of_memory
from gram.server.engine.messages import Cancel, Loaded, NotLoaded, Pong, StepReport, Submit
from gram.server.engine.runner import CPU_TILE, Runner, Threads
from gram.server.settings import DeviceError, EngineSettings

_log = logging.getLogger("gram")


class Engine:
    """All models of one device. `gram solve` and `gram eval` step an engine in their own process; a server's has its own.

    `start` and `finish` make a step of each model that has work. Between the two calls nobody may call the engine.
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
        self._stepping: list[Lane] = []
        self._stopwatch = Stopwatch()

    @property
    def idle(self) -> bool:
        """Whether no model has work."""
        return not self.busy

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
        """Make a supervision step of each model that has work. Raises DeviceError if the device runs out of memory."""
        self.start()
        return [raise_if_out_of_memory(outcome.report()) for outcome in self.finish()]

    def start(self) -> None:
        """Start a step of each model that has work."""
        self._stopwatch = Stopwatch()
        self._stepping = self.busy
        for lane in self._stepping:
            lane.start()

    def finish(self) -> list[Outcome]:
        """Wait for the steps that were started, and return what they brought."""
        stepping, self._stepping = self._stepping, []
        return [lane.finish(self._stopwatch) for lane in stepping]

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
        return GraphRunner(model, device) if device.type == "cuda" else Runner(model, device, self._threads)


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
