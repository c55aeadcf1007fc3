"""A short measurement of how many threads and slots are fastest on this CPU, when a server's engine starts.

The rule in device.py can't know whether two CPUs share their arithmetic units, nor how much of a step is overhead.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from gram.models.network import GRAM
from gram.server.engine.device import Placement
from gram.server.engine.rows import cpu_runner
from gram.server.engine.runner import Runner, Threads
from gram.server.engine.slots import SlotPool, Start

_SECONDS = 1.0
"""Time limit of the measurement, after the first turn of each candidate."""

_TURNS = 5

_CLEARLY_FASTER = 0.9
"""A candidate replaces the rule if its time per row is below this share of the rule's, so that noise changes nothing."""

_TILES_PER_THREAD = (2, 4)


def calibrate(model: GRAM, rule: Placement, *, threads: bool, slots: bool) -> Placement:
    """Return the rule's placement, or a clearly faster one. `threads` and `slots` say which of the two may change."""
    candidates = [*_candidates(rule, threads=threads, slots=slots)]
    if len(candidates) == 1:
        return rule
    with ExitStack() as stack:
        steps = []
        for candidate in candidates:
            workers = stack.enter_context(Threads(candidate.threads)) if candidate.threads > 1 else None
            runner = cpu_runner(model, candidate.device, workers)
            # If a flag asks for many slots, some of them are enough to compare the threads.
            rows = min(candidate.slots, Runner.tile * max(_TILES_PER_THREAD) * candidate.threads)
            steps.append((runner, _full(runner, rows)))
        best = [math.inf] * len(candidates)
        begin = time.perf_counter()
        # The candidates take turns, and the fastest step of each counts, since other work on the machine makes steps slower.
        for turn in range(_TURNS):
            for i, (runner, pool) in enumerate(steps):
                if turn and time.perf_counter() - begin > _SECONDS:
                    break
                start = time.perf_counter()
                runner.step(pool)
                best[i] = min(best[i], (time.perf_counter() - start) / pool.num_slots)
    fastest = min(range(len(candidates)), key=best.__getitem__)
    return candidates[fastest] if best[fastest] < _CLEARLY_FASTER * best[0] else rule


def _candidates(rule: Placement, *, threads: bool, slots: bool) -> Iterator[Placement]:
    """The candidates, the rule first."""
    yield rule
    for count in dict.fromkeys([rule.threads, max(1, rule.threads // 2)] if threads else [rule.threads]):
        for tiles in _TILES_PER_THREAD:
            candidate = replace(rule, threads=count, slots=Runner.tile * tiles * count if slots else rule.slots)
            if candidate != rule:
                yield candidate


def _full(runner: Runner, slots: int) -> SlotPool:
    """A pool with a trajectory that never ends in every slot."""
    pool = runner.pool(slots)
    puzzle = np.zeros(runner.model.config.seq_len, np.uint8).tobytes()
    pool.place([Start(slot, puzzle, 0, slot, 1.0) for slot in range(slots)])
    return pool
