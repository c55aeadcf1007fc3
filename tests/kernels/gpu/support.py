"""How far the results of a kernel may be from float64, and the inputs of the tests."""

import torch
from hypothesis import strategies as st
from torch import Tensor

# The relative size of one unit in the last place. It is twice the error of rounding, since the interpreter truncates bfloat16.
ULP = {torch.float32: 2.0**-22, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}

dtypes = st.sampled_from(sorted(ULP, key=str))
dims = st.one_of(st.sampled_from([64, 68, 96, 128, 500, 512]), st.integers(16, 128).map(lambda quarter: 4 * quarter))
lengths = st.integers(1, 11)
generators = st.integers(0, 2**32).map(lambda seed: torch.Generator().manual_seed(seed))


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normals, drawn on the CPU, so that they are the same for every device."""
    return torch.randn(shape, generator=generator)


def assert_close(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Assert that `actual` equals `expected`, which is float64, to the precision of its own dtype."""
    torch.testing.assert_close(actual.double(), expected, rtol=ULP[actual.dtype], atol=atol)
