"""The scheduler holds no slot twice, leaks none, ends every trajectory once, starves no request, and prunes by scores alone."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.server.engine.messages import Ending
from gram.server.engine.pruning import Prune
from gram.server.engine.scheduler import BACKGROUND_SHARE, Running, Scheduler

Shown = tuple[float, Ending | None]
GOES_ON: Shown = (0.5, None)
HALTS: Shown = (0.5, Ending.HALTED)
REQUESTS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(0, 20)), min_size=1, max_size=12)
"""(trajectories, max_steps, step of arrival) of each request."""


PARTS = st.one_of(st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
"""The slots of each part."""


@given(
    parts=PARTS,
    evenly=st.booleans(),
    requests=REQUESTS,
    cancelled=st.sets(st.integers(0, 11)),
    halts=st.randoms(use_true_random=False),
)
def test_every_trajectory_ends_exactly_once_and_no_slot_leaks(
    parts: tuple[int, ...], evenly: bool, requests: list[tuple[int, int, int]], cancelled: set[int], halts: random.Random
) -> None:
    scheduler, slots = Scheduler(*parts), sum(parts)
    ended: Counter[tuple[int, int]] = Counter()
    holder: dict[int, tuple[int, int]] = {}
    made: Counter[int] = Counter()
    gone: set[int] = set()
    step = 0
    while step <= 20 or not scheduler.idle:
        for number, (trajectories, _, arrival) in enumerate(requests):
            if arrival == step:
                prune = Prune(0.5, (1, 3)) if number % 2 else None
                scheduler.submit(number, 0, trajectories, prune, background=number % 3 == 0)
        if step == 10:
            for number in cancelled & set(range(len(requests))):
                for slot in scheduler.cancel(number):
                    assert holder.pop(slot)[0] == number
                gone.add(number)
        part = step % len(parts)
        own = range(sum(parts[:part]), sum(parts[: part + 1]))
        for running in scheduler.admit(part, evenly=evenly):
            assert running.slot not in holder
            assert running.slot in own
            holder[running.slot] = running.request, running.index
            made[running.slot] = 0
        assert scheduler.live == len(holder) <= slots
        live = len(holder.keys() & set(own))
        full = live == len(own) or (evenly and live * len(parts) >= scheduler.live + scheduler.waiting)
        assert full or not scheduler.waiting, "a slot is idle while a trajectory waits"
        shown: dict[int, Shown] = {}
        for slot in holder.keys() & set(own):
            request, _ = holder[slot]
            made[slot] += 1
            ending = Ending.DEPTH if made[slot] == requests[request][1] else Ending.HALTED if halts.random() < 0.4 else None
            shown[slot] = halts.random(), ending
        for running in scheduler.step(shown, part):
            assert holder.pop(running.slot) == (running.request, running.index)
            assert running.steps == made[running.slot]
            assert running.ending is (shown[running.slot][1] or Ending.PRUNED)
            ended[running.request, running.index] += 1
        step += 1
        assert step < 10_000
    assert not holder
    assert scheduler.live == scheduler.waiting == 0
    assert set(ended.values()) <= {1}
    for number, (trajectories, _, arrival) in enumerate(requests):
        finished = sum(request == number for request, _ in ended)
        assert finished == trajectories if number not in gone or arrival > 10 else finished <= trajectories


@given(slots=st.integers(1, 8), others=st.lists(st.integers(1, 1000), max_size=6), depth=st.integers(1, 5))
def test_a_new_request_starts_within_one_turn_of_the_others(slots: int, others: list[int], depth: int) -> None:
    """Every trajectory takes `depth` steps."""
    scheduler = Scheduler(slots)
    made: Counter[int] = Counter()

    def admit() -> list[int]:
        admitted = list(scheduler.admit())
        made.update({running.slot: -made[running.slot] for running in admitted})
        return [running.request for running in admitted]

    def step() -> None:
        made.update(range(slots))
        scheduler.step({slot: (0.5, Ending.DEPTH if made[slot] == depth else None) for slot in range(slots)})

    for number, trajectories in enumerate(others):
        scheduler.submit(number, 0, trajectories)
    admit()
    step()
    scheduler.submit(99, 0, 1)
    started_before = 0
    for _ in range(depth * (len(others) + 1) + 1):
        admitted = admit()
        if 99 in admitted:
            started_before += admitted.index(99)
            break
        started_before += len(admitted)
        step()
    else:
        pytest.fail("the new request never started")
    assert started_before <= len(others)


@given(slots=st.integers(1, 8), asked=st.integers(0, 60))
def test_the_background_gets_what_is_left_and_a_small_share_beside_others(slots: int, asked: int) -> None:
    scheduler = Scheduler(slots)
    scheduler.submit(0, 0, 1000, background=True)
    scheduler.submit(1, 0, 1000, background=True)
    if asked:
        scheduler.submit(2, 0, asked)
    started: list[int] = []
    while len(started) < 200:
        admitted = [*scheduler.admit()]
        started += [running.request for running in admitted]
        scheduler.step({running.slot: HALTS for running in admitted})
    until = next((place for place in reversed(range(200)) if started[place] == 2), -1) + 1
    assert sum(request != 2 for request in started[:until]) == until // BACKGROUND_SHARE if asked else until == 0
    assert abs(started.count(0) - started.count(1)) <= 1


def test_a_trajectory_that_retires_ends_and_one_that_does_not_goes_on() -> None:
    scheduler = Scheduler(1)
    scheduler.submit(7, 0, 1)
    (slot,) = (running.slot for running in scheduler.admit())
    assert scheduler.step({slot: GOES_ON}) == []
    assert scheduler.step({slot: (math.nan, Ending.DEPTH)}) == [Running(slot, 7, 0, 2, Ending.DEPTH)]
    assert scheduler.idle


def test_none_halts_before_its_least_steps_but_one_whose_state_is_lost_ends() -> None:
    scheduler = Scheduler(2)
    scheduler.submit(7, 0, 2, min_steps=3)
    first, second = (running.slot for running in scheduler.admit())
    lost = math.nan, Ending.NOT_FINITE
    assert scheduler.step({first: HALTS, second: GOES_ON}) == []
    assert scheduler.step({first: HALTS, second: lost}) == [Running(second, 7, 1, 2, Ending.NOT_FINITE)]
    assert scheduler.step({first: HALTS}) == [Running(first, 7, 0, 3, Ending.HALTED)]


Course = list[tuple[bool, float]]
"""What a trajectory shows at each of its steps: whether it halts, and its score."""

COURSES = st.lists(
    st.lists(st.tuples(st.sampled_from([False] * 5 + [True]), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=5, max_size=5),
    min_size=1,
    max_size=30,
)
PRUNES = st.builds(
    Prune,
    keep=st.floats(0, 1, exclude_min=True, exclude_max=True),
    steps=st.sets(st.integers(1, 6), min_size=1).map(lambda steps: tuple(sorted(steps))),
)


def fates(courses: list[Course], prune: Prune) -> list[tuple[int, int, bool]]:
    """The rule of pruning by its definition, one trajectory after another: (index, steps, pruned) of each."""
    entries: dict[int, list[tuple[float, int]]] = {step: [] for step in prune.steps}
    ends = []
    for index, course in enumerate(courses):
        for step, (halts, score) in enumerate(course, start=1):
            pruned = False
            if halts or step == len(course):
                break
            if step in entries:
                entries[step].append((-score, index))
                rank = sorted(entries[step]).index((-score, index)) + 1
                pruned = rank > max(1, math.ceil(prune.keep * len(entries[step])))
            if pruned:
                break
        ends.append((index, step, pruned))
    return ends


@given(
    courses=COURSES,
    prune=PRUNES,
    parts=PARTS | st.tuples(st.integers(1, 40)) | st.tuples(st.integers(1, 20), st.integers(1, 20)),
    evenly=st.booleans(),
    requests=REQUESTS,
    order=st.randoms(use_true_random=False),
)
def test_who_is_pruned_follows_from_the_requests_own_scores(
    courses: list[Course],
    prune: Prune,
    parts: tuple[int, ...],
    evenly: bool,
    requests: list[tuple[int, int, int]],
    order: random.Random,
) -> None:
    """It depends neither on the slots and their parts, nor on other requests, nor on the order in which the rows are shown."""
    scheduler = Scheduler(*parts)
    holder: dict[int, list[int]] = {}
    ends = []
    for step in range(10_000):
        for number, (trajectories, _, arrival) in enumerate(requests, start=1):
            if arrival == step:
                scheduler.submit(number, 0, trajectories, prune if number % 2 else None)
        if step == 5:
            scheduler.submit(0, 0, len(courses), prune)
        part = step % len(parts)
        for running in scheduler.admit(part, evenly=evenly):
            holder[running.slot] = [running.request, running.index, 0]
        own = holder.keys() & set(range(sum(parts[:part]), sum(parts[: part + 1])))
        shown: dict[int, Shown] = {}
        for slot in order.sample(sorted(own), len(own)):
            request, index, steps = holder[slot]
            holder[slot][2] += 1
            depth = 5 if request == 0 else requests[request - 1][1]
            halts, score = courses[index][steps] if request == 0 else (order.random() < 0.2, order.random())
            shown[slot] = score, Ending.HALTED if halts else Ending.DEPTH if steps + 1 == depth else None
        for running in scheduler.step(shown, part):
            del holder[running.slot]
            if running.request == 0:
                ends.append((running.index, running.steps, running.ending is Ending.PRUNED))
        if step >= 5 and not scheduler.holds(0):
            break
    assert sorted(ends) == fates(courses, prune)
    assert not all(pruned for _, _, pruned in ends)


def test_a_request_resumes_at_its_first_unfinished_trajectory() -> None:
    scheduler = Scheduler(8)
    scheduler.submit(0, 5, 8)
    assert sorted(running.index for running in scheduler.admit()) == [5, 6, 7]


def test_misuse_is_refused() -> None:
    scheduler = Scheduler(1)
    scheduler.submit(0, 0, 1)
    with pytest.raises(ValueError, match="already"):
        scheduler.submit(0, 0, 1)
    with pytest.raises(ValueError, match="no trajectory"):
        scheduler.submit(1, 3, 3)
    with pytest.raises(ValueError, match="pruned"):
        scheduler.submit(1, 3, 5, Prune(0.5, (2,)))
    assert scheduler.cancel(42) == []
