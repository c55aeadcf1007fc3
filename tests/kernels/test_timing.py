import itertools
import math
import time
from collections.abc import Callable

import pytest
import torch

from gram.kernels import timing, turns

CPU = torch.device("cpu")
SIZES = timing.Sizes(rows=3, length=12, dim=16, mixer_dim=10, mlp_dim=24, guidance_dim=8, num_registers=2, vocab_size=5)


def test_the_sides_take_turns_and_each_call_of_a_turn_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_ENOUGH_SECONDS", math.inf)  # which a slow machine would reach before its last turn
    calls: list[tuple[str, int]] = []

    def side(name: str) -> Callable[[int], None]:
        def call(number: int) -> None:
            calls.append((name, number))
            time.sleep(0.02)

        return call

    assert all(seconds > 0 for seconds in turns.seconds([side("a"), side("b")], CPU))
    taken = [[*group] for _, group in itertools.groupby(calls, lambda call: call[0])]
    assert [turn[0][0] for turn in taken] == ["a", "b"] * 8, "the warm-ups, then seven turns each"
    for turn in taken[2:]:
        assert [number for _, number in turn] == [*range(len(turn))]


@pytest.mark.parametrize("case", [*timing.cases(SIZES, CPU, torch.float32)], ids=lambda case: case.name)
def test_every_case_draws_fresh_inputs_that_its_kernel_and_its_reference_take(case: timing.Case) -> None:
    inputs = case.draw()
    kernel, reference = case.kernel(*inputs), case.reference(*inputs)
    for ours, theirs in zip(*(x if isinstance(x, tuple) else (x,) for x in (kernel, reference)), strict=True):
        assert torch.equal(ours, theirs), "on a CPU they are the same code"
    (first, *_), (second, *_) = inputs, case.draw()
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    assert not torch.equal(first, second)


def test_the_ceiling_is_the_best_turn_of_squares_and_the_products_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_BURST_OPERATIONS", 1)
    product = timing.Product((2, 3, 4), (2, 4, 5))
    assert product.operations == 2 * 2 * 3 * 4 * 5
    # Three squares, then the product; of each, its best turn counts.
    monkeypatch.setattr(timing, "each_turn", lambda *_: [[2.0], [1.0], [400.0], [9.0, 1e-9]])
    best = timing.ceiling(CPU, torch.float32, [product], threads=2)
    assert (best.amount, best.rate) == (2 * product.operations, 2 * product.operations / 1e-9)
    monkeypatch.setattr(timing, "each_turn", lambda *_: [[2.0], [9.0, 1.0], [400.0], [1e9]])
    assert timing.ceiling(CPU, torch.float32, [product], threads=2).amount == 2 * 2048**3


def test_a_ceiling_is_the_best_turn_that_was_ever_seen() -> None:
    ceiling = timing.Ceiling(lambda _: None, amount=100, rate=50.0)
    ceiling.see([4.0, 2.5])
    assert ceiling.rate == 50
    ceiling.see([9.0, 1.0])
    assert ceiling.rate == 100
