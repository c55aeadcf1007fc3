"""What kernels/gpu/step.py knows of a network: its sizes, its weights as they lie in memory, and how it is compiled."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.gpu.interpreter import interpreting
from gram.kernels.noise import GUIDANCE_STREAM, HIGH_STREAM, LOW_STREAM

CHUNK = 64
"""Hidden units of a SwiGLU that are computed at a time."""

DIMS, MAX_LENGTH = (16, 32, 64, 128), 128
"""The channels and the most positions that the kernel knows: more do not fit into a program's registers."""

STAGES = 2
"""Chunks of weights that are on their way to shared memory at a time: 128 KB at the largest sizes."""


@dataclass(frozen=True)
class PackedModel:
    """The sizes and packed weights of a network, of the dtype of its state.

    A SwiGLU is [3, H, W]: gate, up, and down transposed, with zeros as padding; W is D for one over channels, and `positions`
    for one over positions. Attention is [heads, 8 P, D], where P is `half`: of each head the first and the second half of its
    queries and of its keys [P, D each], its values [2 P, D], and its columns of the output's weights, transposed [2 P, D].
    `cores` has the layers of f_low and then, if it is another network, of f_high: of each the mixing, then the MLP. `prior` has
    the SwiGLU of log sigma, then that of mu. bias: float32 [D]. cos, sin: float32 [positions, P], for attention.
    """

    length: int
    dim: int
    mixer_dim: int
    mlp_dim: int
    guidance_dim: int
    num_layers: int
    num_heads: int
    head_dim: int
    low_steps: int
    transitions: int
    attention: bool
    norm_over_positions: bool
    shared: bool
    flat: bool
    guided: bool
    learned_mean: bool
    log_sigma_min: float
    log_sigma_max: float
    cores: Tensor
    prior: Tensor
    bias: Tensor
    cos: Tensor
    sin: Tensor

    @property
    def positions(self) -> int:
        """Positions, padded."""
        return padded(self.length)

    @property
    def half(self) -> int:
        """P: half of a head's channels, padded."""
        return padded(self.head_dim // 2)


def padded(size: int) -> int:
    """The power of two, at least 16, that a tile needs for an axis of this size."""
    power: int = triton.next_power_of_2(size)
    return max(16, power)


def constants(model: PackedModel, dtype: torch.dtype) -> dict[str, object]:
    """The kernel's constants for a network whose state has this dtype."""
    widened = interpreting() or dtype == torch.float32
    return {
        "D": model.dim,
        "P": model.positions,
        "MIXER": model.mixer_dim,
        "MLP": model.mlp_dim,
        "GUIDANCE": model.guidance_dim,
        "LAYERS": model.num_layers,
        "HEADS": model.num_heads,
        "HEAD_DIM": model.head_dim,
        "HALF": model.half,
        "LOW_STEPS": model.low_steps,
        "TRANSITIONS": model.transitions,
        "ATTENTION": model.attention,
        "OVER_POSITIONS": model.norm_over_positions,
        "SHARED": model.shared,
        "FLAT": model.flat,
        "GUIDED": model.guided,
        "LEARNED_MEAN": model.learned_mean,
        "HIGH_STREAM": HIGH_STREAM,
        "LOW_STREAM": LOW_STREAM,
        "GUIDANCE_STREAM": GUIDANCE_STREAM,
        "CHUNK": CHUNK,
        "OPERAND": tl.float32 if widened else {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype],
    }


def options(model: PackedModel) -> dict[str, int]:
    """How Triton compiles the kernel for a network: a group of four warps multiplies 64 positions."""
    return {"num_warps": 8 if model.positions > 64 else 4, "num_stages": STAGES}
