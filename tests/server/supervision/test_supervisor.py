"""What a request still needs of a new engine, after the death of one."""

import asyncio
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.server.engine.messages import Ending, Step, Submit, Trajectory
from gram.server.engine.pruning import Prune
from gram.server.supervision.job import MAX_UNREAD_STEPS, Job, Share

SUBMIT = Submit(0, "nqueens-8", bytes(64), num_trajectories=4, max_steps=16, seed=1, temperature=1.0)
PRUNED = msgspec.structs.replace(SUBMIT, prune=Prune(0.5, (2, 4)))


def whole(submit: Submit) -> Share:
    return Job(submit).share(0, 0, submit.num_trajectories)


def accept(share: Share, *indices: int) -> None:
    for index in indices:
        share.accept(Trajectory(0, index, 3, 0.5, Ending.HALTED, bytes(64)))


@pytest.mark.parametrize(("submit", "first"), [(SUBMIT, 2), (PRUNED, 0)])
def test_it_starts_at_the_first_gap_or_with_pruning_at_the_beginning_and_delivers_nothing_twice(
    submit: Submit, first: int
) -> None:
    share = whole(submit)
    accept(share, 0, 3, 1)
    assert share.unfinished() == msgspec.structs.replace(submit, first_index=first)
    accept(share, *range(first, 4))
    delivered = [share.job.results.get_nowait() for _ in range(share.job.results.qsize())]
    assert [trajectory.index for trajectory in delivered if isinstance(trajectory, Trajectory)] == [0, 3, 1, 2]


@pytest.mark.parametrize("submit", [SUBMIT, PRUNED])
def test_a_request_whose_trajectories_are_all_here_needs_nothing(submit: Submit) -> None:
    share = whole(submit)
    accept(share, 2, 0, 1, 3)
    assert share.unfinished() is None


@given(st.data(), st.integers(1, 12), st.sampled_from([SUBMIT, PRUNED]), st.integers(0, 5))
def test_however_often_engines_die_each_trajectory_is_delivered_once(
    data: st.DataObject, trajectories: int, submit: Submit, deaths: int
) -> None:
    share = whole(msgspec.structs.replace(submit, num_trajectories=trajectories))
    for life in range(deaths + 1):
        resumed = share.unfinished()
        if resumed is None:
            break
        reported = data.draw(st.permutations(range(resumed.first_index, trajectories)))
        accept(share, *reported[: None if life == deaths else data.draw(st.integers(0, trajectories))])
    delivered = [share.job.results.get_nowait() for _ in range(share.job.results.qsize())]
    assert sorted(trajectory.index for trajectory in delivered if isinstance(trajectory, Trajectory)) == [*range(trajectories)]
    assert share.complete
    assert share.unfinished() is None


@given(st.data(), st.integers(2, 12))
def test_a_share_that_is_divided_delivers_each_trajectory_once(data: st.DataObject, trajectories: int) -> None:
    share = whole(msgspec.structs.replace(SUBMIT, num_trajectories=trajectories))
    accept(share, *data.draw(st.lists(st.integers(0, trajectories - 1), max_size=trajectories - 1, unique=True)))
    remaining, at = share.remaining, data.draw(st.integers(1, trajectories - 1))
    parts = share.job.split(share, at, itertools.count(7))
    assert share.job.shares == [*parts]
    assert [part.submit.request for part in parts] == [7, 8]
    assert sum(part.remaining for part in parts) <= remaining
    for part in parts:
        if resumed := part.unfinished():
            accept(part, *data.draw(st.permutations(range(resumed.first_index, resumed.num_trajectories))))
        assert part.complete
    delivered = [share.job.results.get_nowait() for _ in range(share.job.results.qsize())]
    assert sorted(trajectory.index for trajectory in delivered if isinstance(trajectory, Trajectory)) == [*range(trajectories)]


def show(share: Share, index: int, *steps: int) -> None:
    for step in steps:
        share.show(Step(0, index, step, 0.5, bytes(64)))


def read_all(job: Job) -> list[tuple[int, int]]:
    """What waits for the reader: trajectory and step of each thing."""

    async def read() -> list[tuple[int, int]]:
        results = [await job.read() for _ in range(job.results.qsize())]
        return [(result.index, result.steps) for result in results]

    return asyncio.run(read())


def test_a_step_is_shown_once_though_another_engine_makes_it_again() -> None:
    share = whole(SUBMIT)
    show(share, 0, 1, 2)
    accept(share, 1)
    show(share, 0, 1, 2, 3)
    show(share, 1, 1, 2)
    accept(share, 0, 1)
    show(share, 0, 4)
    assert read_all(share.job) == [(0, 1), (0, 2), (1, 3), (0, 3), (0, 3)]


def test_a_slow_reader_misses_steps_but_no_trajectory() -> None:
    share = whole(SUBMIT)
    show(share, 0, *range(1, 2 * MAX_UNREAD_STEPS))
    accept(share, 1, 2)
    assert share.job.unread == 2
    seen = read_all(share.job)
    assert seen == [(0, step) for step in range(1, MAX_UNREAD_STEPS + 1)] + [(1, 3), (2, 3)]
    show(share, 0, 2 * MAX_UNREAD_STEPS)
    assert read_all(share.job) == [(0, 2 * MAX_UNREAD_STEPS)], "what is shown later comes through again"


def test_deaths_are_forgotten_when_a_request_brings_something_new() -> None:
    share = whole(SUBMIT)
    accept(share, 1, 3)
    show(share, 2, 1)
    share.deaths = 2
    accept(share, 1, 3)
    show(share, 2, 1)
    assert share.deaths == 2, "it may be its trajectory 0 that engines die of"
    show(share, 2, 2)
    assert share.deaths == 0
    share.deaths = 2
    accept(share, 2)
    assert share.deaths == 0
