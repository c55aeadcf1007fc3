import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gram.kernels.noise import philox, standard_normal
from tests.kernels.philox_cases import MASK, known_answers, seeds

words = st.one_of(st.integers(0, MASK), st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, MASK]))
rows = st.tuples(seeds, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))


def words_of(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    c0, c1, c2, c3, k0, k1 = (torch.tensor([word]) for word in (*counter, *key))
    result: list[int] = philox((c0, c1, c2, c3), (k0, k1))[:, 0].tolist()
    return result


def philox_by_definition(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """Philox as in Salmon et al., Sec. 3.3, with Python's integers, which do not overflow."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def draw(*keys: tuple[int, int, int], length: int = 3, dim: int = 8) -> Tensor:
    """The noise of rows that are each given by (seed, index, transition)."""
    seed, index, transition = torch.tensor(keys).unbind(1)
    return standard_normal(seed, index, transition, length, dim)


@pytest.fixture(scope="module")
def many() -> Tensor:
    """1,000,000 draws in float64, of 25 trajectories at 5 transitions each."""
    keys = [(2024, index, transition) for index in range(25) for transition in range(5)]
    return draw(*keys, length=125, dim=64).double().flatten()


@known_answers
def test_philox_gives_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert words_of(counter, key) == list(expected)


@given(st.tuples(words, words, words, words), st.tuples(words, words))
def test_philox_equals_its_definition_in_whole_numbers(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    assert words_of(counter, key) == philox_by_definition(counter, key)


def test_philox_leaves_its_arguments_alone() -> None:
    counter = torch.arange(4), torch.arange(4), torch.arange(4), torch.arange(4)
    key = torch.tensor([5]), torch.tensor([6])
    philox(counter, key)
    assert all(torch.equal(word, torch.arange(4)) for word in counter)
    assert [word.item() for word in key] == [5, 6]


@given(rows, st.integers(0, 4), st.integers(0, 7))
def test_a_normal_is_the_box_muller_transform_of_its_own_counter(
    row: tuple[int, int, int], position: int, channel: int
) -> None:
    seed, index, transition = row
    quarter, block = divmod(channel, 2)  # of 8 channels; the first two quarters are cosines, the others sines
    counter = (position * 2 + block, transition, index, 0)
    uniform = [((w >> 8) + 0.5) / 2**24 for w in philox_by_definition(counter, (seed & MASK, seed >> 32 & MASK))]
    first, second = uniform[:2] if quarter % 2 == 0 else uniform[2:]
    angle = 2 * math.pi * second
    expected = math.sqrt(-2 * math.log(first)) * (math.cos(angle) if quarter < 2 else math.sin(angle))
    assert draw(row, length=5)[0, position, channel].item() == pytest.approx(expected, rel=1e-4, abs=2e-3)


def test_moments_are_those_of_a_standard_normal(many: Tensor) -> None:
    n = len(many)
    assert abs(many.mean()) < 4 / n**0.5
    assert abs(many.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((many**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((many**4).mean() - 3) < 4 * (96 / n) ** 0.5


def test_the_distribution_is_normal_all_along(many: Tensor) -> None:
    expected = torch.special.ndtr(many.sort().values)
    steps = torch.arange(len(many) + 1) / len(many)
    distance = torch.maximum((expected - steps[:-1]).max(), (steps[1:] - expected).max())
    assert distance < 1.95 / len(many) ** 0.5  # Kolmogorov-Smirnov at 0.1%


def test_both_tails_are_populated_and_bounded(many: Tensor) -> None:
    assert 4.5 < many.max() < 6
    assert -6 < many.min() < -4.5


def test_the_least_and_the_greatest_random_word_give_finite_normals() -> None:
    """A search found these two seeds, whose radius is made of the words 0x000000.. and 0xFFFFFF.."""
    least, greatest = draw((12121362, 0, 0), (2871038, 0, 0), length=1, dim=4)[:, 0]
    assert math.hypot(least[0], least[2]) == pytest.approx(math.sqrt(2 * 25 * math.log(2)), rel=1e-4)
    assert math.hypot(greatest[1], greatest[3]) < 1e-3


@pytest.mark.parametrize(
    "keys",
    [
        [(seed, 0, 0) for seed in range(20)],
        [(seed << 32, 0, 0) for seed in range(20)],
        [(0, index, 0) for index in range(20)],
        [(0, 0, transition) for transition in range(20)],
        [(i, j, k) for i in range(3) for j in range(3) for k in range(3)],
    ],
    ids=["seeds", "high halves of seeds", "trajectories", "transitions", "mixed"],
)
def test_streams_are_uncorrelated(keys: list[tuple[int, int, int]]) -> None:
    streams = draw(*keys, length=32, dim=64).double().flatten(1)
    correlation = torch.corrcoef(streams) - torch.eye(len(keys))
    assert correlation.abs().max() < 5 / streams.shape[1] ** 0.5


def test_neighbours_within_a_stream_are_uncorrelated() -> None:
    normals = draw((5, 0, 0), length=500, dim=64).double()[0]
    n = normals.numel()
    for shift in (1, 16, 32, 48):  # 16 is a quarter of the channels, and channels a quarter apart share a counter
        for powers in (1, 2):
            x = normals**powers - (powers - 1)
            assert abs((x * x.roll(shift, 1)).mean()) < 5 * powers / n**0.5
            assert abs((x * x.roll(shift, 0)).mean()) < 5 * powers / n**0.5


@given(st.lists(rows, min_size=1, max_size=7), st.data(), st.integers(1, 19))
def test_a_row_s_noise_does_not_depend_on_its_batch(keys: list[tuple[int, int, int]], data: st.DataObject, length: int) -> None:
    i = data.draw(st.integers(0, len(keys) - 1))
    assert torch.equal(draw(*keys, length=length)[i], draw(keys[i], length=length)[0])


@given(rows, st.integers(1, 33), st.sampled_from([4, 12, 16, 20, 36]))
def test_every_size_is_filled_with_finite_numbers_and_a_longer_state_only_adds_positions(
    row: tuple[int, int, int], length: int, dim: int
) -> None:
    normals = draw(row, length=length, dim=dim)
    assert (normals.shape, normals.dtype) == ((1, length, dim), torch.float32)
    assert normals.isfinite().all()
    assert len(set(normals.flatten().tolist())) > 0.9 * normals.numel()
    assert torch.equal(normals, draw(row, length=length + 1, dim=dim)[:, :length])


@given(st.lists(seeds, min_size=2, max_size=2, unique=True))
def test_no_two_64_bit_seeds_share_their_noise(pair: list[int]) -> None:
    first, second = draw(*((seed, 0, 0) for seed in pair))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("bit", range(64))
def test_every_bit_of_the_seed_matters(bit: int) -> None:
    flipped = (1 << bit) - (1 << 64 if bit == 63 else 0)
    first, second = draw((0, 0, 0), (flipped, 0, 0))
    assert (first != second).all()
