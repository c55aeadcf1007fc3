"""Measure the host's share of an engine step without a GPU: the engine's loop around a step that computes nothing.

The loop of the engine process runs with its socket, scheduler, slots, symmetries and reports. Only the step is simulated: it
takes a known time, on a clock of its own, and its rows halt by chance. The host's time is the thread's CPU time, so other work
on the machine changes it little. On that clock the device makes one step after another, in the order of their starts, and is
idle while it has none.
"""

import argparse
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from gram.kernels.readout import Readout
from gram.models.network import GRAM
from gram.models.tasks import TASKS
from gram.server.engine.engine import Engine
from gram.server.engine.messages import FromEngine, StepReport, Submit, Unframer, frame
from gram.server.engine.process import serve
from gram.server.engine.runner import Runner
from gram.server.engine.slots import SlotPool
from gram.server.settings import EngineSettings

TASK = TASKS["nqueens-8"]
_TILE = 64
_TINY = {"dim": 8, "mixer_dim": 8, "mlp_dim": 8, "guidance_dim": 8, "num_layers": 1}
"""Sizes at which moving a row costs no more than its launch on a GPU."""


@dataclass(frozen=True)
class Load:
    """Requests for `k` trajectories each, `rate` of them a second; with rate None, as many as keep all slots busy."""

    name: str
    k: int
    rate: float | None


LOADS = [
    Load("saturated, K = 20", 20, None),
    Load("saturated, K = 1", 1, None),
    Load("1,000/s of K = 1", 1, 1000),
    Load("10/s of K = 100", 100, 10),
]


@dataclass
class Clock:
    """The simulated time in seconds: the host's, and when the device will have made all that was started.

    `device`: the time for which the device worked; `idle`: that for which it waited for the host.
    """

    tile_seconds: float
    now: float = 0.0
    free_at: float = 0.0
    host: float = 0.0
    device: float = 0.0
    idle: float = 0.0
    steps: int = 0
    rows: int = 0
    _mark: float = field(default_factory=time.thread_time)

    def lap(self) -> None:
        """Count the host's CPU time since the last lap."""
        before, self._mark = self._mark, time.thread_time()
        self.host += self._mark - before
        self.now += self._mark - before

    def resume(self) -> None:
        """Leave out the CPU time since the last lap."""
        self._mark = time.thread_time()

    def wait_until(self, moment: float) -> None:
        """Neither the host nor the device has anything to do."""
        self.now = self.free_at = max(self.now, self.free_at, moment)

    def launch(self, rows: int) -> float:
        """Start a step now. Returns when it will be made."""
        seconds = math.ceil(rows / _TILE) * self.tile_seconds
        self.idle += max(0.0, self.now - self.free_at)
        self.free_at = max(self.now, self.free_at) + seconds
        self.device += seconds
        self.steps += 1
        self.rows += rows
        return self.free_at


class SimulatedRunner(Runner):
    """Its step takes as long as the clock says for its tiles, and a quarter of the rows, chosen by their noise keys, halt."""

    tile = _TILE

    def __init__(self, model: GRAM, clock: Clock) -> None:
        super().__init__(model, torch.device("cpu"))
        self.overlaps = True
        self._clock = clock
        self._made_at: dict[SlotPool, float] = {}

    def start(self, pool: SlotPool) -> None:
        self._clock.lap()
        self._made_at[pool] = self._clock.launch(pool.live)
        self._clock.resume()

    def finish(self, pool: SlotPool) -> Readout:
        self._clock.lap()
        self._clock.now = max(self._clock.now, self._made_at[pool])
        readout = self._simulate(pool)
        self._clock.resume()
        return readout

    def _simulate(self, pool: SlotPool) -> Readout:
        columns = pool.columns[: pool.live]
        columns[:, 3] += self.model.config.transitions
        keys = columns.numpy()
        drawn = (keys[:, 1] * 7919 + keys[:, 2] * 104729 + keys[:, 3] * 1299709) % 1009 / 1009
        shown = pool.readout(pool.report[: pool.live])
        numbers = np.stack([drawn, drawn, np.ones_like(drawn), (drawn < 0.26) * 2.0], axis=1)
        shown.numbers.copy_(torch.from_numpy(numbers))
        return shown


