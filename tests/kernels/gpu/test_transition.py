from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

import gram.kernels.transition
from gram.kernels.gpu.transition import guided_transition, stochastic_transition
from gram.kernels.noise import NoiseKey, standard_normal
from gram.kernels.transition import Transition
from tests.kernels.gpu.support import assert_close, dims, dtypes, generators, lengths, randn


def noise_key(rows: int, device: torch.device) -> NoiseKey:
    """A key of columns of one tensor, as in the slot pool. The first row's temperature is 0."""
    row = torch.arange(rows)
    columns = torch.stack([row, row * 2**40 - 5, row * 7 + 1, row * 3], dim=1).to(device)
    return NoiseKey(columns[:, 1], columns[:, 2], columns[:, 3], (row * 0.75).to(device))


def rows_of(key: NoiseKey, chosen: slice) -> NoiseKey:
    return NoiseKey(*(part[chosen] for part in key.parts))


class Guided(NamedTuple):
    u: Tensor
    hidden_mean: Tensor | None
    hidden_log_sigma: Tensor
    weight_mean: Tensor | None
    weight_log_sigma: Tensor
    bias: Tensor

    def rows(self, chosen: slice) -> "Guided":
        mean = None if self.hidden_mean is None else self.hidden_mean[chosen]
        return self._replace(u=self.u[chosen], hidden_mean=mean, hidden_log_sigma=self.hidden_log_sigma[chosen])


def guided(
    generator: torch.Generator, rows: int, length: int, dim: int, hidden: int, dtype: torch.dtype, device: torch.device
) -> Guided:
    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (randn(generator, *shape) * scale).to(device, dtype)

    activations = draw(rows, length, dim), draw(rows, length, hidden), draw(rows, length, hidden)
    weights = draw(dim, hidden, scale=hidden**-0.5), draw(dim, hidden, scale=hidden**-0.5)
    return Guided(*activations, *weights, (randn(generator, dim) - 2).to(device))


def guide(x: Guided, key: NoiseKey) -> Transition:
    """The guided transition with the default bounds of log sigma."""
    return guided_transition(*x, key, log_sigma_min=-8.0, log_sigma_max=-1.0)


def in_float64(x: Guided, key: NoiseKey, low: float, high: float) -> tuple[Tensor, Tensor]:
    """h by the formula, and the scale of its noise."""
    mean: Tensor | float = 0.0
    if x.hidden_mean is not None and x.weight_mean is not None:
        mean = x.hidden_mean.double() @ x.weight_mean.double().T
    log_sigma = (x.hidden_log_sigma.double() @ x.weight_log_sigma.double().T + x.bias.double()).clamp(low, high)
    scale = key.temperature.double()[:, None, None] * log_sigma.exp()
    noise = standard_normal(key.seed, key.index, key.transition, *x.u.shape[1:]).double()
    return x.u.double() + mean + scale * noise, scale


@given(generators, st.integers(1, 4), lengths, dims, dtypes)
@settings(max_examples=5)
def test_the_sample_is_the_formula(generator: torch.Generator, rows: int, length: int, dim: int, dtype: torch.dtype) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    u, mean, log_sigma = (3 * randn(generator, 3, rows, length, dim)).to(device, dtype)
    log_sigma, key = log_sigma.clamp(max=6.0), noise_key(rows, device)  # float16 ends at 65504
    h = stochastic_transition(u, mean, log_sigma, key)
    scale = key.temperature.double()[:, None, None] * log_sigma.double().exp()
    noise = standard_normal(key.seed, key.index, key.transition, length, dim).double()
    assert h.dtype == dtype
    assert_close(h, u.double() + mean.double() + scale * noise, atol=1e-5 * (1 + scale.max().item()))


