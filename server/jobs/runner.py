"""Works through the jobs of a store, behind all other requests.

It keeps nothing that matters: a job is a lease in the store, and a few puzzles on their way. Whatever goes wrong, the job goes
back to the store, and is taken up again there.
"""

import asyncio
import json
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gram.server.jobs.errors import StoreError
from gram.server.jobs.store import LEASE_SECONDS, Job, Puzzle, Result, Store, Totals
from gram.server.sampling.answers import SolveResponse

log = logging.getLogger("gram")

_MAX_RUNNING = 8
"""Jobs at a time: enough that one of a single puzzle does not wait for one of a hundred thousand."""
_MAX_IN_FLIGHT, _TRAJECTORIES = 64, 512
"""Limits on what a job has in the engines at a time: puzzles, and trajectories, which fill a GPU's slots twice."""
_REST_SECONDS = 10.0
"""After the store failed, since what is run while it can't be kept is run in vain."""
_LOOK_SECONDS = 1.0
"""Between two looks at the store for jobs that other servers have accepted or left."""


class NotNowError(Exception):
    """A puzzle can't be run now, but may be later."""


class Solver(Protocol):
    """Runs the puzzles."""

    def models(self) -> list[str]:
        """The models that can answer now."""

    async def solve(self, job: Job, puzzle: Puzzle) -> Result:
        """The result of a puzzle, which follows from the job and the puzzle alone. Raises NotNowError."""

    def so_far(self, job: Job) -> SolveResponse | None:
        """The ranking until now of a job of one puzzle, if it runs here."""


class Runner:
    """Runs the jobs that no other server runs. All methods run on the event loop."""

    def __init__(self, store: Store, solver: Solver, on_result: Callable[[Result], None]) -> None:
        self.store = store
        self.solver = solver
        self._on_result = on_result
        self._holder = secrets.token_hex(8)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._rests_until = -math.inf
        self.totals = Totals()
        """What the store held at the last look."""

    async def run(self) -> None:
        """Work until cancelled. Gives all jobs back then."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._look()
                except StoreError as error:
                    self._note(error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
        finally:
            running = [*self._running.values()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def wake(self) -> None:
        """There is a new job: look for it now."""
        self._wake.set()

    @property
    def rests(self) -> bool:
        """Whether it begins no job, since the store has just failed."""
        return time.monotonic() < self._rests_until

    async def cancel(self, name: str) -> None:
        """Stop working on a job, if it runs here. Its slots are free for the next step."""
        if task := self._running.get(name):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        await self.store.call(self.store.sweep)
        while not self.rests and len(self._running) < _MAX_RUNNING and (models := self.solver.models()):
            job = await self.store.call(self.store.claim, self._holder, models)
            if job is None:
                break
            if job.id in self._running:  # the store was busy for so long that the lease had run out: now it is renewed
                continue
            self._running[job.id] = asyncio.create_task(self._run(job))
        self.totals = await self.store.call(self.store.totals)

    async def _run(self, job: Job) -> None:
        """Run a job to its end, or as far as it goes now, and give it back."""
        try:
            await self._work(job)
            self._wake.set()
        except NotNowError as reason:
            log.warning("job %s waits: %s", job.id, reason)
        except StoreError as error:
            self._note(error)
        finally:
            del self._running[job.id]
            with suppress(StoreError):  # then the lease runs out by itself
                await asyncio.shield(self.store.call(self.store.release, job.id, self._holder))

    async def _work(self, job: Job) -> None:
        most = _in_flight(job)
        waiting: deque[Puzzle] = deque()
        open_: set[asyncio.Task[Result]] = set()
        last, more = -1, True
        try:
            while True:
                if more and len(waiting) + len(open_) < most:
                    chunk = await self.store.call(self.store.puzzles, job.id, last, most)
                    waiting += chunk
                    last, more = (chunk[-1].number, len(chunk) == most) if chunk else (last, False)
                while waiting and len(open_) < most:
                    open_.add(asyncio.create_task(self.solver.solve(job, waiting.popleft())))
                if not open_:
                    return
                done, open_ = await asyncio.wait(open_, timeout=LEASE_SECONDS / 3, return_when=asyncio.FIRST_COMPLETED)
                results = [task.result() for task in done]
                if not await self.store.call(self.store.record, job.id, self._holder, results):
                    return  # it has been deleted, or another server has taken it for abandoned
                for result in results:
                    self._on_result(result)
        finally:
            for task in open_:
                task.cancel()
            await asyncio.gather(*open_, return_exceptions=True)

    def _note(self, error: StoreError) -> None:
        """Rest, since the store fails, and say so if that is news."""
        if not self.rests:
            log.error("%s; the jobs wait", error)
        self._rests_until = time.monotonic() + _REST_SECONDS


def _in_flight(job: Job) -> int:
    """How many puzzles of a job run at a time."""
    options = json.loads(job.options)
    trajectories = options.get("num_trajectories") or options["num_samples"]
    return int(min(_MAX_IN_FLIGHT, 1 + math.ceil(_TRAJECTORIES / trajectories)))
