"""How a request is divided over engines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.server.supervision.balance import Backlog, Load, divide, loads

LOADS = st.lists(st.builds(Load, st.floats(0, 100), st.floats(0.1, 100)), min_size=1, max_size=8)


@given(st.integers(1, 10_000), LOADS, st.integers(1, 64))
def test_all_is_given_and_no_engine_gets_little_or_what_another_would_have_done_before(
    count: int, engines: list[Load], least: int
) -> None:
    sizes = divide(count, engines, least)
    assert sum(sizes) == count
    assert len(sizes) == len(engines)
    used = [(size, engine) for size, engine in zip(sizes, engines, strict=True) if size]
    if len(used) > 1:
        assert all(size >= least - 1 for size, _ in used), "but for the rounding"
        ends = [engine.seconds + size / engine.rate for size, engine in used]
        slack = 2 / min(engine.rate for _, engine in used)
        assert max(ends) - min(ends) <= slack, "they end together"
    alone = min(engine.seconds + count / engine.rate for engine in engines)
    assert max(engine.seconds + (size - 1) / engine.rate for size, engine in used) <= alone + 1e-6, "no later than one"


@pytest.mark.parametrize(
    ("count", "engines", "sizes"),
    [
        (20, [Load(0, 1), Load(0, 1)], [20, 0]),
        (100, [Load(0, 1), Load(0, 1)], [50, 50]),
        (90, [Load(0, 1), Load(0, 2)], [30, 60]),
        (100, [Load(0, 1), Load(1000, 1)], [100, 0]),
        (100, [Load(40, 1), Load(0, 1)], [30, 70]),
    ],
)
def test_shares_follow_what_engines_have_to_do_and_how_fast_they_are(count: int, engines: list[Load], sizes: list[int]) -> None:
    assert divide(count, engines, least=16) == sizes


def test_an_engine_of_unknown_rate_is_taken_to_be_like_the_others() -> None:
    backlogs = [Backlog({"a": 10}, {"a": 2.0}), Backlog({"a": 30}, {}), Backlog({"a": 0, "b": 5}, {"a": 4.0})]
    assert loads(backlogs, "a") == [Load(5, 2), Load(10, 3), Load(5, 4)]
