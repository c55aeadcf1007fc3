from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gram.kernels.noise import NoiseKey, standard_normal
from gram.kernels.transition import stochastic_transition

ROWS, LENGTH, DIM = 6, 5, 12


class Inputs(NamedTuple):
    u: Tensor
    mean: Tensor
    log_sigma: Tensor
    key: NoiseKey

    def rows(self, chosen: slice | list[int]) -> "Inputs":
        u, mean, log_sigma = (t[chosen] for t in self[:3])
        return Inputs(u, mean, log_sigma, NoiseKey(*(part[chosen] for part in self.key.parts)))

    def at(self, temperature: Tensor) -> "Inputs":
        return self._replace(key=replace(self.key, temperature=temperature))


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    u, mean, log_sigma = torch.randn(3, ROWS, LENGTH, DIM, generator=generator)
    row = torch.arange(ROWS)
    key = NoiseKey(row * 2**40, row, row * 3, torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0]))
    return Inputs(u, mean, log_sigma - 2, key)


def in_float64(inputs: Inputs) -> Tensor:
    u, mean, log_sigma, key = inputs
    seed, index, transition, temperature = key.parts
    noise = standard_normal(seed, index, transition, LENGTH, DIM).double()
    return u.double() + mean.double() + temperature.double()[:, None, None] * log_sigma.double().exp() * noise


def test_it_is_the_formula(inputs: Inputs) -> None:
    torch.testing.assert_close(stochastic_transition(*inputs).double(), in_float64(inputs), rtol=1e-6, atol=1e-6)


def test_bf16_is_rounded_once_at_the_end(inputs: Inputs) -> None:
    halves = inputs._replace(u=inputs.u.bfloat16(), mean=inputs.mean.bfloat16(), log_sigma=inputs.log_sigma.bfloat16())
    h = stochastic_transition(*halves)
    assert h.dtype == torch.bfloat16
    torch.testing.assert_close(h.double(), in_float64(halves), rtol=2.0**-8, atol=1e-6)


def test_the_output_takes_u_s_dtype_alone(inputs: Inputs) -> None:
    assert stochastic_transition(*inputs._replace(mean=inputs.mean.bfloat16())).dtype == torch.float32


def test_temperature_zero_gives_u_plus_the_mean(inputs: Inputs) -> None:
    still = inputs.at(torch.zeros(ROWS))
    assert torch.equal(stochastic_transition(*still), inputs.u + inputs.mean)


def test_each_row_has_its_own_temperature(inputs: Inputs) -> None:
    moved = stochastic_transition(*inputs) - inputs.u - inputs.mean
    at_one = stochastic_transition(*inputs.at(torch.ones(ROWS))) - inputs.u - inputs.mean
    torch.testing.assert_close(moved, inputs.key.temperature[:, None, None] * at_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", range(ROWS))
def test_a_row_alone_is_the_row_in_its_batch(inputs: Inputs, row: int) -> None:
    assert torch.equal(stochastic_transition(*inputs)[row], stochastic_transition(*inputs.rows([row]))[0])


def test_rows_in_another_order_are_the_same_rows(inputs: Inputs) -> None:
    order = [3, 0, 5, 1, 4, 2]
    assert torch.equal(stochastic_transition(*inputs)[order], stochastic_transition(*inputs.rows(order)))


def test_a_broken_row_leaves_the_others_untouched(inputs: Inputs) -> None:
    u = inputs.u.clone()
    u[1] = torch.nan
    broken = stochastic_transition(*inputs._replace(u=u))
    others = torch.arange(ROWS) != 1
    assert broken[1].isnan().all()
    assert torch.equal(broken[others], stochastic_transition(*inputs)[others])


def test_arguments_are_left_alone(inputs: Inputs) -> None:
    arguments = [*inputs[:3], *inputs.key.parts]
    before = [t.clone() for t in arguments]
    stochastic_transition(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
