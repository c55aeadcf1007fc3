"""The slot pool: live rows stay a dense prefix, puzzles are shared, and nothing is left behind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ModelConfig
from models.gram import GRAM
from server.engine.slots import SlotPool

TILE = 4
CONFIG = ModelConfig(vocab_size=3, seq_len=4, dim=8, num_layers=1, mixer_dim=8, mlp_dim=8, guidance_dim=8, num_registers=1)


def make_pool(slots: int) -> SlotPool:
    return SlotPool(GRAM(CONFIG, posterior=False).requires_grad_(False), slots, TILE, torch.device("cpu"))


@settings(deadline=None)
@given(slots=st.integers(1, 9), actions=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=60))
def test_rows_follow_their_slots_through_any_sequence_of_placing_and_releasing(
    slots: int, actions: list[tuple[int, int]]
) -> None:
    pool = make_pool(slots)
    expected: dict[int, tuple[int, int]] = {}
    for count, (slot, puzzle) in enumerate(actions):
        if slot >= slots:
            continue
        if slot in expected:
            pool.release(slot)
            del expected[slot]
        else:
            pool.place(slot, bytes([puzzle % 3] * 4), seed=slot, trajectory=count, temperature=1.0)
            pool.state.h[pool.live - 1] = count
            expected[slot] = count, puzzle % 3
        assert pool.live == len(expected) == len(pool.slots)
        for row, held in enumerate(pool.slots):
            trajectory, symbol = expected[held]
            assert int(pool.seed[row]) == held
            assert int(pool.trajectory[row]) == trajectory
            assert bool((pool.state.h[row] == trajectory).all())
            e_x = pool._model.encode(torch.full((1, 4), symbol))[0]
            assert torch.equal(pool.e_x[pool.puzzle[row]], e_x)
        assert len(set(pool.puzzle[: pool.live].tolist())) == len({symbol for _, symbol in expected.values()})


def test_the_rows_are_whole_tiles() -> None:
    assert len(make_pool(5).seed) == 2 * TILE


def test_a_released_row_keeps_no_values_that_are_not_finite() -> None:
    pool = make_pool(2)
    for slot in range(2):
        pool.place(slot, bytes(4), 0, slot, 1.0)
    pool.state.h[:2] = torch.nan
    pool.release(0)
    pool.release(1)
    assert bool(pool.state.h.isfinite().all())


def test_a_slot_is_not_placed_twice() -> None:
    pool = make_pool(2)
    pool.place(1, bytes(4), 0, 0, 1.0)
    with pytest.raises(ValueError, match="taken"):
        pool.place(1, bytes(4), 0, 1, 1.0)


def test_all_64_bits_of_a_seed_are_kept() -> None:
    pool = make_pool(1)
    pool.place(0, bytes(4), 2**63 - 1, 0, 1.0)
    assert int(pool.seed[0]) == 2**63 - 1
