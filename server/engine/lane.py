"""A lane is one model in the engine: its scheduler, slots and runner, and how each slot sees its puzzle."""

import logging
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from gram.kernels.readout import Readout
from gram.models.perturbation import Perturbation
from gram.models.tasks import Task
from gram.models.tasks.symmetry import Symmetries
from gram.models.temperature import schedule
from gram.server.engine.device import is_out_of_memory
from gram.server.engine.halves import Half
from gram.server.engine.messages import Ending, LaneStats, Step, StepReport, Submit, Trajectory
from gram.server.engine.runner import Runner, endings
from gram.server.engine.scheduler import Running, Scheduler
from gram.server.engine.slots import Start
from gram.server.engine.views import Views, as_sent
from gram.server.settings import DeviceError

_log = logging.getLogger("gram")


_MOST_COPIED = 1000
"""Requests for more trajectories are never computed once for all: their reports would come faster than a client can read."""


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
class Outcome:
    """What a step brought. Its report is written while the next step runs, so that the device does not wait for it.

    `head`: the report without the trajectories that ended. `ended`: those, with their scores. `answers`: their answers to
    what they saw [n, N]. `copied`: for each request whose trajectories are all alike, how many it has.
    """

    head: StepReport
    ended: list[tuple[Running, float]] = field(default_factory=list)
    views: Symmetries | None = None
    answers: NDArray[np.uint8] | None = None
    copied: dict[int, int] = field(default_factory=dict)

    def report(self) -> StepReport:
        """Write the report."""
        if self.views is None or self.answers is None:
            return self.head
        for (running, score), answer in zip(self.ended, as_sent(self.views, self.answers), strict=True):
            trajectory = _trajectory(running, score, answer)
            self.head.finished.append(trajectory)
            for index in range(running.index + 1, self.copied.get(running.request, 0)):
                self.head.finished.append(msgspec.structs.replace(trajectory, index=index))
        return self.head


