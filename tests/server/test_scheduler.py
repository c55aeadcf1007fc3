"""The scheduler: no slot held twice, none leaked, every trajectory ends once, no request starves."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.scheduler import Scheduler

REQUESTS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(0, 20)), min_size=1, max_size=12)
"""(trajectories, max_steps, step of arrival) of each request."""


@settings(deadline=None)
@given(
    slots=st.integers(1, 9), requests=REQUESTS, cancelled=st.sets(st.integers(0, 11)), halts=st.randoms(use_true_random=False)
)
def test_every_trajectory_ends_exactly_once_and_no_slot_leaks(
    slots: int, requests: list[tuple[int, int, int]], cancelled: set[int], halts: random.Random
) -> None:
    scheduler = Scheduler(slots)
    ended: Counter[tuple[int, int]] = Counter()
    holder: dict[int, tuple[int, int]] = {}
    gone: set[int] = set()
    step = 0
    while step <= 20 or not scheduler.idle:
        for number, (trajectories, max_steps, arrival) in enumerate(requests):
            if arrival == step:
                scheduler.submit(number, 0, trajectories, max_steps)
        if step == 10:
            for number in cancelled & set(range(len(requests))):
                for slot in scheduler.cancel(number):
                    assert holder.pop(slot)[0] == number
                gone.add(number)
        for slot, request, trajectory in scheduler.admit():
            assert slot not in holder
            assert 0 <= slot < slots
            holder[slot] = request, trajectory
        assert scheduler.live == len(holder) <= slots
        assert not (scheduler.waiting and scheduler.live < slots), "a slot is idle while a trajectory waits"
        for slot in list(holder):
            if outcome := scheduler.step(slot, halts.random(), finite=halts.random() < 0.9):
                request, trajectory, steps = outcome
                assert holder.pop(slot) == (request, trajectory)
                assert 1 <= steps <= requests[request][1]
                ended[request, trajectory] += 1
        step += 1
        assert step < 10_000
    assert not holder
    assert scheduler.live == scheduler.waiting == 0
    assert set(ended.values()) <= {1}
    for number, (trajectories, _, arrival) in enumerate(requests):
        finished = sum(request == number for request, _ in ended)
        assert finished == trajectories if number not in gone or arrival > 10 else finished <= trajectories


@settings(deadline=None)
@given(slots=st.integers(1, 8), others=st.lists(st.integers(1, 1000), max_size=6), max_steps=st.integers(1, 5))
def test_a_new_request_starts_within_one_turn_of_the_others(slots: int, others: list[int], max_steps: int) -> None:
    scheduler = Scheduler(slots)
    for number, trajectories in enumerate(others):
        scheduler.submit(number, 0, trajectories, max_steps)
    live = [slot for slot, _, _ in scheduler.admit()]
    for slot in live:
        scheduler.step(slot, 0.0, finite=True)
    scheduler.submit(99, 0, 1, max_steps)
    started_before = 0
    for _ in range(max_steps * (len(others) + 1) + 1):
        admitted = list(scheduler.admit())
        if any(request == 99 for _, request, _ in admitted):
            started_before += [request for _, request, _ in admitted].index(99)
            break
        started_before += len(admitted)
        for slot in list(scheduler._running):
            scheduler.step(slot, 0.0, finite=True)
    else:
        pytest.fail("the new request never started")
    assert started_before <= len(others)


def test_a_row_that_is_not_finite_ends_at_once() -> None:
    scheduler = Scheduler(1)
    scheduler.submit(7, 0, 1, 16)
    ((slot, _, _),) = scheduler.admit()
    assert scheduler.step(slot, float("nan"), finite=False) == (7, 0, 1)
    assert scheduler.idle


def test_a_trajectory_halts_only_above_the_threshold() -> None:
    scheduler = Scheduler(1)
    scheduler.submit(0, 0, 1, 16)
    ((slot, _, _),) = scheduler.admit()
    assert scheduler.step(slot, 0.5, finite=True) is None
    assert scheduler.step(slot, 0.51, finite=True) == (0, 0, 2)


def test_a_request_resumes_at_its_first_unfinished_trajectory() -> None:
    scheduler = Scheduler(8)
    scheduler.submit(0, 5, 8, 1)
    assert sorted(trajectory for _, _, trajectory in scheduler.admit()) == [5, 6, 7]


def test_misuse_is_refused() -> None:
    scheduler = Scheduler(1)
    scheduler.submit(0, 0, 1, 1)
    with pytest.raises(ValueError, match="already"):
        scheduler.submit(0, 0, 1, 1)
    with pytest.raises(ValueError, match="no trajectory"):
        scheduler.submit(1, 3, 3, 1)
    assert scheduler.cancel(42) == []
