import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import gram.kernels.swiglu
from gram.kernels.gpu.swiglu import swiglu
from tests.kernels.gpu.support import assert_close, dtypes, generators, randn


@given(generators, st.integers(1, 3), st.integers(1, 13), st.integers(1, 150), dtypes, st.sampled_from([-1, 1, 2]))
@settings(max_examples=8)
def test_it_is_the_formula_along_either_axis(
    generator: torch.Generator, rows: int, half: int, other: int, dtype: torch.dtype, dim: int
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (rows, 2 * half, other) if dim == 1 else (rows, other, 2 * half)
    gate_up = (3 * randn(generator, *shape)).to(device, dtype)
    gate, up = gate_up.double().chunk(2, dim)
    expected = gate * gate.sigmoid() * up
    y = swiglu(gate_up, dim)
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    assert_close(y, expected, atol=1e-6)
    if dtype == torch.float32:
        assert_close(gram.kernels.swiglu.swiglu(gate_up, dim), expected, atol=1e-6)


def test_far_out_silu_is_the_identity_or_zero(device: torch.device) -> None:
    gate_up = torch.tensor([[100.0, -200.0, 1e30, 2.0, 3.0, 1.0]], device=device)
    assert swiglu(gate_up).tolist() == [[200.0, 0.0, gate_up[0, 2].item()]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [-1, 1])
def test_a_row_alone_is_the_row_in_its_batch(dtype: torch.dtype, dim: int, device: torch.device) -> None:
    gate_up = randn(torch.Generator().manual_seed(0), 5, 14, 36).to(device, dtype)
    gate_up[1] = torch.nan
    together = swiglu(gate_up, dim)
    assert together[1].isnan().all()
    for i in (0, 2, 3, 4):
        assert torch.equal(together[i], swiglu(gate_up[i : i + 1], dim)[0])