class SimulatedEngine(Engine):
    """An engine whose clients are part of it: they send when its clock says so, and read what it sends."""

    def __init__(self, load: Load, clock: Clock, slots: int, requests: int, seed: int = 0) -> None:
        self._clock = clock
        model = [folder for folder in EngineSettings().model if folder.name == TASK.name]
        super().__init__(EngineSettings(model=model, device="cpu", slots=slots, threads=1))
        self.channel, self._theirs = socket.socketpair()
        for end in (self.channel, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        self._theirs.setblocking(False)
        self._unframer: Unframer[FromEngine] = Unframer(FromEngine)
        self._load = load
        self._waiting = self._requests(requests, seed)
        self._next: tuple[float, Submit] | None = next(self._waiting)
        self._in_flight = 0
        self._target = math.ceil(2 * slots / load.k)
        self._left: dict[int, int] = {}
        self.ended = 0

    @property
    def idle(self) -> bool:
        """Whether no model has work. The loop asks this once a turn, and what the clients do now is no work of the host."""
        self._clock.lap()
        self._receive()
        idle = super().idle
        if idle and self._next and self._load.rate:
            self._clock.wait_until(self._next[0])
        sent = self._send()
        if idle and not sent and not self._next:
            self._theirs.shutdown(socket.SHUT_WR)
        self._clock.resume()
        return idle

    def _runner(self, model: GRAM) -> Runner:
        return SimulatedRunner(GRAM(model.config.model_copy(update=_TINY), torch.float32, posterior=False), self._clock)

    def _requests(self, requests: int, seed: int) -> Iterator[tuple[float, Submit]]:
        rng = np.random.default_rng(seed)
        arrival = 0.0
        for number in range(requests):
            arrival += rng.exponential(1 / self._load.rate) if self._load.rate else 0.0
            puzzle = TASK.held_out[rng.integers(len(TASK.held_out))].astype(np.uint8).tobytes()
            yield arrival, Submit(number, TASK.name, puzzle, self._load.k, 16, int(rng.integers(2**53)), 1.0, symmetries=True)

    def _send(self) -> int:
        sent = 0
        while self._next and (self._next[0] <= self._clock.now if self._load.rate else len(self._left) < self._target):
            _, submit = self._next
            self._theirs.sendall(frame(submit))
            self._left[submit.request] = submit.num_trajectories
            self._next = next(self._waiting, None)
            sent += 1
        return sent

    def _receive(self) -> None:
        try:
            data = self._theirs.recv(1 << 24)
        except BlockingIOError:
            return
        for message in self._unframer.feed(data):
            if isinstance(message, StepReport):
                for trajectory in message.finished:
                    self.ended += 1
                    self._left[trajectory.request] -= 1
                    if not self._left[trajectory.request]:
                        del self._left[trajectory.request]


def measure(load: Load, tile_seconds: float, slots: int, trajectories: int) -> tuple[Clock, int]:
    """Run a load. Return its clock, and how many trajectories ended."""
    clock = Clock(tile_seconds)
    engine = SimulatedEngine(load, clock, slots, max(1, trajectories // load.k))
    clock.resume()
    serve(engine.channel, engine)
    return clock, engine.ended


def main() -> None:
    """Print, for each load, the host's time and the engine's rate as a share of the bare step's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.add_argument("--tile-ms", type=float, default=0.64, help=f"time of {_TILE} rows; default: %(default)s, an H100's")
    parser.add_argument("--slots", type=int, default=256, help="default: %(default)s, as on a GPU")
    parser.add_argument("--trajectories", type=int, default=3000, help="trajectories of each load; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each load, the fastest counts; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'load':<20}{'rows':>6}{'us/step':>9}{'us/row':>8}{'us/trajectory':>15}{'of the bare rate':>18}")
    for load in LOADS:
        runs = [measure(load, options.tile_ms / 1e3, options.slots, options.trajectories) for _ in range(options.rounds)]
        clock, ended = min(runs, key=lambda run: run[0].host / run[0].steps)
        print(
            f"{load.name:<20}{clock.rows / clock.steps:>6.1f}{clock.host / clock.steps * 1e6:>9.0f}"
            f"{clock.host / clock.rows * 1e6:>8.2f}{clock.host / ended * 1e6:>15.1f}"
            f"{clock.device / (clock.device + clock.idle):>18.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
