import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gram.models.config import Mixing, ModelConfig
from gram.models.layers import Attention, Core, PositionMixer, SwiGLU

ROWS = 3


@pytest.fixture
def x(tiny: ModelConfig) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(ROWS, tiny.length, tiny.dim)


def swiglu_of(layer: SwiGLU, x: Tensor) -> Tensor:
    """The same in float64, straight from the definition."""
    gate, up = layer.gate_up.weight.double().chunk(2)
    x = x.double()
    return (F.silu(x @ gate.T) * (x @ up.T)) @ layer.down.weight.double().T


def test_swiglu_is_its_definition(tiny: ModelConfig, x: Tensor) -> None:
    layer = SwiGLU(tiny.dim, 24, 5)
    torch.testing.assert_close(layer(x).double(), swiglu_of(layer, x), rtol=1e-4, atol=1e-5)


def test_position_mixer_is_a_swiglu_over_positions(tiny: ModelConfig, x: Tensor) -> None:
    mixer = PositionMixer(tiny)
    expected = swiglu_of(mixer.swiglu, x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(mixer(x).double(), expected, rtol=1e-4, atol=1e-5)


def test_attention_is_softmax_attention_with_pairs_of_channels_turned_by_their_position(tiny: ModelConfig, x: Tensor) -> None:
    attention = Attention(tiny)
    heads, width = tiny.num_heads, tiny.dim // tiny.num_heads
    query, key, value = (
        part.view(ROWS, tiny.length, heads, width).transpose(1, 2)
        for part in (x.double() @ attention.qkv.weight.double().T).chunk(3, dim=-1)
    )
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    turn = torch.polar(torch.ones(1, dtype=torch.float64), torch.outer(torch.arange(tiny.length).double(), frequency))

    def turned(part: Tensor) -> Tensor:
        first, second = part.chunk(2, dim=-1)
        return torch.complex(first, second) * turn

    scores = (turned(query)[..., :, None, :] * turned(key)[..., None, :, :].conj()).real.sum(-1) / width**0.5
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(ROWS, tiny.length, tiny.dim)
    expected = mixed @ attention.out.weight.double().T
    torch.testing.assert_close(attention(x).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixing", ["swiglu", "attention"])
def test_the_core_s_output_has_unit_scale_whatever_its_input_s(tiny: ModelConfig, x: Tensor, mixing: Mixing) -> None:
    core = Core(tiny.model_copy(update={"mixing": mixing}))
    for scale in (0.1, 1.0, 1000.0):
        rms = core(scale * x).square().mean(-1).sqrt()
        torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-3, atol=0)


@pytest.mark.parametrize("mixing", ["swiglu", "attention"])
def test_every_position_sees_every_other(tiny: ModelConfig, x: Tensor, mixing: Mixing) -> None:
    core = Core(tiny.model_copy(update={"mixing": mixing}))
    changed = x.clone()
    changed[:, -1] += 1
    assert (core(changed) != core(x)).any(-1).all()


def test_weights_follow_the_dtype_of_the_activations(tiny: ModelConfig, x: Tensor) -> None:
    assert Core(tiny)(x.bfloat16()).dtype == torch.bfloat16
