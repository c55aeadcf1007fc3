import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

import gram.kernels.perturbation
from gram.kernels.gpu.perturbation import perturb
from gram.kernels.noise import HIGH_STREAM, LOW_STREAM, NoiseKey, standard_normal
from tests.kernels.gpu.support import assert_close, dims, dtypes, generators, lengths, randn

IMPLEMENTATIONS = [perturb, gram.kernels.perturbation.perturb]


def key_of(rows: int, device: torch.device) -> NoiseKey:
    index = torch.arange(rows, device=device)
    return NoiseKey(torch.full_like(index, 2**40 + 7), index, 3 * index, torch.zeros(rows, device=device))


def part(key: NoiseKey, row: int) -> NoiseKey:
    return NoiseKey(*(tensor[row : row + 1] for tensor in key.parts))


@given(generators, st.integers(1, 3), lengths, dims, dtypes, st.sampled_from([HIGH_STREAM, LOW_STREAM]))
@settings(max_examples=6)
def test_it_is_the_formula(
    generator: torch.Generator, rows: int, length: int, dim: int, dtype: torch.dtype, stream: int
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    z, key = randn(generator, rows, length, dim).to(device, dtype), key_of(rows, device)
    sigma = torch.tensor([0.3, 0.0, 2.0][:rows], device=device)
    noise = standard_normal(key.seed, key.index, key.transition, length, dim, stream)
    expected = z.double() + sigma.double()[:, None, None] * noise.double()
    for implementation in IMPLEMENTATIONS:
        moved = implementation(z, key, sigma, stream=stream)
        assert (moved.dtype, moved.shape) == (dtype, z.shape)
        assert_close(moved, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_row_without_noise_keeps_its_bits_and_a_row_alone_is_the_row_in_its_batch(
    dtype: torch.dtype, device: torch.device
) -> None:
    z, key = randn(torch.Generator().manual_seed(0), 4, 37, 100).to(device, dtype), key_of(4, device)
    z[1, 0, 0] = -0.0
    sigma = torch.tensor([0.5, 0.0, 1.0, 0.25], device=device)
    for implementation in IMPLEMENTATIONS:
        together = implementation(z, key, sigma, stream=LOW_STREAM)
        assert torch.equal(together[1].view(torch.uint8), z[1].view(torch.uint8))
        for row in range(4):
            alone = implementation(z[row : row + 1], part(key, row), sigma[row : row + 1], stream=LOW_STREAM)
            assert torch.equal(together[row], alone[0])


def test_each_latent_has_noise_of_its_own(device: torch.device) -> None:
    z, key, sigma = torch.zeros(2, 50, 64, device=device), key_of(2, device), torch.ones(2, device=device)
    high, low, guidance = (noise(z, key, sigma, stream) for stream in (HIGH_STREAM, LOW_STREAM, 0))
    correlations = torch.corrcoef(torch.stack([high, low, guidance])) - torch.eye(3, device=device)
    assert correlations.abs().max() < 5 / high.numel() ** 0.5


def noise(z: Tensor, key: NoiseKey, sigma: Tensor, stream: int) -> Tensor:
    return perturb(z, key, sigma, stream=stream).flatten()
