"""kernels/norm.py in Triton: one pass over memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gram.kernels.norm import EPS


@triton.jit
def _kernel(x, residual, y, rows, eps, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    channel = tl.arange(0, BLOCK_D)[None, :]
    place, mask = row * D + channel, (row < rows) & (channel < D)
    total = tl.load(x + place, mask, 0.0).to(tl.float32) + tl.load(residual + place, mask, 0.0).to(tl.float32)
    mean_square = tl.sum(total * total, 1, keep_dims=True) / D
    tl.store(y + place, (total * tl.rsqrt(mean_square + eps)).to(y.dtype.element_ty), mask)


def add_rms_norm(x: Tensor, residual: Tensor) -> Tensor:
    """As kernels.norm.add_rms_norm."""
    x, residual = x.contiguous(), residual.contiguous()
    y, dim = torch.empty_like(x), x.shape[-1]
    rows, block_d = x.numel() // dim, triton.next_power_of_2(dim)
    block_m = max(1, 2048 // block_d)
    _kernel[(triton.cdiv(rows, block_m),)](x, residual, y, rows, EPS, dim, BLOCK_M=block_m, BLOCK_D=block_d)
    return y
