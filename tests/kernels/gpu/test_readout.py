from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

import gram.kernels.readout
from gram.kernels.gpu.readout import readout
from gram.kernels.readout import Readout
from tests.kernels.gpu.support import dims, dtypes, generators, randn


class Inputs(NamedTuple):
    h: Tensor
    low: Tensor
    heads_weight: Tensor
    heads_bias: Tensor
    decoder_weight: Tensor
    steps: Tensor
    max_steps: Tensor
    halt_threshold: Tensor

    def rows(self, chosen: slice) -> "Inputs":
        fields = ("h", "low", "steps", "max_steps", "halt_threshold")
        return self._replace(**{name: getattr(self, name)[chosen] for name in fields})


def inputs(
    generator: torch.Generator, rows: int, length: int, dim: int, symbols: int, dtype: torch.dtype, device: torch.device
) -> Inputs:
    h, low = randn(generator, 2, rows, length, dim).to(device, dtype)
    heads_weight, heads_bias = randn(generator, 2, dim) * dim**-0.5, randn(generator, 2)
    decoder_weight = (randn(generator, symbols, dim) * dim**-0.5).to(device, dtype)
    steps = torch.arange(1, rows + 1, dtype=torch.int32, device=device)
    threshold = torch.linspace(0.2, 0.8, rows, device=device)
    heads = heads_weight.to(device), heads_bias.to(device)
    return Inputs(h, low, *heads, decoder_weight, steps, torch.full_like(steps, 3), threshold)


def read(x: Inputs, num_registers: int = 2) -> Readout:
    return readout(*x, num_registers=num_registers)


def check(shown: Readout, x: Inputs, num_registers: int) -> None:
    """Compare with float64. Between symbols that are as close as rounding errors, either may be the answer."""
    logits = x.h[:, 0].double() @ x.heads_weight.double().T + x.heads_bias.double()
    probability = logits.sigmoid()
    numbers = shown.numbers.double()
    torch.testing.assert_close(numbers[:, :2], probability, rtol=1e-5, atol=1e-6)
    halted = shown.halt > x.halt_threshold
    ended = halted | (x.steps >= x.max_steps)
    assert numbers[:, 2].tolist() == [1] * len(x.h)
    assert (shown.retires.tolist(), shown.halts.tolist()) == (ended.tolist(), halted.tolist())
    symbols = x.h[:, num_registers:].double() @ x.decoder_weight.double().T
    chosen = symbols.gather(-1, shown.answers.long()[..., None])[..., 0]
    assert ((symbols.amax(-1) - chosen) <= 1e-5).all()
    assert (shown.numbers.dtype, shown.answers.dtype) == (torch.float32, torch.uint8)


@given(generators, st.integers(1, 4), st.integers(0, 4), st.integers(1, 80), dims, st.integers(1, 40), dtypes)
@settings(max_examples=6)
def test_it_shows_what_float64_shows(
    generator: torch.Generator, rows: int, num_registers: int, tokens: int, dim: int, symbols: int, dtype: torch.dtype
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = inputs(generator, rows, num_registers + tokens, dim, symbols, dtype, device)
    shown = read(x, num_registers)
    assert shown.answers.shape == (rows, tokens)
    check(shown, x, num_registers)
    if dtype == torch.float32:
        check(gram.kernels.readout.readout(*x, num_registers=num_registers), x, num_registers)


def test_a_row_retires_when_it_halts_or_has_made_its_steps_or_is_broken(device: torch.device) -> None:
    x = inputs(torch.Generator().manual_seed(0), 6, 9, 64, 3, torch.float32, device)
    wanted = torch.tensor([0.0, 1e-3, -1e-3, -1.0, -1.0, 90.0], device=device)  # the halt logit of each row
    h = x.h.clone()
    h[:, 0] = 0.0
    h[:, 0, 0] = wanted
    low = x.low.clone()
    low[3, 8, 63] = torch.nan
    weight = torch.zeros_like(x.heads_weight)
    weight[0, 0] = 1.0
    steps = torch.tensor([1, 1, 1, 1, 3, 1], dtype=torch.int32, device=device)
    never, half = 1.0, 0.5
    x = x._replace(halt_threshold=torch.tensor([half] * 5 + [never], device=device))
    x = x._replace(h=h, low=low, heads_weight=weight, heads_bias=torch.zeros(2, device=device), steps=steps)
    for shown in (read(x), gram.kernels.readout.readout(*x, num_registers=2)):
        assert shown.numbers[:, 2].tolist() == [1, 1, 1, 0, 1, 1]
        # A row whose probability is exactly its threshold goes on.
        assert shown.retires.tolist() == [False, True, False, True, True, False]
        assert shown.halts.tolist() == [False, True, False, False, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("field", ["h", "low"])
def test_a_broken_row_is_flagged_and_retires_alone(field: str, poison: float, dtype: torch.dtype, device: torch.device) -> None:
    x = inputs(torch.Generator().manual_seed(1), 4, 71, 68, 5, dtype, device)
    whole = read(x)
    broken = x._replace(**{field: getattr(x, field).clone()})
    getattr(broken, field)[2, 70, 67] = poison
    shown = read(broken)
    assert shown.numbers[:, 2].tolist() == [1, 1, 0, 1]
    assert shown.numbers[2, 3] == 1
    others = torch.tensor([0, 1, 3], device=device)
    assert torch.equal(shown.numbers[others], whole.numbers[others])
    assert torch.equal(shown.answers[others], whole.answers[others])


def test_of_equal_symbols_the_first_is_the_answer(device: torch.device) -> None:
    x = inputs(torch.Generator().manual_seed(2), 2, 9, 64, 6, torch.float32, device)
    x = x._replace(decoder_weight=x.decoder_weight[torch.tensor([0, 1, 2, 0, 1, 2], device=device)])
    assert (read(x).answers < 3).all()
    zeros = x._replace(decoder_weight=torch.zeros_like(x.decoder_weight))
    assert (read(zeros).answers == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_row_alone_is_the_row_in_its_batch(dtype: torch.dtype, device: torch.device) -> None:
    x = inputs(torch.Generator().manual_seed(3), 5, 68, 100, 11, dtype, device)
    together = read(x)
    for i in range(5):
        alone = read(x.rows(slice(i, i + 1)))
        assert torch.equal(together.numbers[i], alone.numbers[0])
        assert torch.equal(together.answers[i], alone.answers[0])
