"""A network whose weights are laid out for a CPU computes what the plain one does."""

import itertools
from collections.abc import Callable

import pytest
import torch

from gram.kernels.noise import NoiseKey
from gram.models.config import ModelConfig
from gram.models.network import GRAM
from gram.models.packed import can_pack, pack

ROWS = 8
Build = Callable[..., GRAM]

VARIANTS = {
    " ".join(map(str, changes.values())): changes
    for changes in (
        dict(zip(("mixing", "guidance", "mixer_norm", "shared_core"), values, strict=True))
        for values in itertools.product(
            ("swiglu", "attention"), ("full", "noise_only", "none"), ("channels", "positions"), (True, False)
        )
        if values[:1] + values[2:3] != ("attention", "positions")
    )
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_step_is_that_of_the_plain_network_and_each_row_s_is_its_own(
    tiny: ModelConfig, random_model: Build, changes: dict[str, object], dtype: torch.dtype
) -> None:
    config = tiny.model_copy(update=changes)
    plain = random_model(config, dtype).cast_weights().requires_grad_(False)
    packed = random_model(config, dtype).cast_weights().requires_grad_(False)
    packed.load_state_dict(plain.state_dict())
    assert can_pack(packed)
    pack(packed, ROWS)
    puzzle = torch.arange(ROWS * config.seq_len).reshape(ROWS, -1) % config.vocab_size
    expected, actual = step(plain, puzzle, torch.arange(ROWS)), step(packed, puzzle, torch.arange(ROWS))
    # In bfloat16 both round, the packed one less often; float64 would be as far from either.
    tolerance = 2e-4 if dtype == torch.float32 else 0.15
    assert (actual - expected).abs().mean() <= tolerance * expected.abs().mean()

    order = torch.tensor([3, 0, 7, 5, 1, 6, 2, 4])
    assert torch.equal(step(packed, puzzle[order], order), actual[order])


@torch.inference_mode()
def step(model: GRAM, puzzle: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    key = NoiseKey(torch.full_like(index, 7), index, torch.zeros_like(index), torch.ones(len(index)))
    return model.supervision_step(model.initial_state(len(puzzle)), model.encode(puzzle), key).h.float()


def test_only_on_a_cpu_is_a_model_packed(tiny: ModelConfig) -> None:
    assert not can_pack(GRAM(tiny).to("meta"))
