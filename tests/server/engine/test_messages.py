"""The framing between the processes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.server.engine.messages import (
    Cancel,
    Ending,
    FromEngine,
    LaneStats,
    StepReport,
    Submit,
    ToEngine,
    Trajectory,
    Unframer,
    frame,
)
from gram.server.engine.pruning import Prune

MESSAGES = st.lists(
    st.one_of(
        st.builds(Cancel, request=st.integers(0, 2**32)),
        st.builds(
            Submit,
            request=st.integers(0, 2**32),
            model=st.text(max_size=20),
            puzzle=st.binary(max_size=100),
            num_trajectories=st.integers(1, 10**6),
            max_steps=st.integers(1, 1000),
            seed=st.integers(0, 2**63 - 1),
            temperature=st.floats(0, 10) | st.lists(st.floats(0, 10), min_size=1, max_size=8),
            prune=st.none() | st.builds(Prune, keep=st.floats(0, 1), steps=st.tuples(st.integers(1, 9), st.integers(10, 99))),
        ),
    ),
    max_size=10,
)


@given(messages=MESSAGES, cuts=st.lists(st.integers(1, 50), min_size=1))
def test_messages_arrive_whole_and_in_order_however_the_bytes_are_cut(messages: list[Submit | Cancel], cuts: list[int]) -> None:
    data = b"".join(frame(message) for message in messages)
    unframer: Unframer[ToEngine] = Unframer(ToEngine)
    received: list[ToEngine] = []
    position = 0
    for i in range(len(data)):
        if position >= len(data):
            break
        cut = cuts[i % len(cuts)]
        received += unframer.feed(data[position : position + cut])
        position += cut
    assert received == messages


@pytest.mark.parametrize("ending", Ending)
def test_a_report_says_how_a_trajectory_ended(ending: Ending) -> None:
    trajectory = Trajectory(3, 5, 7, 0.5, ending, None if ending in (Ending.PRUNED, Ending.NOT_FINITE) else b"answer")
    report = StepReport("model", [trajectory], {3: 0.25}, 8, 16, 0.125, LaneStats(7, 0))
    unframer: Unframer[FromEngine] = Unframer(FromEngine)
    assert unframer.feed(frame(report)) == [report]


def test_a_message_of_another_type_is_refused() -> None:
    unframer: Unframer[Submit] = Unframer(Submit)
    with pytest.raises(msgspec.ValidationError):
        unframer.feed(frame(Cancel(1)))
