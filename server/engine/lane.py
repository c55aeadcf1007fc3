"""A lane is one model in the engine: its scheduler, slots and runner, and how each slot sees its puzzle."""

import logging
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch

from gram.kernels.readout import Readout
from gram.models.tasks import Task
from gram.models.temperature import schedule
from gram.server.engine.device import is_out_of_memory
from gram.server.engine.messages import Ending, LaneStats, Step, StepReport, Submit, Trajectory
from gram.server.engine.runner import Runner, endings
from gram.server.engine.scheduler import Running, Scheduler
from gram.server.engine.slots import Start
from gram.server.engine.views import Views
from gram.server.settings import DeviceError

_log = logging.getLogger("gram")


class Stopwatch:
    """Measures laps, in seconds.

    The steps of several models are started together and finished in turn, so their times overlap. Their laps do not.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the previous lap, or since the start."""
        before, self._last = self._last, time.monotonic()
        return self._last - before


@dataclass
class Lane:
    """Runs the requests of one model. `start` and `finish` make one supervision step of all its live rows.

    `submitted`: each request's message, and when it arrived. `suspects`: requests that an engine may have died of.
    `watched`: for each request that is watched, how many of its trajectories are reported after each of their steps.
    """

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
        self._starts: list[Start] = []  # trajectories that have a slot and wait for the next step
        self._started: dict[int, float] = {}  # requests that start with that step, and the seconds that they waited
        self._stepping: Set[int] = set()  # the requests in the step that runs
        self._error: RuntimeError | None = None  # what went wrong when that step was started

    @property
    def stats(self) -> LaneStats:
        """The model's load now."""
        return LaneStats(self.scheduler.live, self.scheduler.waiting)

    def submit(self, message: Submit) -> None:
        """Queue a request's trajectories."""
        min_steps = min(len(schedule(message.temperature)), message.max_steps)
        self.scheduler.submit(
            message.request,
            message.first_index,
            message.num_trajectories,
            message.prune,
            min_steps,
            background=message.background,
        )
        self.submitted[message.request] = message, time.monotonic()
        if message.suspect:
            self.suspects.add(message.request)
        if message.watch:
            self.watched[message.request] = message.watch

    def cancel(self, request: int) -> None:
        """Free everything that a request holds. Nothing more is reported of it."""
        self.pool.release(self.scheduler.cancel(request))
        self._forget(request)

    def admit(self) -> Set[int]:
        """Give the free slots to waiting trajectories, and return the requests that take part in the next step."""
        own_threshold = self.runner.model.config.halt_threshold
        for running in self.scheduler.admit():
            message, submitted_at = self.submitted[running.request]
            if running.index == message.first_index:
                self._started[running.request] = time.monotonic() - submitted_at
            self._starts.append(
                Start(
                    running.slot,
                    message.puzzle,
                    message.seed,
                    running.index,
                    message.temperature,
                    message.max_steps,
                    message.symmetries,
                    own_threshold if message.halt_threshold is None else message.halt_threshold,
                    message.perturbation,
                )
            )
        return self.scheduler.running_requests

    def step(self) -> StepReport:
        """Make one supervision step."""
        stopwatch = Stopwatch()
        self.start()
        return self.finish(stopwatch)

    def start(self) -> None:
        """Fill the free slots, and start a step."""
        self._stepping = self.admit()
        starts, self._starts = self._starts, []
        try:
            self.pool.place(self.views.show(starts))
            self.runner.start(self.pool)
        except RuntimeError as error:
            self._error = error

    def finish(self, stopwatch: Stopwatch) -> StepReport:
        """Wait for the step, retire the trajectories that end with it, and report both.

        If the device ran out of memory, the requests that took part end, and all others go on.
        """
        error, self._error = self._error, None
        try:
            if error:
                raise error
            return self._retire(self.runner.finish(self.pool), stopwatch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            _log.error("out of device memory while running %s: %s", self.name, error)
            return self._drop(stopwatch)

    def warm_up(self) -> None:
        """Make a step, so that no request has to wait for what a first call sets up. Raises DeviceError if out of memory."""
        model = self.runner.model
        # Encode as many puzzles as can arrive at once. This reserves the memory now; later, another process might have it.
        model.encode(torch.zeros(self.num_slots, model.config.seq_len, dtype=torch.int64, device=self.runner.device))
        self.submit(Submit(-1, self.name, bytes(model.config.seq_len), self.runner.tile * 2, 1, 0, 1.0))
        while not self.scheduler.idle:
            raise_if_out_of_memory(self.step())

    def _retire(self, readout: Readout, stopwatch: Stopwatch) -> StepReport:
        """Take the trajectories that the step ended out of their slots, and report the step."""
        scores = readout.score.tolist()
        rows = {slot: row for row, slot in enumerate(self.pool.slots)}
        ended = self.scheduler.step(dict(zip(rows, zip(scores, endings(readout), strict=True), strict=True)))
        finished = []
        for running, answer in zip(ended, self._answers(ended, rows, readout), strict=True):
            finished.append(_trajectory(running, scores[rows[running.slot]], answer))
            if not self.scheduler.holds(running.request):
                self._forget(running.request)
        steps = self._watch(rows, readout) if self.watched else []
        self.pool.release([running.slot for running in ended])
        started, self._started = self._started, {}
        return StepReport(self.name, finished, started, len(rows), stopwatch.lap(), self.stats, steps=steps)

    def _watch(self, rows: Mapping[int, int], readout: Readout) -> list[Step]:
        """Report the trajectories that go on, of those that are watched."""
        watched = [running for running in self.scheduler.running if running.index < self.watched.get(running.request, 0)]
        return [
            Step(running.request, running.index, running.steps, float(readout.score[rows[running.slot]]), answer)
            for running, answer in zip(watched, self._answers(watched, rows, readout), strict=True)
        ]

    def _answers(self, trajectories: Sequence[Running], rows: Mapping[int, int], readout: Readout) -> list[bytes]:
        """The trajectories' answers to their puzzles as they were sent."""
        slots = [running.slot for running in trajectories]
        return self.views.answers(slots, readout.answers.numpy()[[rows[slot] for slot in slots]])

    def _drop(self, stopwatch: Stopwatch) -> StepReport:
        """End the requests of a step in which the device ran out of memory."""
        self.pool.clear()
        self._started = {}
        for request in self._stepping:
            self.scheduler.cancel(request)
            self._forget(request)
        return StepReport(self.name, [], {}, 0, stopwatch.lap(), self.stats, sorted(self._stepping))

    def _forget(self, request: int) -> None:
        self.submitted.pop(request, None)
        self.suspects.discard(request)
        self.watched.pop(request, None)


def _trajectory(running: Running, score: float, answer: bytes) -> Trajectory:
    """The report of a trajectory that has ended. It leaves out a score or an answer that means nothing."""
    assert running.ending
    match running.ending:
        case Ending.NOT_FINITE:
            return Trajectory(running.request, running.index, running.steps, 0.0, running.ending)
        case Ending.PRUNED:
            return Trajectory(running.request, running.index, running.steps, score, running.ending)
    return Trajectory(running.request, running.index, running.steps, score, running.ending, answer)


def raise_if_out_of_memory(report: StepReport) -> StepReport:
    """Return the report. Raises DeviceError if the device ran out of memory in its step."""
    if report.out_of_memory:
        raise DeviceError(f"out of device memory while running {report.model}; use fewer --slots")
    return report