@dataclass
class Lane:
    """Runs the requests of one model. `start` and `finish` make one supervision step of the live rows of a half.

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
        sizes = self.runner.sizes(self.num_slots)
        self.halves = [Half(part, self.runner.pool(size)) for part, size in enumerate(sizes)]
        self.scheduler = Scheduler(*sizes)
        self.views = Views(self.task, self.num_slots)
        self._copied: dict[int, int] = {}  # for each request whose trajectories are all alike, how many it has

    @property
    def stats(self) -> LaneStats:
        """The model's load now."""
        return LaneStats(self.scheduler.live, self.scheduler.waiting)

    def submit(self, message: Submit) -> None:
        """Queue a request's trajectories. If all must be alike, only the first one runs, and is reported for all."""
        min_steps = min(len(schedule(message.temperature)), message.max_steps)
        stop = message.num_trajectories
        if self._alike(message):
            self._copied[message.request] = stop
            stop = message.first_index + 1
        self.scheduler.submit(
            message.request,
            message.first_index,
            stop,
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
        self._release(self.scheduler.cancel(request))
        self._forget(request)

    def admit(self, half: Half) -> Set[int]:
        """Give the free slots of a half to waiting trajectories, and return the requests that take part in its next step."""
        own_threshold = self.runner.model.config.halt_threshold
        for running in self.scheduler.admit(half.part, evenly=self.runner.by_row):
            message, submitted_at = self.submitted[running.request]
            if running.index == message.first_index:
                half.started[running.request] = time.monotonic() - submitted_at
            half.starts.append(
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
        return self.scheduler.running_requests(half.part)

    def step(self, half: Half) -> list[StepReport]:
        """Make a step of a half by itself, if it has any work."""
        stopwatch = Stopwatch()
        return [self.finish(half, stopwatch).report()] if self.start(half) else []

    def start(self, half: Half) -> bool:
        """Fill the free slots of a half, and start its step. Returns whether it has any."""
        requests = self.admit(half)
        if requests:
            starts, half.starts = half.starts, []
            half.start(self.runner, self.views.show(starts), requests)
        return bool(requests)

    def finish(self, half: Half, stopwatch: Stopwatch) -> Outcome:
        """Wait for a half's step, and retire the trajectories that end with it.

        If the device ran out of memory, the requests that took part end, and all others go on.
        """
        stepping = half.stepping or set()
        try:
            return self._retire(half, half.finish(self.runner), stopwatch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            _log.error("out of device memory while running %s: %s", self.name, error)
            return Outcome(self._drop(half, stepping, stopwatch))

    def warm_up(self) -> None:
        """Make a step, so that no request has to wait for what a first call sets up. Raises DeviceError if out of memory."""
        model = self.runner.model
        # Encode as many puzzles as can arrive at once. This reserves the memory now; later, another process might have it.
        model.encode(torch.zeros(self.num_slots, model.config.seq_len, dtype=torch.int64, device=self.runner.device))
        # The perturbation makes the rows differ, so that all of them are computed.
        noise = Perturbation(1.0, "low")
        self.submit(Submit(-1, self.name, bytes(model.config.seq_len), self.runner.tile * 2, 1, 0, 1.0, perturbation=noise))
        while not self.scheduler.idle:
            for half in self.halves:
                for report in self.step(half):
                    raise_if_out_of_memory(report)

    def _retire(self, half: Half, readout: Readout, stopwatch: Stopwatch) -> Outcome:
        """Take the trajectories that the step ended out of their slots."""
        live = half.pool.live
        ended = self.scheduler.step(self._shown(half, readout), half.part)
        slots = [running.slot for running in ended]
        rows = half.pool.rows(slots)
        scores = readout.score.numpy()[rows].tolist()
        answers = readout.answers.numpy()[rows]  # a copy, since the next step overwrites the readout
        copied = {running.request: self._copied[running.request] for running in ended if running.request in self._copied}
        for request in {running.request for running in ended}:
            if not self.scheduler.holds(request):
                self._forget(request)
        steps = self._watch(half, readout) if self.watched else []
        half.release(slots)
        started, half.started = half.started, {}
        head = StepReport(self.name, [], started, live, half.pool.num_slots, stopwatch.lap(), self.stats, steps=steps)
        return Outcome(head, [*zip(ended, scores, strict=True)], self.views.of(slots), answers, copied)

    def _shown(self, half: Half, readout: Readout) -> dict[int, tuple[float, Ending | None]]:
        """What the scheduler must know of a step: its rows that end and, if a request is pruned, all others."""
        every = self.scheduler.prunes
        shown = zip(half.pool.slots, readout.score.tolist(), endings(readout), strict=True)
        return {slot: (score, ending) for slot, score, ending in shown if ending is not None or every}

    def _watch(self, half: Half, readout: Readout) -> list[Step]:
        """Report the trajectories of a half that go on, of those that are watched."""
        running = self.scheduler.running(self.watched, half.part)
        running = [each for each in running if each.index < self.watched[each.request]]
        slots = [each.slot for each in running]
        rows = half.pool.rows(slots)
        answers = self.views.answers(slots, readout.answers.numpy()[rows])
        return [
            Step(each.request, index, each.steps, float(readout.score[row]), answer)
            for each, row, answer in zip(running, rows, answers, strict=True)
            for index in range(each.index, min(self.watched[each.request], self._copied.get(each.request, each.index + 1)))
        ]

    def _drop(self, half: Half, requests: Set[int], stopwatch: Stopwatch) -> StepReport:
        """End the requests of a step in which the device ran out of memory."""
        half.clear()
        for request in requests:
            held = self.scheduler.cancel(request)
            self._release([slot for slot in held if self.scheduler.part(slot) != half.part])
            self._forget(request)
        return StepReport(self.name, [], {}, 0, half.pool.num_slots, stopwatch.lap(), self.stats, sorted(requests))

    def _release(self, slots: Sequence[int]) -> None:
        """Free slots of either half."""
        for half in self.halves:
            if own := [slot for slot in slots if self.scheduler.part(slot) == half.part]:
                half.release(own)

    def _alike(self, message: Submit) -> bool:
        """Whether all trajectories of a request are one computation: they see the same puzzle, and there is no noise."""
        noiseless = self.runner.model.config.guidance == "none" or not any(schedule(message.temperature))
        same_view = not (message.symmetries and self.task.num_draws)
        plain = message.perturbation is None and message.prune is None
        return noiseless and same_view and plain and message.num_trajectories <= _MOST_COPIED

    def _forget(self, request: int) -> None:
        self._copied.pop(request, None)
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