@given(generators, st.integers(1, 3), lengths, dims, st.integers(1, 140), dtypes, st.booleans(), st.booleans())
@settings(max_examples=6)
def test_the_guided_transition_is_the_formula(
    generator: torch.Generator, rows: int, length: int, dim: int, hidden: int, dtype: torch.dtype, has_mean: bool, wide: bool
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, key = guided(generator, rows, length, dim, hidden, dtype, device), noise_key(rows, device)
    if not has_mean:
        x = x._replace(hidden_mean=None, weight_mean=None)
    low, high = (-20.0, 4.0) if wide else (-8.0, -1.0)  # the wide range has tiny sigmas, and some above 50
    if wide:
        x = x._replace(bias=x.bias * 6)
    h, finite = guided_transition(*x, key, log_sigma_min=low, log_sigma_max=high)
    expected, scale = in_float64(x, key, low, high)
    assert h.dtype == dtype
    assert finite.tolist() == [True] * rows
    assert_close(h, expected, atol=1e-5 * (1 + scale.max().item()))


@pytest.mark.parametrize("mean", [True, False])
def test_the_reference_is_the_formula_too(mean: bool) -> None:
    x, key = (
        guided(torch.Generator().manual_seed(1), 3, 5, 64, 24, torch.float32, torch.device("cpu")),
        noise_key(3, torch.device("cpu")),
    )
    if not mean:
        x = x._replace(hidden_mean=None, weight_mean=None)
    h, finite = gram.kernels.transition.guided_transition(*x, key, log_sigma_min=-8.0, log_sigma_max=-1.0)
    assert finite.tolist() == [True] * 3
    assert_close(h, in_float64(x, key, -8.0, -1.0)[0], atol=1e-5)


def test_temperature_zero_gives_u_plus_the_mean(device: torch.device) -> None:
    u, mean, log_sigma = randn(torch.Generator().manual_seed(2), 3, 2, 5, 68).to(device)
    key = replace(noise_key(2, device), temperature=torch.zeros(2, device=device))
    assert torch.equal(stochastic_transition(u, mean, log_sigma, key), u + mean)
    x = guided(torch.Generator().manual_seed(3), 2, 5, 68, 20, torch.float32, device)
    still = x._replace(hidden_mean=None, weight_mean=None)
    assert torch.equal(guide(still, key).h, x.u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sigma_keeps_within_its_bounds(dtype: torch.dtype, device: torch.device) -> None:
    x = guided(torch.Generator().manual_seed(4), 2, 3, 64, 16, dtype, device)
    key = replace(noise_key(2, device), temperature=torch.ones(2, device=device))
    for bias in (-torch.inf, -1e4, 1e4, torch.inf):
        pushed = x._replace(bias=torch.full_like(x.bias, bias))
        h, finite = guide(pushed, key)
        assert finite.all()
        expected, _ = in_float64(x._replace(bias=torch.full_like(x.bias, -1e6 if bias < 0 else 1e6)), key, -8.0, -1.0)
        assert_close(h, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("field", ["u", "hidden_mean", "hidden_log_sigma"])
def test_a_broken_row_is_flagged_and_leaves_the_others_untouched(
    field: str, poison: float, dtype: torch.dtype, device: torch.device
) -> None:
    x, key = guided(torch.Generator().manual_seed(5), 4, 23, 68, 20, dtype, device), noise_key(4, device)
    whole = guide(x, key)
    broken = x._replace(**{field: getattr(x, field).clone()})
    getattr(broken, field)[2, 11, 7] = poison
    if field == "hidden_log_sigma":  # a single infinity is only clamped to a bound
        getattr(broken, field)[2, 11, 8] = -poison
        broken.weight_log_sigma[:, 7:9] = 0.5  # infinity minus infinity
        whole = guide(broken._replace(hidden_log_sigma=x.hidden_log_sigma), key)
    h, finite = guide(broken, key)
    assert finite.tolist() == [True, True, False, True]
    others = torch.tensor([0, 1, 3], device=device)
    assert torch.equal(h[others], whole.h[others])


def test_an_overflow_in_the_cast_is_flagged(device: torch.device) -> None:
    x, key = guided(torch.Generator().manual_seed(6), 3, 4, 64, 16, torch.float16, device), noise_key(3, device)
    x.u[1, 2, 3] = 65000.0
    assert x.hidden_mean is not None
    assert x.weight_mean is not None
    x.hidden_mean[1, 2], x.weight_mean[3] = 10.0, 10.0
    h, finite = guide(x, key)
    assert finite.tolist() == h.isfinite().all(2).all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("length", "dim"), [(7, 64), (23, 100)])
def test_a_row_alone_is_the_row_in_its_batch(dtype: torch.dtype, length: int, dim: int, device: torch.device) -> None:
    x, key = guided(torch.Generator().manual_seed(7), 6, length, dim, 40, dtype, device), noise_key(6, device)
    if device.type == "cpu":
        # The interpreter multiplies with NumPy, which may sum a row in another order elsewhere in the tile. Sums of eighths are
        # exact in any order. (A tensor core's order is the same for all rows, so a GPU gets the numbers as they are.)
        x = Guided._make(None if value is None else (value * 8).round() / 8 for value in x)
    mean, log_sigma = randn(torch.Generator().manual_seed(8), 2, 6, length, dim).to(device, dtype)
    guided_together = guide(x, key).h
    together = stochastic_transition(x.u, mean, log_sigma, key)
    for i in range(6):
        row = slice(i, i + 1)
        assert torch.equal(guided_together[row], guide(x.rows(row), rows_of(key, row)).h)
        assert torch.equal(together[row], stochastic_transition(x.u[row], mean[row], log_sigma[row], rows_of(key, row)))


def test_both_kernels_draw_the_same_noise(device: torch.device) -> None:
    """The guided kernel takes the channels in another order."""
    x, key = guided(torch.Generator().manual_seed(9), 3, 5, 200, 8, torch.float32, device), noise_key(3, device)
    at_zero = Guided(torch.zeros_like(x.u), None, x.hidden_log_sigma, None, x.weight_log_sigma * 0, x.bias * 0 - 1)
    mean, log_sigma = torch.zeros_like(x.u), torch.full_like(x.u, -1.0)
    torch.testing.assert_close(
        guide(at_zero, key).h,
        stochastic_transition(at_zero.u, mean, log_sigma, key),
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("rows", [1, 3, 64, 257])
def test_at_full_size_a_row_does_not_depend_on_how_many_there_are(rows: int) -> None:
    device = torch.device("cuda")
    x, key = guided(torch.Generator().manual_seed(10), 257, 68, 128, 128, torch.bfloat16, device), noise_key(257, device)
    chosen = slice(257 - rows, 257)
    whole = guide(x, key).h
    assert torch.equal(whole[chosen], guide(x.rows(chosen), rows_of(key, chosen)).h)
    noisy = stochastic_transition(x.u, x.u, -x.u.abs(), key)
    u = x.u[chosen]
    assert torch.equal(noisy[chosen], stochastic_transition(u, u, -u.abs(), rows_of(key, chosen)))
