"""The slot pool: live rows stay a dense prefix, puzzles are shared, and nothing is left behind."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gram.models.temperature import MAX_SCHEDULE, Temperature
from gram.server.engine.slots import SlotPool, Start
from tests.server.engine.support import tiny_model

TILE = 4


def make_pool(slots: int) -> SlotPool:
    return SlotPool(tiny_model(), slots, TILE, torch.device("cpu"))


@given(slots=st.integers(1, 9), actions=st.lists(st.dictionaries(st.integers(0, 8), st.integers(0, 2)), max_size=20))
def test_rows_follow_their_slots_through_any_sequence_of_placing_and_releasing(
    slots: int, actions: list[dict[int, int]]
) -> None:
    """Each action names slots, with a puzzle for each. Those that are taken are released, and the free ones are placed."""
    pool = make_pool(slots)
    expected: dict[int, tuple[int, int]] = {}
    for count, action in enumerate(actions):
        taken = [slot for slot in action if slot in expected]
        free = {slot: symbol for slot, symbol in action.items() if slot < slots and slot not in expected}
        pool.release(taken)
        for slot in taken:
            del expected[slot]
        live = pool.live
        pool.state.h[live:] = 0.5  # a step has run over the rows of the last tile
        pool.place([Start(slot, bytes([symbol] * 4), slot, count, [1.0 + slot, 0.5]) for slot, symbol in free.items()])
        assert torch.equal(pool.state.h[live : pool.live], pool._model.initial_state(len(free)).h), "they start from z_0"
        pool.state.h[live : pool.live] = count
        expected |= {slot: (count, symbol) for slot, symbol in free.items()}
        assert pool.live == len(expected) == len(pool.slots)
        for row, held in enumerate(pool.slots):
            index, symbol = expected[held]
            assert int(pool.seed[row]) == held
            assert int(pool.index[row]) == index
            assert int(pool.transition[row]) == 0
            assert pool.noise_key(slice(row, row + 1)).temperature.tolist() == [1.0 + held]
            assert bool((pool.state.h[row] == index).all())
            e_x = pool._model.encode(torch.full((1, 4), symbol))[0]
            assert torch.equal(pool.e_x[pool.puzzle[row]], e_x)
        assert len(set(pool.puzzle[: pool.live].tolist())) == len({symbol for _, symbol in expected.values()})


def test_the_rows_are_whole_tiles() -> None:
    assert len(make_pool(5).seed) == 2 * TILE


def test_a_released_row_keeps_no_values_that_are_not_finite() -> None:
    pool = make_pool(2)
    pool.place([Start(slot, bytes(4), 0, slot, 1.0) for slot in range(2)])
    pool.state.h[:2] = torch.nan
    pool.release([0])
    pool.release([1])
    assert bool(pool.state.h.isfinite().all())


def test_a_slot_is_not_placed_twice() -> None:
    pool = make_pool(2)
    pool.place([Start(1, bytes(4), 0, 0, 1.0)])
    with pytest.raises(ValueError, match="taken"):
        pool.place([Start(1, bytes(4), 0, 1, 1.0)])


def test_all_64_bits_of_a_seed_are_kept() -> None:
    pool = make_pool(1)
    pool.place([Start(0, bytes(4), 2**63 - 1, 0, 1.0)])
    assert int(pool.seed[0]) == 2**63 - 1


def test_the_last_transition_follows_from_the_steps_that_a_trajectory_may_make() -> None:
    pool = make_pool(3)
    pool.place([Start(0, bytes(4), 0, 0, 1.0), Start(1, bytes(4), 0, 1, 1.0, 5), Start(2, bytes(4), 0, 2, 1.0, 10**30)])
    without, five, many = pool.last[:3].tolist()
    assert five == 5 * pool._model.config.transitions
    assert without == many > 10**9


def test_each_step_has_its_temperature_and_the_last_one_goes_on() -> None:
    pool = make_pool(3)
    long = [float(step) for step in range(MAX_SCHEDULE)]
    given: list[Temperature] = [0.5, [3.0, 1.0], long]
    pool.place([Start(slot, bytes(4), 0, slot, heat) for slot, heat in enumerate(given)])
    seen = []
    for _ in range(MAX_SCHEDULE + 2):
        seen.append(pool.noise_key(slice(0, 3)).temperature.tolist())
        pool.columns[:, 3] += pool._model.config.transitions
    assert [list(row) for row in zip(*seen, strict=True)] == [
        [0.5] * (MAX_SCHEDULE + 2),
        [3.0, *[1.0] * (MAX_SCHEDULE + 1)],
        [*long, long[-1], long[-1]],
    ]


@pytest.mark.parametrize("heat", [[], [1.0] * (MAX_SCHEDULE + 1)])
def test_so_many_temperatures_are_refused(heat: list[float]) -> None:
    with pytest.raises(ValueError, match="temperatures"):
        make_pool(1).place([Start(0, bytes(4), 0, 0, heat)])


def test_the_report_has_room_for_each_row_s_numbers_and_answer() -> None:
    pool = make_pool(2)
    numbers, answers = pool.readout(pool.report)
    numbers.copy_(torch.arange(16).view(4, 4))
    answers.fill_(7)
    assert numbers.tolist() == torch.arange(16.0).view(4, 4).tolist()
    numbers, answers = pool.readout(pool.report[:2].clone())
    assert (numbers.shape, answers.tolist()) == ((2, 4), [[7] * 4] * 2)
