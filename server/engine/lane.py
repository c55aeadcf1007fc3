"""One model in the engine."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch

from gram.models.tasks import Task
from gram.models.temperature import listed
from gram.server.engine.messages import LaneStats, Step, StepReport, Submit, Trajectory
from gram.server.engine.runner import Observed, Runner
from gram.server.engine.scheduler import Observation, Scheduler
from gram.server.engine.slots import Start
from gram.server.engine.views import Views
from gram.server.settings import DeviceError

_log = logging.getLogger("gram")


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
            hold(self.launch(laps())())

    def stats(self) -> LaneStats:
        """Its load now."""
        return LaneStats(self.scheduler.live, self.scheduler.waiting)

    def _forget(self, request: int) -> None:
        self.submitted.pop(request, None)
        self.suspects.discard(request)
        self.watched.pop(request, None)


def open_lanes(runners: Mapping[str, tuple[Task, Runner]], slots: int, *, fewer: bool) -> dict[str, Lane]:
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


def hold(report: StepReport) -> StepReport:
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
