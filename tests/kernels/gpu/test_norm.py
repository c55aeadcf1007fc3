import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import gram.kernels.gpu.norm
import gram.kernels.norm
from gram.kernels.gpu.norm import add_rms_norm, add_rms_norm_over_positions
from tests.kernels.gpu.support import assert_close, dims, dtypes, generators, lengths, randn


@pytest.mark.parametrize(("name", "axis"), [("add_rms_norm", -1), ("add_rms_norm_over_positions", 1)])
@given(generators, st.integers(1, 3), lengths, dims, dtypes, st.sampled_from([1e-4, 1.0, 100.0]))
@settings(max_examples=6)
def test_it_is_the_formula(
    name: str, axis: int, generator: torch.Generator, rows: int, length: int, dim: int, dtype: torch.dtype, scale: float
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, residual = (scale * randn(generator, 2, rows, length, dim)).to(device, dtype)
    total = x.double() + residual.double()
    expected = total / (total.square().mean(axis, keepdim=True) + 1e-5).sqrt()
    y = getattr(gram.kernels.gpu.norm, name)(x, residual)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    assert_close(y, expected, atol=1e-6)
    if dtype == torch.float32:
        assert_close(getattr(gram.kernels.norm, name)(x, residual), expected, atol=1e-6)


def test_zeros_stay_zeros(device: torch.device) -> None:
    x = torch.zeros(2, 3, 64, device=device)
    assert torch.equal(add_rms_norm(x, x), x)


def test_what_is_not_contiguous_is_read_as_it_is(device: torch.device) -> None:
    x = randn(torch.Generator().manual_seed(0), 64, 5).to(device).T
    torch.testing.assert_close(add_rms_norm(x, x), gram.kernels.norm.add_rms_norm(x, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 100, 512])
def test_over_positions_a_row_alone_is_the_row_in_its_batch(dtype: torch.dtype, dim: int, device: torch.device) -> None:
    x, residual = randn(torch.Generator().manual_seed(1), 2, 5, 97, dim).to(device, dtype)
    for norm in (add_rms_norm_over_positions, gram.kernels.norm.add_rms_norm_over_positions):
        together = norm(x, residual)
        for i in range(5):
            assert torch.equal(together[i], norm(x[i : i + 1], residual[i : i + 1])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 100, 512])
def test_a_row_alone_is_the_row_in_its_batch(dtype: torch.dtype, dim: int, device: torch.device) -> None:
    x, residual = randn(torch.Generator().manual_seed(1), 2, 5, 7, dim).to(device, dtype)
    x[3, 2, 1] = torch.nan
    together = add_rms_norm(x, residual)
    assert together[3, 2].isnan().all()
    for i in (0, 1, 2, 4):
        assert torch.equal(together[i], add_rms_norm(x[i : i + 1], residual[i : i + 1])[0])
