import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

import gram.kernels.noise  # noqa: E402
from gram.kernels.gpu.noise import standard_normal  # noqa: E402
from tests.kernels.philox_cases import MASK, known_answers, seeds  # noqa: E402

counts = st.one_of(st.integers(0, MASK), st.sampled_from([0, 2**31 - 1, 2**31, MASK]))


@triton.jit
def words_kernel(out, seed, counter):
    """Calls Philox as kernels.gpu.noise does, but with any four words as the counter."""
    c0, c1 = tl.load(counter).to(tl.uint32), tl.load(counter + 1).to(tl.uint32)
    c2, c3 = tl.load(counter + 2).to(tl.uint32), tl.load(counter + 3).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(tl.load(seed), c0, c1, c2, c3)
    tl.store(out, w0.to(tl.int64))
    tl.store(out + 1, w1.to(tl.int64))
    tl.store(out + 2, w2.to(tl.int64))
    tl.store(out + 3, w3.to(tl.int64))


def words(counter: tuple[int, ...], key: tuple[int, int], device: torch.device) -> list[int]:
    seed = torch.tensor([key[0] | key[1] << 32], dtype=torch.uint64).view(torch.int64).to(device)
    out = torch.empty(4, dtype=torch.int64, device=device)
    words_kernel[(1,)](out, seed, torch.tensor(counter, device=device))
    result: list[int] = out.tolist()
    return result


@known_answers
def test_triton_s_philox_gives_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...], device: torch.device
) -> None:
    assert words(counter, key, device) == list(expected)


@given(st.tuples(counts, counts, counts, counts), st.tuples(counts, counts))
@settings(max_examples=30)
def test_triton_s_philox_is_the_reference_s(counter: tuple[int, ...], key: tuple[int, int]) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    c0, c1, c2, c3, k0, k1 = (torch.tensor([word]) for word in (*counter, *key))
    assert words(counter, key, device) == gram.kernels.noise.philox((c0, c1, c2, c3), (k0, k1))[:, 0].tolist()


@given(st.lists(st.tuples(seeds, st.integers(0, MASK), st.integers(0, MASK)), min_size=1, max_size=3), st.data())
@settings(max_examples=8)
def test_normals_are_the_reference_s_to_float32_s_precision(keys: list[tuple[int, int, int]], data: st.DataObject) -> None:
    length, dim = data.draw(st.integers(1, 9)), 4 * data.draw(st.integers(1, 40))
    seed, index, transition = torch.tensor(keys).unbind(1)
    expected = gram.kernels.noise.standard_normal(seed, index, transition, length, dim)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    actual = standard_normal(seed.to(device), index.to(device), transition.to(device), length, dim).cpu()
    assert actual.dtype == torch.float32
    # The reference rounds its angle, which is up to 2 pi, and the radius, up to 6, multiplies that error; the kernel's angle is
    # exact. And a radius near 0 is the root of the difference between two nearly equal numbers.
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=4e-6)


def test_the_least_and_the_greatest_random_word_give_finite_normals(device: torch.device) -> None:
    """The reference's test of the same name explains these seeds."""
    keys = torch.tensor([12121362, 2871038], device=device), torch.zeros(2, dtype=torch.int64, device=device)
    normals = standard_normal(keys[0], keys[1], keys[1], 1, 4).cpu()
    assert normals.isfinite().all()
    expected = gram.kernels.noise.standard_normal(keys[0].cpu(), keys[1].cpu(), keys[1].cpu(), 1, 4)
    torch.testing.assert_close(normals, expected, rtol=1e-6, atol=4e-6)


@pytest.fixture(scope="module")
def many(device: torch.device) -> Tensor:
    index = torch.arange(8, device=device)
    return standard_normal(torch.full_like(index, 2024), index, index % 3, 125, 64).double().flatten().cpu()


def test_moments_are_those_of_a_standard_normal(many: Tensor) -> None:
    n = len(many)
    assert abs(many.mean()) < 4 / n**0.5
    assert abs(many.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((many**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((many**4).mean() - 3) < 4 * (96 / n) ** 0.5


def test_the_distribution_is_normal_all_along(many: Tensor) -> None:
    from scipy import stats  # it takes a second or two, which the processes with other tests can save

    assert stats.kstest(many.numpy(), stats.norm.cdf).pvalue > 1e-3


def test_quarters_and_positions_are_uncorrelated(many: Tensor) -> None:
    normals = many.view(8, 125, 4, 16)
    n = many.numel() / 4
    quarters = torch.corrcoef(normals.permute(2, 0, 1, 3).reshape(4, -1)) - torch.eye(4, dtype=torch.float64)
    assert quarters.abs().max() < 5 / n**0.5
    assert abs((many.view(1000, 64)[:-1] * many.view(1000, 64)[1:]).mean()) < 5 / len(many) ** 0.5


def test_a_row_s_noise_does_not_depend_on_its_batch(device: torch.device) -> None:
    seed, index, transition = (torch.arange(5, device=device) * step for step in (2**33 + 1, 3, 1))
    together = standard_normal(seed, index, transition, 7, 68)
    for i in range(5):
        row = slice(i, i + 1)
        assert torch.equal(together[row], standard_normal(seed[row], index[row], transition[row], 7, 68))
