"""The layers of the recursive core. Weights are cast to the dtype of their input."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gram.kernels.dispatch import add_rms_norm, add_rms_norm_over_positions, swiglu
from gram.models.config import ModelConfig


class Module(nn.Module):
    """An nn.Module that takes one tensor and returns one, typed so."""

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result


class Linear(Module):
    """y = x W^T (+ b). W [out, in] starts as normals of variance 1 / in, or as zeros."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = False, zero: bool = False) -> None:
        super().__init__()
        std = 0.0 if zero else in_dim**-0.5
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) * std)
        self.bias = nn.Parameter(torch.zeros(out_dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class SwiGLU(Module):
    """down(silu(gate x) * up x): [..., in] -> [..., out], through `hidden` channels."""

    def __init__(self, in_dim: int, hidden: int, out_dim: int, *, zero: bool = False) -> None:
        super().__init__()
        self.gate_up = Linear(in_dim, 2 * hidden)
        self.down = Linear(hidden, out_dim, zero=zero)

    def hidden(self, x: Tensor) -> Tensor:
        """Everything but the last product: [..., in] -> [..., hidden]."""
        return swiglu(self.gate_up(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.hidden(x))


class PositionMixer(Module):
    """A SwiGLU over the position axis (TRM's "mlp_t"), for small fixed grids: [B, L, D] -> [B, L, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.swiglu = SwiGLU(config.length, config.mixer_dim, config.length)

    def forward(self, x: Tensor) -> Tensor:
        # Multiplying from the left mixes positions without a transposition: a quarter faster than SwiGLU.forward. The weights
        # are expanded because a broadcast product that needs gradients copies the activations (findings/torch-matmul-...).
        gate_up, down = (part.weight.to(x.dtype).expand(len(x), -1, -1) for part in (self.swiglu.gate_up, self.swiglu.down))
        return torch.bmm(down, swiglu(torch.bmm(gate_up, x), dim=1))


class Attention(Module):
    """Bidirectional multi-head self-attention with rotary positions (RoPE): [B, L, D] -> [B, L, D]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.float32_rope = config.float32_rope
        self.qkv = Linear(config.dim, 3 * config.dim)
        self.out = Linear(config.dim, config.dim)
        head_dim = config.dim // config.num_heads
        frequency = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angle = torch.outer(torch.arange(config.length), torch.cat([frequency, frequency]))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def _rotate(self, x: Tensor) -> Tensor:
        dtype = torch.float32 if self.float32_rope else x.dtype
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return (x * self.cos.to(dtype) + turned * self.sin.to(dtype)).to(x.dtype)

    def attend(self, qkv: Tensor) -> Tensor:
        """Everything between the two products: queries, keys and values [B, L, 3 D] -> [B, L, D]."""
        batch, length, width = qkv.shape
        heads = qkv.view(batch, length, 3, self.num_heads, width // (3 * self.num_heads))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, L, D / heads]
        mixed = F.scaled_dot_product_attention(self._rotate(query), self._rotate(key), value)
        return mixed.transpose(1, 2).reshape(batch, length, width // 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attend(self.qkv(x)))


class Core(Module):
    """The network applied over and over: layers of [token mixing, SwiGLU MLP], post-norm.

    The norm after each residual sum, the last included, is what keeps the state bounded over the recursion.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        mixer = PositionMixer if config.mixing == "swiglu" else Attention
        self.norms_positions = config.mixer_norm == "positions"
        self.mixers = nn.ModuleList(mixer(config) for _ in range(config.num_layers))
        self.mlps = nn.ModuleList(SwiGLU(config.dim, config.mlp_dim, config.dim) for _ in range(config.num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        add_and_norm = add_rms_norm_over_positions if self.norms_positions else add_rms_norm
        for mix, mlp in zip(self.mixers, self.mlps, strict=True):
            x = add_and_norm(x, mix(x))
            x = add_rms_norm(x, mlp(x))
        return x
