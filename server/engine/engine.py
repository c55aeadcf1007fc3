"""The engine loop: receive, admit, step, report; and the process around it."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from gram.models.checkpoint import fingerprint, load_checkpoint
from gram.models.config import CheckpointError, read_config
from gram.models.network import GRAM
from gram.models.tasks import TASKS, Task
from gram.server.catalog import model_name
from gram.server.engine.calibration import calibrate
from gram.server.engine.device import memory_bytes, resolve
from gram.server.engine.graphs import GraphRunner
from gram.server.engine.lane import Lane, hold, laps, open_lanes
from gram.server.engine.messages import Cancel, Loaded, NotLoaded, Pong, StepReport, Submit
from gram.server.engine.runner import Runner
from gram.server.settings import DeviceError, EngineSettings

_log = logging.getLogger("gram")

_TRIM_PINGS = 60
"""After so many signs of life, a second apart, freed memory goes back to the system."""


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
        self.lanes = open_lanes(runners, place.slots, fewer=settings.slots is None)
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
        return [hold(finish()) for finish in self.launch()]

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
            (lane,) = open_lanes({name: (task, self._runner(model))}, self.placement.slots, fewer=False).values()
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
